"""The power is cut at every sync of a sidecar at work: what it told the hub, and what it is about to start, is in its journal."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hub.wire import frames
from tests.powercut.campaign import cuts, judge_all
from tests.powercut.disk import Disk, Names
from tests.powercut.sidecar_judge import judge_sidecar
from tests.powercut.sidecar_work import record_sidecar, sidecar, spec
from tests.powercut.tape import Op, Tape
from tests.support.fake_hub import FakeHub, running

pytestmark = pytest.mark.usefixtures("compiler")
TASKS = 6


@pytest.fixture(scope="module")
def tape(compiler: None, tmp_path_factory: pytest.TempPathFactory) -> Tape:
    return asyncio.run(record_sidecar(tmp_path_factory.mktemp("work"), tasks=TASKS))


def test_the_tape_tells_everything_and_the_journal_was_compacted(tape: Tape) -> None:
    disk = Disk(Names.STRICT)
    for step in tape.steps:
        disk.take(step)
    assert disk.files() == tape.left
    assert any(step.op is Op.RENAMED and step.path.endswith("journal.new") for step in tape.steps)


@pytest.mark.parametrize("names", Names)
def test_nothing_promised_is_lost_and_no_run_is_forgotten(tape: Tape, names: Names, room: Path) -> None:
    verdict = judge_all(tape, names, judge_sidecar, room, chances=3)
    assert verdict.faults == []
    assert verdict.cuts > 30


def test_a_journal_that_is_not_synced_is_seen_to_lose(tape: Tape, room: Path) -> None:
    verdict = judge_all(tape.without_syncs("journal"), Names.ORDERED, judge_sidecar, room, chances=0, after_promises=True)
    assert {"t-1 accepted", "run 1-1-0 began, and is not known", "control of t-5 obeyed"} <= {
        said for _, said in verdict.faults
    }


async def test_a_sidecar_that_lost_the_power_reports_its_run_as_lost_and_does_not_run_again(tape: Tape, tmp_path: Path) -> None:
    """After the power cut there is neither shim nor workspace, only what was synced: the journal says that an agent was woken."""
    root = tmp_path / "root"
    root.mkdir()
    made = next(disk for disk, told in cuts(tape, Names.STRICT) if told and told[-1].path.endswith("runs/1-1-0"))
    made.cut(root)
    runs = tmp_path / "runs.log"
    async with running(FakeHub(specs={(1, 1): spec(1)})) as hub, sidecar(tmp_path, hub, {"AGENTCOM_RUN_LOG": str(runs)}):
        hello = await hub.expect(frames.Hello)
        result = await hub.expect(frames.Result)
    assert [item.task for item in hello.held] == [1]
    assert (result.task, result.outcome) == (1, "lost")
    assert not runs.exists()
