"""The work on one assignment, step by step as :mod:`sidecar.work` does it, with the real rules of what follows a run.

Workspaces, checks and pushes are only time here. Every step is reported to the holder before the next is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.ids import Access, Outcome, Phase
from hub.wire.frames import Result
from hub.wire.spec import Commit, RunError, VerificationReport
from sidecar.core import effects as fx
from sidecar.core import rounds
from sidecar.core.effects import StopReason
from sidecar.core.holding import Holding
from sidecar.core.records import Cause, Exited
from sidecar.core.results import Delivered, compose
from sidecar.runtimes.base import RunEnd
from tests.simulation.shim import Shim
from tests.simulation.timeline import Pause, Signal

if TYPE_CHECKING:
    from tests.simulation.sidecar import Sidecar

STOP_GRACE_US = 5_000_000


class Stopped(Exception):
    """The work was stopped while it waited for something."""


class Work:
    """The work on one holding, in this life of its sidecar."""

    def __init__(self, sidecar: Sidecar, held: Holding) -> None:
        assert held.spec is not None
        self.sidecar, self.held, self.spec = sidecar, held, held.spec
        self.timeline, self.machine = sidecar.timeline, sidecar.machine
        self.stop_asked = self.cut_short = False
        self.woken: tuple[int, int] | None = None
        self.deadline: tuple[int, int] | None = None
        self.changed = Signal()
        self.following: Shim | None = None
        if held.stop is not None:
            self.stop(held.stop)
        self.process = self.timeline.spawn(sidecar.host, self.life)

    # ── what the holder asks for ─────────────────────────────────────────────────────────────────────────────────────────────

    def wake(self, soft_us: int, hard_us: int) -> None:
        self.woken = (soft_us, hard_us)
        self.changed.fire()

    def extend(self, soft_us: int, hard_us: int) -> None:
        self.deadline = (soft_us, hard_us)
        if self.following is not None:
            self.following.extend(soft_us, hard_us)

    def stop(self, reason: StopReason) -> None:
        self.stop_asked = True
        self.cut_short |= reason in {StopReason.CANCEL, StopReason.INTERRUPT}
        if self.following is not None:
            self.following.stop(STOP_GRACE_US)
        self.changed.fire()

    def answer(self, key_of_send: str, qid: str, _text: str) -> None:
        if self.following is not None:
            self.following.answer(key_of_send, qid)

    def cancel(self) -> None:
        self.process.cancel()

    # ── the work ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def life(self) -> None:
        """Work until there is a result, or until the assignment is ready to be parked."""
        try:
            await self._takes(0.05, 3.0)  # the workspace
            result = await self._pursue()
        except Stopped:
            result = self._result(rounds.stopped(self.held.stop))
        await self.sidecar.tell(fx.ParkReady(self.held.key) if result is None else fx.Finished(self.held.key, result))

    async def _pursue(self) -> Result | None:
        held = self.held
        if held.phase is Phase.ACCEPTED:
            await self._new_run("first")
        while True:
            if held.phase is Phase.WOKEN:
                await self._follow()
            tree = self.machine.tree(self.sidecar.name, held.key)
            if held.parked:
                return None
            step = rounds.next_step(self.spec, held, tree if self.spec.repo is not None else None, "")
            try:
                match step:
                    case rounds.Verify():
                        await self._takes(0.1, 5.0)
                        passed = self.timeline.chance(0.8)
                        await self.sidecar.tell(fx.Checked(held.key, VerificationReport(passed=passed)))
                    case rounds.Correct(cause=cause):
                        await self._new_run(cause)
                    case rounds.Conclude():
                        return await self._conclude(step)
            except Stopped:
                return await self._conclude(rounds.stopped(held.stop))

    async def _conclude(self, step: rounds.Conclude) -> Result:
        held = self.held
        tree = self.machine.tree(self.sidecar.name, held.key)
        if held.pushed is None:
            keeps = held.woken and tree.advanced and self.spec.repo is not None and self.spec.access is Access.WRITE
            if keeps:
                await Pause(self.timeline.span(0.05, 4.0))
            await self.sidecar.tell(fx.WorkPushed(held.key, self._head() if keeps else None, None))
        return self._result(step)

    def _head(self) -> str:
        return f"{self.held.key.task:08x}{self.held.key.lease_epoch:08x}".rjust(40, "b")

    def _result(self, step: rounds.Conclude) -> Result:
        held, outcome, error = self.held, step.outcome, step.error
        if error is not None and error.code == "rate_limited":
            outcome, error = Outcome.RATE_LIMITED, RunError(cls="rate_limited", code="rate_limited", retry_after_ms=500)
        delivered = Delivered()
        if held.pushed is not None and held.pushed.head_sha is not None:
            head = held.pushed.head_sha
            branch = f"agentcom/t-{held.key.task}/{held.key.lease_epoch}"
            delivered = Delivered(branch=branch, base_sha="a" * 40, head_sha=head, commits=(Commit(sha=head, subject="work"),))
        report = held.report.report if held.report is not None else None
        return compose(held.key, outcome, error, delivered=delivered, report=report, conversation_id="c")

    # ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _new_run(self, cause: Cause) -> None:
        held = self.held
        number = len(held.runs)
        run_id = f"{held.key.task}-{held.key.lease_epoch}-{number}"
        self.woken = None
        await self.sidecar.tell(fx.RunWanted(held.key, run_id, number, cause))
        while self.woken is None:
            if self.stop_asked:
                raise Stopped
            await self.changed
        soft_us, hard_us = self.woken
        await Pause(self.timeline.span(0.02, 1.0))  # a process is started
        self.machine.start(self.sidecar, held.key, run_id, soft_us, hard_us, self._temper(), self._wall_us())

    def _temper(self) -> str:
        """What the agent will do with this task: what the task is made for, or anything."""
        wanted = (self.spec.metadata or {}).get("temper")
        tempers = self.sidecar.world.tempers
        return wanted if wanted is not None else self.timeline.dice.choices([*tempers], [*tempers.values()])[0]

    def _wall_us(self) -> int:
        return self.spec.budget.wall_s * 1_000_000

    async def _follow(self) -> None:
        """Stay with the run until it is over; one whose lock is free and which has no last word is lost."""
        run_id = self.held.runs[-1].run_id
        shim = self.machine.attach(self, run_id)
        asked: set[str] = set()
        if shim is not None and shim.locked:
            self.following = shim
            if self.deadline is not None:
                shim.extend(*self.deadline)
            if self.held.stop is not None:
                shim.stop(STOP_GRACE_US)
            while shim.locked:
                for qid in [qid for qid in shim.questions if qid not in asked]:
                    asked.add(qid)
                    await self.sidecar.tell(fx.QuestionAsked(self.held.key, qid, "which?"))
                if shim.locked and asked.issuperset(shim.questions):
                    await shim.changed
            self.following = None
        stopped, end = (shim.ended if shim is not None else None) or ("lost", RunEnd(ok=False, code="lost"))
        task, epoch = self.held.key
        record = Exited(task=task, lease_epoch=epoch, run_id=run_id, stopped=stopped, end=end)
        await self.sidecar.tell(fx.RunExited(record))

    async def _takes(self, low_s: float, high_s: float) -> None:
        """Something takes its time, unless it is stopped."""
        until = self.timeline.now + self.timeline.span(low_s, high_s)
        while self.timeline.now < until:
            if self.stop_asked:
                raise Stopped
            await Pause(min(500_000, until - self.timeline.now))
