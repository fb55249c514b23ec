"""The power is cut at every sync of a hub at work: with full durability nothing promised is lost, with normal it is seen to be."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.powercut.campaign import cuts, judge_all
from tests.powercut.disk import Disk, Names
from tests.powercut.hub_judge import judge_hub
from tests.powercut.hub_work import record_hub
from tests.powercut.tape import Op, Tape
from tests.support.living_hub import LivingHub, living_hub
from tests.support.repos import git

pytestmark = pytest.mark.usefixtures("compiler")
ROUNDS = 3
WAIT_S = 30.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("full")


@pytest.fixture(scope="module")
def tape(compiler: None, place: Path) -> Tape:
    return record_hub(place, rounds=ROUNDS)


def test_the_tape_tells_everything(tape: Tape) -> None:
    disk = Disk(Names.STRICT)
    for step in tape.steps:
        disk.take(step)
    assert disk.files() == tape.left
    assert {step.path for step in tape.steps if step.op is Op.SYNCED} >= {"hub/hub.db", "hub/hub.db-wal", "hub", "."}


@pytest.mark.parametrize("names", Names)
def test_full_durability_loses_nothing_promised(tape: Tape, names: Names, room: Path) -> None:
    verdict = judge_all(tape, names, judge_hub, room, chances=1 if names is Names.STRICT else 0)
    assert verdict.faults == []
    assert verdict.cuts > 60


def test_a_log_that_is_not_synced_is_seen_to_lose(tape: Tape, room: Path) -> None:
    verdict = judge_all(
        tape.without_syncs("hub.db-wal"), Names.ORDERED, judge_hub, room, chances=0, every=10, after_promises=True
    )
    assert {"t-2 submitted", "t-2 assigned", "t-2 accepted", "t-2 applied", "event 9"} <= {said for _, said in verdict.faults}


def test_normal_durability_is_seen_to_lose_the_last_moments_and_nothing_else(room: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    tape = record_hub(tmp_path / "work", rounds=1, durability="normal")
    verdict = judge_all(tape, Names.STRICT, partial(judge_hub, durability="normal"), room, every=3, after_promises=True)
    assert verdict.bad
    assert not [said for _, said in verdict.faults if "integrity" in said or "newest" in said or "start" in said]


def test_a_merge_that_was_pushed_is_finished_without_its_clone_and_not_repeated(
    tape: Tape, place: Path, tmp_path: Path
) -> None:
    """The last moment at which the store holds the intent alone: the remote, which has its own power, has the merge."""
    left = _last_state(tape, tmp_path, "merging")
    with living_hub(left) as hub:
        _until_merged(hub)
    main = git("log", "--merges", "--format=%s", "main", cwd=place / "root" / "remote.git")
    assert len(main.splitlines()) == 1, main


def _last_state(tape: Tape, place: Path, state: str) -> Path:
    """What is left by the last cut after which the only change is in ``state``."""
    found = place / "none"
    for number, (disk, _) in enumerate(cuts(tape, Names.STRICT)):
        left = place / str(number)
        left.mkdir()
        disk.cut(left)
        if _state_of_change(left / "hub" / "hub.db") == state:
            found = left
    return found


def _state_of_change(store: Path) -> str | None:
    if not store.exists():
        return None
    with closing(sqlite3.connect(store)) as rows:
        try:
            row = rows.execute("SELECT state FROM change").fetchone()
        except sqlite3.OperationalError:
            return None  # the schema comes later
    return row[0] if row else None


def _until_merged(hub: LivingHub) -> None:
    deadline = time.monotonic() + WAIT_S
    while (state := hub.made("GET", "/changes/c-1")["state"]) != "merged":
        assert time.monotonic() < deadline, f"it is {state}"
        time.sleep(0.05)
