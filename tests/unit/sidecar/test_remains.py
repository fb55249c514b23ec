"""What a start removes of what earlier processes left, and what it leaves because somebody may need it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.ids import LeaseEpoch, TaskId
from hub.wire.spec import Spec
from sidecar.core.records import Assigned, Key
from sidecar.journal import Journal
from sidecar.remains import release_strangers
from sidecar.workspace.workspaces import GitIdentity, Workspaces


@pytest.fixture
def spaces(tmp_path: Path) -> Workspaces:
    return Workspaces(tmp_path / "workspaces", identity=GitIdentity(name="Smith", email="s@example.org"))


def hold(agents: Path, agent: str, *tasks: int) -> Path:
    path = agents / agent / "journal"
    path.parent.mkdir(parents=True)
    journal = Journal(path)
    for task in tasks:
        journal.append(Assigned(task=TaskId(task), lease_epoch=LeaseEpoch(1)))
    journal.close()
    return path


async def left_by(spaces: Workspaces, agent: str, task: int) -> None:
    await spaces.prepare(Spec(task=TaskId(task), lease_epoch=LeaseEpoch(1), title="Work"), agent)


async def remaining(spaces: Workspaces, agents: Path, *held: int) -> list[int]:
    await release_strangers(spaces, agents, lambda key: key in {Key(TaskId(task), LeaseEpoch(1)) for task in held})
    return [workspace.task for workspace in await spaces.all()]


async def test_what_a_journal_or_this_process_holds_stays_and_the_rest_goes(spaces: Workspaces, tmp_path: Path) -> None:
    hold(tmp_path / "agents", "a", 1)
    for task in (1, 2, 3):
        await left_by(spaces, "a", task)
    assert await remaining(spaces, tmp_path / "agents", 2) == [1, 2]


async def test_the_workspace_of_an_agent_taken_out_of_the_settings_stays_while_its_journal_holds_it(
    spaces: Workspaces, tmp_path: Path
) -> None:
    """Its agent may still run in there, under its shim."""
    hold(tmp_path / "agents", "a")
    hold(tmp_path / "agents", "taken-out", 5)
    await left_by(spaces, "taken-out", 5)
    assert await remaining(spaces, tmp_path / "agents") == [5]


async def test_nothing_goes_while_a_journal_cannot_be_read(spaces: Workspaces, tmp_path: Path) -> None:
    hold(tmp_path / "agents", "a")
    journal = hold(tmp_path / "agents", "b", 5)
    journal.write_bytes(b"\0\0\0\1XXXXX" + journal.read_bytes())
    await left_by(spaces, "a", 7)
    assert await remaining(spaces, tmp_path / "agents") == [7]


async def test_the_work_of_an_agent_without_a_journal_stays(spaces: Workspaces, tmp_path: Path) -> None:
    hold(tmp_path / "agents", "a")
    await left_by(spaces, "gone", 5)
    await left_by(spaces, "a", 6)
    assert await remaining(spaces, tmp_path / "agents") == [5]
