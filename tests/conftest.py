"""The suite mostly waits for processes: as a whole it runs in a few workers, a file in each; a part of it runs in this process."""

import os

import pytest

os.environ.setdefault("AGENTCOM_STORAGE_RESERVE_MB", "1")  # the default, for each of a hundred hubs, is a disk's worth

WORKERS = 4
"""About so many tests that wait for hubs, sidecars and agents keep two cores busy."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What ``-n auto`` means here; ``-n 0`` runs everything in this process, for a debugger."""
    return WORKERS if config.args == config.getini("testpaths") else 0
