"""The work's own decisions, with everything around it faked: pushing that fails, stopping while it waits, resuming."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hub.ids import LeaseEpoch, TaskId
from hub.wire.spec import Commit, Spec, VerificationReport
from sidecar.core import effects as fx
from sidecar.core import records
from sidecar.core.effects import StopReason
from sidecar.core.holding import Holding
from sidecar.core.records import Key
from sidecar.runs.runner import Deadline
from sidecar.runtimes.base import RunEnd
from sidecar.runtimes.command import CommandRuntime
from sidecar.work import Tools, Work
from sidecar.workspace.workspaces import Workspace, WorkspaceError, WorkState

KEY = Key(TaskId(1), LeaseEpoch(2))
IDS = {"task": KEY.task, "lease_epoch": KEY.lease_epoch}
HEAD = "a" * 40
TERMINAL = {"exit": 0, "signal": None, "stopped": None, "unrun": False, "error": None}


class Run:
    """A run that is over at once."""

    async def events(self):
        yield TERMINAL

    def extend(self, deadline: Deadline) -> None: ...
    def stop(self, grace_ms: int) -> None: ...
    def close(self) -> None: ...


class World:
    """Workspaces, a runner and a holder that agrees with everything; remembers what happened."""

    def __init__(self, *, push_faults: int = 0, retryable: bool = True, wakes: bool = True, dirty: int = 0) -> None:
        self.did: list[str] = []
        self.push_faults = push_faults
        self.retryable = retryable
        self.wakes = wakes
        self.state = WorkState(
            head_sha=HEAD, commits=(Commit(sha=HEAD, subject="s"),), advanced=True, dirty=("d",) * dirty, dirty_count=dirty
        )
        self.held = Holding(KEY)
        self.held.replay(records.Accepted(**IDS, spec=Spec(**IDS, title="t", verification=())))
        self.told: list[fx.Happening] = []
        self.waiting = asyncio.Event()

    # workspaces
    async def prepare(self, spec: Spec, agent: str) -> Workspace:
        return Workspace(path=Path("/w"), task=KEY.task, lease_epoch=KEY.lease_epoch, branch="b", base_sha="c" * 40)

    def agent_env(self, workspace: Workspace) -> dict[str, str]:
        return {}

    async def inspect(self, workspace: Workspace) -> WorkState:
        return self.state

    async def salvage(self, workspace: Workspace, *, commits: bool = False) -> str | None:
        self.did.append("salvage")
        return "refs/s"

    async def push(self, workspace: Workspace, head_sha: str) -> None:
        self.did.append("push")
        if self.push_faults:
            self.push_faults -= 1
            raise WorkspaceError("remote_unreachable", "gone", retryable=self.retryable)

    async def push_salvage(self, workspace: Workspace, ref: str) -> str:
        return "salvaged"

    # runner
    async def start(self, run_id: str, order: object, deadline: Deadline) -> Run:
        self.did.append(f"start {run_id}")
        return Run()

    def attach(self, run_id: str) -> Run:
        self.did.append(f"attach {run_id}")
        return Run()

    # holder
    async def tell(self, event: fx.Happening) -> None:
        self.told.append(event)
        match event:
            case fx.RunWanted(run_id=run_id, round=number, cause=cause) if self.wakes:
                self.held.replay(records.Woken(**IDS, run_id=run_id, round=number, cause=cause))
                self.work.wake(Deadline(1, 2))
            case fx.RunWanted():
                self.waiting.set()
            case fx.RunExited(record=record):
                self.held.replay(record)
            case fx.Checked(report=report):
                self.held.replay(records.Verified(**IDS, report=report))
            case fx.WorkPushed(head_sha=head_sha, salvage_ref=salvage_ref):
                self.held.replay(records.Pushed(**IDS, head_sha=head_sha, salvage_ref=salvage_ref))
            case _:
                pass

    def start_work(self, **patience) -> Work:
        tools = Tools(
            workspaces=self, runner=self, runtime=CommandRuntime(["agent"]),  # type: ignore[arg-type]
            environment=lambda workspace, access: dict(workspace), verifier=self.verify, push_retry_s=(0.001, 0.002), **patience,
        )  # fmt: skip
        self.work = Work(self.held, tools, self.tell)
        return self.work

    async def verify(self, workspace, checks, *, env, state) -> VerificationReport:
        return VerificationReport(passed=True)

    @property
    def result(self):
        assert isinstance(self.told[-1], fx.Finished), self.told[-1]
        return self.told[-1].result


async def test_a_push_that_fails_for_a_while_is_repeated() -> None:
    world = World(push_faults=3)
    await world.start_work().run()
    assert world.did.count("push") == 4
    assert (world.result.outcome, world.result.head_sha) == ("succeeded", HEAD)


@pytest.mark.parametrize(("retryable", "pushes"), [(True, 2), (False, 1)])
async def test_a_push_that_never_works_fails_the_task_and_keeps_the_commits(retryable: bool, pushes: int) -> None:
    world = World(push_faults=10_000, retryable=retryable)
    await world.start_work(push_patience_s=0.002).run()
    assert world.did.count("push") >= pushes
    assert (world.result.error.code, world.result.error.cls) == ("push_failed", "retryable")
    assert "salvage" in world.did
    assert world.result.branch is None


async def test_work_stopped_before_it_may_wake_an_agent_starts_none() -> None:
    world = World(wakes=False)
    task = asyncio.create_task(world.start_work().run())
    await world.waiting.wait()
    world.held.stop = StopReason.CANCEL
    world.work.stop(StopReason.CANCEL)
    await task
    assert world.result.outcome == "cancelled"
    assert world.did == []


async def test_a_run_that_was_woken_before_a_restart_is_attached_not_started() -> None:
    world = World()
    world.held.replay(records.Woken(**IDS, run_id="1-2-0", round=0, cause="first"))
    await world.start_work().run()
    assert world.did == ["attach 1-2-0", "push"]


async def test_what_was_pushed_before_a_restart_is_not_pushed_again() -> None:
    world = World()
    world.held.replay(records.Woken(**IDS, run_id="1-2-0", round=0, cause="first"))
    world.held.replay(records.Exited(**IDS, run_id="1-2-0", stopped=None, end=RunEnd(ok=True, text="said")))
    world.held.replay(records.Pushed(**IDS, head_sha=HEAD, salvage_ref=None))
    await world.start_work().run()
    assert world.did == []
    assert (world.result.head_sha, world.result.output) == (HEAD, "said")


async def test_a_parked_assignment_is_salvaged_and_given_back_without_a_result() -> None:
    world = World()
    world.held.replay(records.Woken(**IDS, run_id="1-2-0", round=0, cause="first"))
    world.held.replay(records.Parked(**IDS))
    await world.start_work().run()
    assert isinstance(world.told[-1], fx.ParkReady)
    assert "salvage" in world.did


async def test_a_fault_of_the_sidecar_is_a_result_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(world, "inspect", lambda workspace: 1 / 0)
    await world.start_work().run()
    assert (world.result.error.code, world.result.error.cls) == ("sidecar_fault", "retryable")


async def test_a_fault_while_the_agent_runs_ends_the_run_and_keeps_its_commits_before_it_is_a_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, did = World(), []

    class Living(Run):
        async def events(self):
            yield {"out": "a line"}
            while "stop" not in did:
                await asyncio.sleep(0)
            did.append("over")
            yield TERMINAL

        def stop(self, grace_ms: int) -> None:
            did.append("stop")

    monkeypatch.setattr(world, "attach", lambda run_id: Living())
    monkeypatch.setattr("sidecar.runtimes.command.CommandReader.feed", lambda *_: 1 / 0)
    await world.start_work().run()
    assert did == ["stop", "over"]
    assert isinstance(world.told[-2], fx.RunExited)
    assert (world.result.error.code, world.result.error.cls) == ("sidecar_fault", "retryable")
    assert (world.did[-1], world.result.salvage_ref) == ("salvage", "salvaged")
