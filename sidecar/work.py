"""The life of one assignment once it is accepted: workspace, runs, checks, corrective rounds, push, result.

The work is a coroutine that reads its :class:`~sidecar.core.holding.Holding` and reports every step to the holder before it
takes the next, so whatever a dead process left behind is taken up where its journal ends. Everything after the agent's
exit may happen twice. It never decides whether an agent may run: it asks, and is woken.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from hub.ids import Access, Outcome, Phase
from hub.wire.frames import Result
from hub.wire.spec import RunError, Verification
from sidecar.checks.verify import feedback, verify
from sidecar.core import effects as fx
from sidecar.core import rounds
from sidecar.core.effects import Happening, StopReason
from sidecar.core.holding import Holding
from sidecar.core.prompt import wake_message
from sidecar.core.records import Cause, Exited
from sidecar.core.results import Delivered, compose
from sidecar.ports import Environment, Verifier, WorkspaceKeeper
from sidecar.runs.runner import Deadline, Order, Run, RunFault, Runner, is_terminal, run_id_of
from sidecar.runtimes.base import Asked, Event, RunEnd, RunSpec, Runtime, RuntimeFault, Said
from sidecar.workspace.workdir import offer_ref
from sidecar.workspace.workspaces import Workspace, WorkspaceError, WorkState

log = structlog.get_logger(__name__)

PUSH_PATIENCE_S = 600.0
PUSH_RETRY_S = (1.0, 60.0)
"""First and longest wait between two attempts to push."""
STOP_GRACE_MS = 5_000
END_PATIENCE_S = 30.0
"""How long the end of a run is awaited after the grace, before a fault of ours is reported."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the work of one ``agent`` is done with. ``environment`` makes the agent's from the workspace's part of it."""

    agent: str = ""
    workspaces: WorkspaceKeeper
    runner: Runner
    runtime: Runtime
    environment: Environment
    verifier: Verifier = verify
    push_patience_s: float = PUSH_PATIENCE_S
    push_retry_s: tuple[float, float] = PUSH_RETRY_S
    stop_grace_ms: int = STOP_GRACE_MS


class _StoppedError(Exception):
    """The work was stopped while it waited for something."""


class Work:
    """The work on one assignment in this process. ``tell`` reports to the holder and returns when that is durable."""

    def __init__(self, held: Holding, tools: Tools, tell: Callable[[Happening], Awaitable[None]]) -> None:
        assert held.spec is not None
        self._held = held
        self._spec = held.spec
        self._tools = tools
        self._tell = tell
        self._stop_asked = asyncio.Event()
        self._cut_short = asyncio.Event()
        self._woken: asyncio.Future[Deadline] | None = None
        self._run: Run | None = None
        self._deadline: Deadline | None = None
        if held.stop is not None:
            self.stop(held.stop)

    # --- what the holder asks for

    def wake(self, deadline: Deadline) -> None:
        """The run that was asked for may start."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(deadline)

    def extend(self, deadline: Deadline) -> None:
        """The lease goes on."""
        self._deadline = deadline
        if self._run is not None:
            self._run.extend(deadline)

    def stop(self, reason: StopReason) -> None:
        """End it. Only a cancel or an interrupt ends what comes after the agent's exit: a late success is worth keeping."""
        self._stop_asked.set()
        if reason in {StopReason.CANCEL, StopReason.INTERRUPT}:
            self._cut_short.set()
        if self._run is not None:
            self._run.stop(self._tools.stop_grace_ms)

    def answer(self, key_of_send: str, qid: str, text: str) -> None:
        """Give the agent an answer."""
        if self._run is not None:
            self._run.send(key_of_send, self._tools.runtime.answer(qid, text))

    # --- the work

    async def run(self) -> None:
        """Work until there is a result, or until the assignment is ready to be parked."""
        workspace: Workspace | None = None
        try:
            preparing = self._tools.workspaces.prepare(self._spec, self._tools.agent)
            workspace = await self._unless(self._stop_asked, preparing)
            result = await (self._check(workspace) if self._spec.check else self._pursue(workspace))
        except _StoppedError:
            result = self._result(rounds.stopped(self._held.stop), Delivered())
        except (WorkspaceError, RuntimeFault) as fault:
            log.warning("work_failed", task=self._held.key.task, code=fault.code, reason=str(fault))
            kept = await self._wind_up(workspace)
            result = self._failed(fault.code, str(fault), retryable=fault.retryable, kept=kept)
        except Exception as fault:  # a fault of ours must not take the other agents of this sidecar down
            log.exception("work_crashed", task=self._held.key.task)
            kept = await self._wind_up(workspace)
            result = self._failed("sidecar_fault", f"{type(fault).__name__}: {fault}", retryable=True, kept=kept)
        await self._tell(fx.ParkReady(self._held.key) if result is None else fx.Finished(self._held.key, result))

    async def _pursue(self, workspace: Workspace) -> Result | None:
        held = self._held
        if held.phase is Phase.ACCEPTED:
            await self._new_run(workspace, "first", "")
        while True:
            if held.phase is Phase.WOKEN:
                await self._follow(workspace)
            state = await self._tools.workspaces.inspect(workspace)
            if held.parked:
                await self._salvage(workspace)
                return None
            step = rounds.next_step(self._spec, held, state, feedback(held.report.report) if held.report else "")
            try:
                match step:
                    case rounds.Verify():
                        await self._verify(workspace, self._spec.verification, state)
                    case rounds.Correct(cause=cause, correction=correction):
                        await self._new_run(workspace, cause, correction)
                    case rounds.Conclude():
                        return await self._conclude(workspace, state, step)
            except _StoppedError:
                return await self._conclude(workspace, state, rounds.stopped(held.stop))

    async def _conclude(self, workspace: Workspace, state: WorkState | None, step: rounds.Conclude) -> Result:
        if self._held.pushed is None:
            try:
                head_sha, salvage_ref = await self._keep(workspace, state)
            except WorkspaceError as fault:
                await self._salvage(workspace)
                if step.outcome is Outcome.SUCCEEDED:
                    return self._failed("push_failed", f"{fault.code}: {fault}", retryable=True)
                return self._result(step, Delivered())
            await self._tell(fx.WorkPushed(self._held.key, head_sha, salvage_ref))
        pushed = self._held.pushed
        if pushed is None or pushed.head_sha is None or state is None:
            return self._result(step, _left(workspace, pushed.salvage_ref if pushed else None))
        delivered = Delivered(
            branch=workspace.branch,
            base_sha=workspace.base_sha,
            head_sha=pushed.head_sha,
            commits=state.commits,
            salvage_ref=pushed.salvage_ref,
        )
        return self._result(step, delivered)

    def _failed(self, code: str, message: str, *, retryable: bool, kept: Delivered | None = None) -> Result:
        cls = "retryable" if retryable else "permanent"
        error = RunError(cls=cls, code=code[:64], message=message[:4096])
        return self._result(rounds.Conclude(Outcome.FAILED, error), kept or Delivered())

    def _result(self, step: rounds.Conclude, delivered: Delivered) -> Result:
        held = self._held
        end = held.last.end if held.last is not None else None
        report = None
        if held.report is not None:
            report = replace(held.report.report, fix_rounds=rounds.fix_rounds(held))
        return compose(
            held.key,
            step.outcome,
            step.error,
            delivered=delivered,
            report=report,
            output=end.text if end else "",
            usage=end.usage if end else None,
            conversation_id=end.conversation_id if end else None,
        )

    # --- runs

    async def _new_run(self, workspace: Workspace, cause: Cause, correction: str) -> None:
        """Start a run and leave the holding ``woken``; raises :class:`_StoppedError` when it is stopped before."""
        tools, held, number = self._tools, self._held, len(self._held.runs)
        run_id = run_id_of(held.key, number)
        offers: dict[int, str] = {epoch: offer_ref(held.key.task, epoch) for epoch in workspace.offered}
        prompt = wake_message(
            self._spec, branch=workspace.branch, conflict=workspace.conflict, correction=correction, offers=offers
        )
        launch = tools.runtime.launch(
            RunSpec(
                spec=self._spec,
                round=number,
                cwd=workspace.path,
                prompt=prompt,
                prompt_file=workspace.prompt_file(number),
                env=self._environment(workspace),
                access=self._spec.access,
            )
        )
        order = Order(
            launch=launch,
            cwd=workspace.path,
            prompt=prompt,
            prompt_file=workspace.prompt_file(number),
            wall_s=self._spec.budget.wall_s,
        )
        self._woken = asyncio.get_running_loop().create_future()
        await self._tell(fx.RunWanted(held.key, run_id, number, cause))
        deadline = await self._unless(self._stop_asked, self._woken)
        try:
            await tools.runner.start(run_id, order, deadline)
        except RunFault as fault:  # following the run settles whether it runs, ran or never will
            log.warning("run_not_started", run=run_id, code=fault.code, reason=str(fault))

    async def _follow(self, workspace: Workspace) -> None:
        """Stay with the run that is going on until it is over."""
        woken, reader = self._held.runs[-1], self._tools.runtime.reader()
        self._run = run = self._tools.runner.attach(woken.run_id)
        if self._deadline is not None:
            run.extend(self._deadline)
        if self._held.stop is not None:
            run.stop(self._tools.stop_grace_ms)
        try:
            terminal = await self._events(run, reader.feed)
        finally:
            self._run = None
            run.close()
        if terminal.get("error"):
            log.warning("run_ended_badly", run=woken.run_id, reason=terminal["error"])
        await self._exited(terminal, reader.end(terminal, workspace.path))

    async def _exited(self, terminal: Mapping[str, Any], end: RunEnd) -> None:
        task, lease_epoch = self._held.key
        run_id, stopped = self._held.runs[-1].run_id, terminal["stopped"]
        await self._tell(fx.RunExited(Exited(task=task, lease_epoch=lease_epoch, run_id=run_id, stopped=stopped, end=end)))

    async def _events(self, run: Run, feed: Callable[[Mapping[str, Any]], tuple[Event, ...]]) -> Mapping[str, Any]:
        key = self._held.key
        async with contextlib.aclosing(run.events()) as events:
            async for event in events:
                if is_terminal(event):
                    return event
                for meaning in feed(event):
                    match meaning:
                        case Asked(qid=qid, text=text, options=options):
                            await self._tell(fx.QuestionAsked(key, qid, text, options))
                        case Said(text=text):
                            await self._tell(fx.NoteTaken(key, text))
        raise AssertionError("a run's events end with its terminal event")

    # --- checks

    async def _check(self, workspace: Workspace) -> Result:
        """An internal check: no agent, only the registered checks on one commit."""
        assert self._spec.check is not None
        state = await self._tools.workspaces.inspect(workspace)
        if self._held.report is None:
            await self._verify(workspace, self._spec.check.checks, state)
        assert self._held.report is not None
        report = self._held.report.report
        return self._result(rounds.after_checks(report, "" if report.passed else feedback(report)), Delivered())

    async def _verify(self, workspace: Workspace, checks: Sequence[Verification], state: WorkState | None) -> None:
        environment = self._environment(workspace)
        verifying = self._tools.verifier(workspace.path, checks, env=environment, state=state)
        report = await self._unless(self._cut_short, verifying)
        await self._tell(fx.Checked(self._held.key, report))

    # --- keeping what was made

    async def _keep(self, workspace: Workspace, state: WorkState | None) -> tuple[str | None, str | None]:
        """Push the commits and offer what is uncommitted as a salvage; raises WorkspaceError if the commits cannot be."""
        if state is None or not self._held.woken:
            return None, None
        head_sha = state.head_sha if state.commits and self._spec.access is Access.WRITE else None
        if head_sha is not None:
            await self._push(workspace, head_sha)
        left_over = state.dirty_count or (state.commits and head_sha is None)
        return head_sha, await self._salvage(workspace) if left_over else None

    async def _salvage(self, workspace: Workspace) -> str | None:
        """Keep what was not pushed, at the remote if that works at once, else on a local ref."""
        try:
            ref = await self._tools.workspaces.salvage(workspace, commits=True)
            return None if ref is None else await self._tools.workspaces.push_salvage(workspace, ref)
        except WorkspaceError as fault:
            log.warning("salvage_stays_local", task=self._held.key.task, code=fault.code, reason=str(fault))
            return None

    async def _wind_up(self, workspace: Workspace | None) -> Delivered:
        """After a fault: nothing is reported while a run may live, and what the agent made is kept."""
        try:
            if self._held.phase is Phase.WOKEN:
                await self._stop_run()
            if workspace is not None and self._held.woken and self._spec.check is None:
                return _left(workspace, await self._salvage(workspace))
        except Exception:  # the first fault is the one to report
            log.exception("work_not_wound_up", task=self._held.key.task)
        return Delivered()

    async def _stop_run(self) -> None:
        """End the run without regard to what it still says, and report that it is over."""
        run, grace_ms = self._tools.runner.attach(self._held.runs[-1].run_id), self._tools.stop_grace_ms
        run.stop(grace_ms)
        async with asyncio.timeout(grace_ms / 1000 + END_PATIENCE_S):
            terminal = await self._events(run, lambda _: ())
        await self._exited(terminal, RunEnd(ok=False, code="sidecar_fault", message="the sidecar failed while the agent ran"))

    async def _push(self, workspace: Workspace, head_sha: str) -> None:
        wait_s, longest_s = self._tools.push_retry_s
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._tools.push_patience_s
        while True:
            try:
                await self._tools.workspaces.push(workspace, head_sha)
            except WorkspaceError as fault:
                if not fault.retryable or self._cut_short.is_set() or loop.time() + wait_s > give_up:
                    raise
                log.warning("push_failed", task=self._held.key.task, code=fault.code, again_s=wait_s)
            else:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._cut_short.wait()
            wait_s = min(longest_s, wait_s * 2)

    # --- small things

    def _environment(self, workspace: Workspace) -> dict[str, str]:
        return self._tools.environment(workspace=self._tools.workspaces.agent_env(workspace), access=self._spec.access)

    @staticmethod
    async def _unless(stop: asyncio.Event, doing: Awaitable[T]) -> T:
        """Await it, but not beyond ``stop``: then it is cancelled and :class:`_StoppedError` raised."""
        task = asyncio.ensure_future(doing)
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise _StoppedError
        finally:
            stopped.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def _left(workspace: Workspace, salvage_ref: str | None) -> Delivered:
    """Nothing but what was left uncommitted; the base it was made from goes with it, for whoever adopts it."""
    return Delivered(base_sha=workspace.base_sha if salvage_ref is not None else None, salvage_ref=salvage_ref)
