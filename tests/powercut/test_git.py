"""The power is cut while the hub makes a clone and fetches: the next fetch works, by itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.powercut.campaign import judge_all
from tests.powercut.disk import Disk, Names
from tests.powercut.git_work import CLONES, fetch, judge_clone, record_fetches
from tests.powercut.tape import Op
from tests.support.repos import make_remote

pytestmark = pytest.mark.usefixtures("compiler")


def test_no_power_cut_leaves_a_clone_that_cannot_be_fetched_into(tmp_path: Path, room: Path) -> None:
    """By the rule of ext4, XFS and Btrfs: git syncs no directory, so that nothing stricter can be asked of it."""
    tape, url = record_fetches(tmp_path, fetches=2)
    disk = Disk(Names.ORDERED)
    for step in tape.steps:
        disk.take(step)
    assert disk.files() == tape.left
    assert any(step.op is Op.SYNCED and step.path.endswith("main.lock") for step in tape.steps), "refs are synced, too"
    assert judge_all(tape, Names.ORDERED, partial(judge_clone, url), room, chances=2).faults == []


@pytest.mark.parametrize("head", [None, b""])
def test_a_clone_that_a_power_cut_left_half_made_is_made_again(head: bytes | None, tmp_path: Path) -> None:
    remote = make_remote(tmp_path, {"first": "x\n"})
    broken = tmp_path / CLONES / "site.git"
    (broken / "objects").mkdir(parents=True)
    if head is not None:
        (broken / "HEAD").write_bytes(head)
    assert fetch(tmp_path, remote.url) == remote.sha("main")
