"""Who holds a lock is believed only of a process that is certainly the one that took it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar import locks
from sidecar.runs import sweep
from sidecar.runs.clock import boot_name


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    locks.sign(handle)
    yield path
    os.close(handle)


def test_a_holder_that_signed_is_known(held: Path) -> None:
    assert locks.holder(held) == os.getpid()


def test_a_signature_outlives_its_lock_and_then_means_nothing(held: Path, tmp_path: Path) -> None:
    (tmp_path / "free").write_text(held.read_text())
    assert locks.holder(tmp_path / "free") is None
    assert locks.holder(tmp_path / "none") is None


@pytest.mark.parametrize("said", ["", "nonsense", "{pid}", "{pid} 1 {boot}", "{pid} {start} another-boot", "0 0 {boot}"])
def test_a_pid_that_is_or_may_be_another_process_is_not_named(held: Path, said: str) -> None:
    me = sweep.look(os.getpid())
    assert me is not None
    held.write_text(said.format(pid=me.pid, start=me.started, boot=boot_name()))
    assert locks.holder(held) == 0


def test_a_longer_signature_of_before_leaves_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("9" * 200)
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        locks.sign(handle)
        assert locks.holder(path) == os.getpid()
    finally:
        os.close(handle)
