"""What lies in a state directory, and that nothing is concluded from what cannot be read."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from hub.ids import FindingState, LeaseEpoch, TaskId
from sidecar.core.records import Assigned, Key, Removed
from sidecar.doctor.state import Inventory, findings, take_inventory
from sidecar.journal import Journal, JournalError, live_keys
from sidecar.locks import sign
from sidecar.workspace.workdir import Workspace, write_record


def hold(state: Path, agent: str, *keys: tuple[int, int], settled: tuple[tuple[int, int], ...] = ()) -> Path:
    path = state / "agents" / agent / "journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(path)
    for task, epoch in keys:
        journal.append(Assigned(task=TaskId(task), lease_epoch=LeaseEpoch(epoch)))
    for task, epoch in settled:
        journal.append(Removed(task=TaskId(task), lease_epoch=LeaseEpoch(epoch)))
    journal.close()
    return path


def run(state: Path, agent: str, name: str) -> Path:
    directory = state / "agents" / agent / "runs" / name
    directory.mkdir(parents=True)
    return directory


def workspace(state: Path, task: int, epoch: int, agent: str = "") -> None:
    home = state / "workspaces" / "work" / f"t-{task}-{epoch}"
    home.mkdir(parents=True)
    write_record(Workspace(path=home / "tree", task=TaskId(task), lease_epoch=LeaseEpoch(epoch), branch="b", agent=agent))


def words(found: Inventory, *configured: str) -> dict[str, list[tuple[str, str]]]:
    said: dict[str, list[tuple[str, str]]] = {}
    for finding in findings(found, set(configured)):
        said.setdefault(finding.check, []).append((finding.state, finding.found))
    return said


def key(task: int, epoch: int) -> Key:
    return Key(TaskId(task), LeaseEpoch(epoch))


def test_a_journal_is_read_without_being_touched(tmp_path: Path) -> None:
    path = hold(tmp_path, "a", (1, 1), (2, 3), settled=((1, 1),))
    torn = path.read_bytes() + b"\0\0\0\7half"
    path.write_bytes(torn)
    assert live_keys(path) == {key(2, 3)}
    assert path.read_bytes() == torn, "its owner cuts what was torn, nobody else"


def test_a_damaged_or_missing_journal_tells_nothing(tmp_path: Path) -> None:
    path = hold(tmp_path, "a", (1, 1))
    path.write_bytes(b"\0\0\0\1XXXXX" + path.read_bytes())
    with pytest.raises(JournalError, match="damaged"):
        live_keys(path)
    with pytest.raises(JournalError, match="cannot be read"):
        live_keys(tmp_path / "none")


def test_what_no_journal_knows_is_left_over(tmp_path: Path) -> None:
    hold(tmp_path, "a", (1, 1))
    hold(tmp_path, "b", (2, 2), settled=((2, 2),))
    run(tmp_path, "a", "1-1-0")
    strange = run(tmp_path, "b", "2-2-0")
    workspace(tmp_path, 1, 1)
    workspace(tmp_path, 2, 2)
    found = take_inventory(tmp_path)
    assert found.runs == (strange,)
    assert [one.task for one in found.workspaces] == [2]
    assert not found.settled
    said = words(found, "a", "b")
    assert said["runs"] == [("warn", "1 runs that no journal knows: b/2-2-0")]
    assert said["workspaces"] == [("warn", "1 workspaces that no journal knows: t-2/2")]
    assert said["journals"] == [("ok", "2 readable, 1 unsettled assignment")]


@pytest.mark.parametrize("damage", ["journal", "missing", "agents", "record"])
def test_with_anything_unreadable_nothing_counts_as_left_over(tmp_path: Path, damage: str) -> None:
    path = hold(tmp_path, "a", (1, 1), settled=((1, 1),))
    run(tmp_path, "a", "9-9-0")
    workspace(tmp_path, 9, 9)
    match damage:
        case "journal":
            path.write_bytes(b"\0\0\0\1XXXXX" + path.read_bytes())
        case "missing":
            path.unlink()
        case "agents":
            (tmp_path / "agents").rename(tmp_path / "gone")
        case "record":
            (tmp_path / "workspaces" / "work" / "t-9-9" / "workspace.json").write_text("nonsense")
    found = take_inventory(tmp_path)
    assert found.unreadable
    assert found.runs == ()
    assert found.workspaces == ()
    assert not found.settled
    said = {finding.check: finding for finding in findings(found, {"a"})}
    assert said["journals"].state is FindingState.FAIL
    assert not said["runs"].fixable
    assert not said["workspaces"].fixable


def test_the_work_of_an_agent_whose_directory_is_gone_is_never_left_over(tmp_path: Path) -> None:
    hold(tmp_path, "a")
    workspace(tmp_path, 8, 1, "a")
    assert [one.task for one in take_inventory(tmp_path).workspaces] == [8]
    workspace(tmp_path, 9, 1, "b")
    found = take_inventory(tmp_path)
    assert found.workspaces == ()
    assert not found.settled
    assert "t-9-1 is the work of b, which has no journal" in words(found, "a")["journals"][0][1]


def test_a_living_shim_is_told_and_a_running_sidecar_is_left_to_do_it(tmp_path: Path) -> None:
    hold(tmp_path, "a")
    directory = run(tmp_path, "a", "3-1-0")
    handles = [os.open(path, os.O_RDWR | os.O_CREAT) for path in (directory / "lock", tmp_path / "lock")]
    try:
        fcntl.flock(handles[0], fcntl.LOCK_EX)
        assert words(take_inventory(tmp_path), "a")["runs"] == [
            ("warn", "1 runs that no journal knows: a/3-1-0 (its shim lives)")
        ]
        fcntl.flock(handles[1], fcntl.LOCK_EX)
        sign(handles[1])
        found = take_inventory(tmp_path)
        assert found.running == os.getpid()
        assert not next(finding for finding in findings(found, {"a"}) if finding.check == "runs").fixable
    finally:
        for handle in handles:
            os.close(handle)


def test_work_of_an_agent_that_is_not_configured_any_more_is_told(tmp_path: Path) -> None:
    hold(tmp_path, "old", (5, 1))
    assert ("warn", "old is not configured, and holds t-5/1") in words(take_inventory(tmp_path), "a")["journals"]


def test_a_damaged_journal_kept_aside_is_told(tmp_path: Path) -> None:
    hold(tmp_path, "a").with_suffix(".damaged").write_bytes(b"")
    assert words(take_inventory(tmp_path), "a")["journals"][0][0] == "warn"


def test_an_empty_place_is_settled(tmp_path: Path) -> None:
    assert take_inventory(tmp_path / "nothing").settled
