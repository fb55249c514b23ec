"""Recording takes a C compiler, which a machine that only runs the hub need not have."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.powercut.tape import COMPILER

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def compiler() -> None:
    if COMPILER is None:
        pytest.skip("recording writes takes a C compiler: install gcc")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """Where what is left is judged: in memory, if there is such a place. Syncing it for real would only take time."""
    with tempfile.TemporaryDirectory(prefix="powercut-", dir=MEMORY if MEMORY.is_dir() else tmp_path) as place:
        yield Path(place)
