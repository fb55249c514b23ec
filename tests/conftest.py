"""The suite mostly waits for processes: as a whole it runs in a few workers, a file in each; a part of it runs in this process."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

HERE = Path(__file__).parent

os.environ.setdefault("AGENTCOM_STORAGE_RESERVE_MB", "1")  # the default, for each of a hundred hubs, is a disk's worth

WORKERS = 4
"""About so many tests that wait for hubs, sidecars and agents keep two cores busy."""
LONGEST = ("crash", "simulation", "network", "property", "powercut", "integration", "acceptance", "contract")
"""Folders of few and long files: they begin first, or the last of them would run alone."""


_configure = structlog.configure


def _configure_for_now(**how: Any) -> None:
    _configure(**how | {"cache_logger_on_first_use": False})


structlog.configure = _configure_for_now  # a logger that is kept would write to the standard error of a test that is over


@pytest.fixture(autouse=True)
def logs_of_its_own() -> Iterator[None]:
    """What a test sets up for its logs ends with it."""
    yield
    structlog.reset_defaults()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What ``-n auto`` means here; ``-n 0`` runs everything in this process, for a debugger."""
    return WORKERS if config.args == config.getini("testpaths") else 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first; within a folder the order stays."""
    rank = {folder: i for i, folder in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.relative_to(HERE).parts[0], len(LONGEST)))
