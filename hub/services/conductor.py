"""The only caller of the scheduler: apply → commit the group → publish.

A command is decided the moment it arrives, in memory; its decision joins the group that is being collected; while one group is being
written the next collects. Nothing of a decision leaves the process before its group is committed, with the one exception that
protocol §4.7 allows. A commit that fails discards the scheduler and rebuilds it from the store: nothing uncommitted was ever seen.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog

from hub.core import commands
from hub.core.agent import Agent
from hub.core.commands import Command, Stamp
from hub.core.decision import Decision, Effect, GrantLease, Reply
from hub.core.errors import HubError, OutcomeUnknown, Refused, StoreFull
from hub.core.lease import Terms
from hub.core.recall import Snapshot
from hub.core.rows import EventRow
from hub.core.scheduler import Scheduler
from hub.ids import AgentId, Lane, Micros, SessionEpoch, TaskState
from hub.services.clock import SteadyClock
from hub.services.facts import FactReader
from hub.services.view import View
from hub.store.base import CommitFailed, Operation, StoreBroken
from hub.store.specs import Specs
from hub.store.writer import Committed, Group

T = TypeVar("T")
log = structlog.get_logger("conductor")

GROUP_DECISIONS = 512
GROUP_BYTES = 4 * 1024 * 1024
MAX_UNCOMMITTED = 4096
"""Decisions waiting for their commit; beyond, submits are answered 503 (protocol §8)."""
MAX_UNCOMMITTED_BYTES = 32 * 1024 * 1024
"""Bodies waiting for their commit; beyond, further ones are answered 503."""
MAX_WAIT_S = 2.0
"""Age of the oldest uncommitted decision beyond which submits are answered 503."""
SAFETY_PASS_S = 30.0
FULL_RETRY_S = 1.0
MIN_TIMER_S = 0.005
"""A deadline waits at least this long: the steady clock may stand still just before one, and must not make the loop spin."""
EFFECTS = Sequence[tuple[AgentId, SessionEpoch, Effect]]


class Store(Protocol):
    """What the conductor needs of the store."""

    async def commit(self, group: Group, now: Micros) -> Committed:
        """One transaction, fsynced; raises CommitFailed, StoreFull or StoreBroken."""


class Publisher(Protocol):
    """Where decisions go once they are durable."""

    def effects(self, effects: EFFECTS, decided_at: float) -> None:
        """Hand effects to the links, in order. Must not block or raise. ``decided_at`` = ``time.monotonic()`` of the decision."""

    def specs(self, found: Specs) -> None:
        """What is known of the leases that the effects about to follow grant."""

    def events(self, events: Sequence[tuple[int, EventRow]]) -> None:
        """Hand numbered events to the feed, in order."""

    def resync(self) -> None:
        """Close every link so that it reconciles with the rebuilt scheduler (4010)."""

    def committed(self, decisions: int, seconds: float) -> None:
        """A group of this size took this long."""


@dataclass(slots=True)
class _Waiting:
    """One decision or record operation that waits for its commit."""

    at: float
    decision: Decision | None = None
    operation: Operation[Any] | None = None
    future: asyncio.Future[Any] | None = None
    size_bytes: int = 0

    def fail(self, fault: BaseException) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_exception(fault)


@contextmanager
def _no_collection() -> Iterator[None]:
    """A rebuild makes a million objects and hardly any garbage; looking for some meanwhile would take a third of its time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(slots=True)
class Conductor:
    """Owns the scheduler. ``reopen`` reads the committed snapshot for a rebuild; ``admit`` raises Refused for what finds no room."""

    store: Store
    facts: FactReader
    publisher: Publisher
    clock: SteadyClock
    terms: Terms
    hub_epoch: int
    reopen: Callable[[], Any]
    on_safety_claims: Callable[[int], None] = lambda _claims: None
    admit: Callable[[Command], None] = lambda _command: None
    scheduler_: Scheduler | None = None
    _pending: list[_Waiting] = field(default_factory=list)
    _writing: list[_Waiting] = field(default_factory=list)
    _uncommitted: dict[int, int] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _timer: tuple[int, asyncio.TimerHandle] | None = None
    _failures: int = 0
    _closing: bool = False

    @property
    def scheduler(self) -> View:
        """The scheduler, to look at."""
        return View(self._live, self.clock)

    @property
    def _live(self) -> Scheduler:
        if self.scheduler_ is None:
            raise OutcomeUnknown("the hub is rebuilding its state; try again")
        return self.scheduler_

    @property
    def is_open(self) -> bool:
        """Whether commands are taken (not while a rebuild is under way)."""
        return self.scheduler_ is not None

    def ready_by_lane(self) -> Mapping[Lane, int]:
        """Ready tasks by lane; empty during a rebuild."""
        return self.scheduler.queue() if self.is_open else {}

    def live_by_state(self) -> Mapping[TaskState, int]:
        """Live tasks by state; empty during a rebuild."""
        return self.scheduler.states() if self.is_open else {}

    def quarantined(self) -> list[Agent]:
        """Agents that are given nothing because of what speaks against them; none during a rebuild."""
        return self.scheduler.quarantined() if self.is_open else []

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def do(self, command: Command) -> Reply:
        """Apply a command and return its answer after the commit; raises HubError when nothing was done or that is unknown."""
        wanted = self._live.wanted_facts(command)
        if wanted is None:
            return await self._ask(command)
        with self.facts.holding(wanted) as gone:
            return await self._ask(await self.facts.add(command, wanted, gone))

    async def _ask(self, command: Command) -> Reply:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.post(command, future)
        return await future

    async def record(self, operation: Operation[T], *, size_bytes: int = 0) -> T:
        """Run a record operation in the next group and return its value; whatever it raised is raised here, and it alone rolled back.

        ``size_bytes`` is told by operations that carry a body: the backlog is bounded in bytes, too.
        """
        self._check_backlog(size_bytes)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._enqueue(_Waiting(time.monotonic(), operation=operation, future=future, size_bytes=size_bytes))
        return await future

    def wants_facts(self, command: Command) -> bool:
        """Whether ``do`` would have to read rows before this command can be applied."""
        return self._live.wanted_facts(command) is not None

    def post(self, command: Command, future: asyncio.Future[Reply] | None = None) -> None:
        """Apply a command now; its effects leave with its commit. Raises Refused at once (or through the future, if given)."""
        if self._closing:
            raise OutcomeUnknown("the hub is stopping")  # before it is applied: what can never be written must not be decided
        self.admit(command)
        if isinstance(command, commands.Submit):
            self._check_backlog()
        scheduler, stamp = self._live, self.clock.stamp()
        try:
            decision = scheduler.apply(command, stamp)
        except Refused as refusal:
            if future is None:
                raise
            # a refusal may rest on a decision that is not committed yet: it leaves with that decision's group
            self._settle(_Waiting(time.monotonic(), decision=Decision(), future=future), refusal)
            return
        except Exception:
            # a defect may have left the state half changed: nobody may see it, the next turn rebuilds it
            log.exception("command_broke_off", command=type(command).__name__)
            self.scheduler_ = None
            self._wake.set()
            raise
        self._arm(stamp)
        self._settle(_Waiting(time.monotonic(), decision=decision, future=future))

    def _settle(self, waiting: _Waiting, refusal: Refused | None = None) -> None:
        """Publish at once what needs no commit, queue everything else."""
        decision = waiting.decision
        assert decision is not None
        if refusal is not None:
            decision.answer = refusal
        changes_nothing = not decision.rows and not decision.events
        if changes_nothing and not decision.effects and waiting.future is None:
            return  # a tick that was early, a progress note
        idle = not self._pending and not self._writing
        early = decision.early is not None and not any(n in self._uncommitted for n in decision.early)
        if changes_nothing and (idle or early):
            self._publish(waiting)
            return
        for n in decision.tasks:
            self._uncommitted[n] = self._uncommitted.get(n, 0) + 1
        self._enqueue(waiting)

    def _enqueue(self, waiting: _Waiting) -> None:
        if self._closing:
            raise OutcomeUnknown("the hub is stopping")
        self._pending.append(waiting)
        self._wake.set()

    def _check_backlog(self, more_bytes: int = 0) -> None:
        waiting = len(self._pending) + len(self._writing)
        oldest = next(iter(self._writing or self._pending), None)
        age = time.monotonic() - oldest.at if oldest is not None else 0.0
        size = more_bytes + sum(item.size_bytes for item in (*self._writing, *self._pending)) if more_bytes else 0
        if waiting >= MAX_UNCOMMITTED or age > MAX_WAIT_S or size > MAX_UNCOMMITTED_BYTES:
            raise Refused(503, "busy", f"{waiting} changes wait for the disk, the oldest for {age:.1f} s", retry_after_s=1)

    # ── committing ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> None:
        """Build the scheduler from the store and commit what that decides; afterwards commands are taken."""
        with _no_collection():
            snapshot: Snapshot = await self.reopen()
            scheduler, opening = Scheduler.open(snapshot, self.terms, self.clock.stamp(), hub_epoch=self.hub_epoch)
        await self._commit(Group(rows=opening.rows, events=opening.events))
        self.scheduler_ = scheduler
        self._arm(self.clock.stamp())

    async def run(self) -> None:
        """Commit group after group until cancelled or closed; raises StoreBroken when the store must not be used any more."""
        async with asyncio.TaskGroup() as group:
            safety = group.create_task(self._safety_passes(), name="safety-pass")
            while not (self._closing and not self._pending):
                await self._wake.wait()
                self._wake.clear()
                if self.scheduler_ is None:
                    await self._recover(CommitFailed("a command broke off half-way"))
                elif self._pending:
                    await self._write_group()
            safety.cancel()

    async def close(self) -> None:
        """Take nothing more and let ``run`` end when everything is written."""
        self._closing = True
        self._wake.set()
        if self._timer is not None:
            self._timer[1].cancel()

    async def _write_group(self) -> None:
        count = self._group_length()
        self._writing, self._pending = self._pending[:count], self._pending[count:]
        if self._pending:
            self._wake.set()
        group = Group()
        for waiting in self._writing:
            if waiting.decision is not None:
                group.rows.extend(waiting.decision.rows)
                group.events.extend(waiting.decision.events)
                group.grants.extend(
                    (effect.n, effect.lease_epoch)
                    for _, _, effect in waiting.decision.effects
                    if isinstance(effect, GrantLease)
                )
            elif waiting.operation is not None:
                group.operations.append(waiting.operation)
        try:
            done = await self._commit(group)
        except (CommitFailed, StoreFull, HubError) as fault:
            await self._recover(fault)
            return
        self._failures = 0
        self._publish_group(done)

    def _group_length(self) -> int:
        """How many of those waiting make the next group: bounded in number and, but for a single large one, in bytes."""
        size = 0
        for i, waiting in enumerate(self._pending[:GROUP_DECISIONS]):
            size += waiting.size_bytes
            if i and size > GROUP_BYTES:
                return i
        return min(len(self._pending), GROUP_DECISIONS)

    async def _commit(self, group: Group) -> Committed:
        self.clock.wait_begins()
        try:
            # shielded: whoever cancels us, a write that has begun is finished and its outcome known
            return await asyncio.shield(asyncio.ensure_future(self.store.commit(group, Micros(time.time_ns() // 1000))))
        finally:
            self.clock.wait_ends()

    async def _recover(self, fault: HubError) -> None:
        """A group failed: fail its callers, discard the scheduler, rebuild, make every link reconcile."""
        log.error("commit_failed", error=str(fault), code=fault.code)
        told = (
            fault if isinstance(fault, StoreFull) else OutcomeUnknown("the commit failed; retry with the same idempotency key")
        )
        for waiting in [*self._writing, *self._pending]:
            waiting.fail(told)
        self._writing, self._pending = [], []
        self._uncommitted.clear()
        self.scheduler_ = None
        self._failures += not isinstance(fault, StoreFull)
        if isinstance(fault, StoreBroken) or self._failures > 1:
            raise StoreBroken(f"giving up after {self._failures} failed commits: {fault}") from fault
        try:
            await self._reopen()
        except HubError as again:
            raise StoreBroken(f"giving up: a commit failed ({fault}), and so did the rebuild: {again}") from again
        self.publisher.resync()

    async def _reopen(self) -> None:
        """Rebuild; while the disk is full, wait until somebody frees some space (everything is answered 503 meanwhile)."""
        while True:
            try:
                await self.open()
            except StoreFull as full:
                if self._closing:
                    raise
                log.warning("waiting_for_space", error=str(full), retry_s=FULL_RETRY_S)
                await asyncio.sleep(FULL_RETRY_S)
            else:
                return

    # ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _publish_group(self, done: Committed) -> None:
        written, self._writing = self._writing, []
        outcomes = iter(done.outcomes)
        self.publisher.specs(done.specs)
        for waiting in written:
            if waiting.decision is not None:
                for n in waiting.decision.tasks:
                    self._uncommitted[n] -= 1
                    if not self._uncommitted[n]:
                        del self._uncommitted[n]
                self._publish(waiting)
            elif waiting.future is not None and not waiting.future.done():
                outcome = next(outcomes)
                if isinstance(outcome, BaseException):
                    waiting.future.set_exception(outcome)
                else:
                    waiting.future.set_result(outcome)
            else:
                next(outcomes)
        self.publisher.specs({})
        self.publisher.events(done.events)
        self.publisher.committed(len(written), done.seconds)

    def _publish(self, waiting: _Waiting) -> None:
        decision = waiting.decision
        assert decision is not None
        if decision.effects:
            self.publisher.effects(decision.effects, waiting.at)
        if waiting.future is None or waiting.future.done():
            return
        if isinstance(decision.answer, Refused):
            waiting.future.set_exception(decision.answer)
        else:
            waiting.future.set_result(decision.answer)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _arm(self, stamp: Stamp) -> None:
        """Wake up at the scheduler's own next deadline."""
        if self.scheduler_ is None:
            return
        due = self.scheduler_.next_deadline(stamp)
        if due is None or (self._timer is not None and self._timer[0] <= due):
            return
        if self._timer is not None:
            self._timer[1].cancel()
        loop = asyncio.get_running_loop()
        # one more turn of the loop before firing: input that is already here is heard first (protocol §4.3)
        handle = loop.call_later(max(MIN_TIMER_S, (due - stamp.mono) / 1e6), lambda: loop.call_soon(self._tick))
        self._timer = (due, handle)

    def _tick(self) -> None:
        self._timer = None
        if self.scheduler_ is None or self._closing:
            return
        self.post(commands.Tick())

    async def _safety_passes(self) -> None:
        """Match everything again now and then. Progress never comes from here: what it finds is a defect, counted and logged."""
        while True:
            await asyncio.sleep(SAFETY_PASS_S)
            if self.scheduler_ is not None and not self._closing:
                self.safety_pass()

    def safety_pass(self) -> int:
        """One safety pass; the number of claims it made, which ought to be 0."""
        stamp = self.clock.stamp()
        decision = self._live.apply(commands.SafetyPass(), stamp)
        if decision.claims:
            log.error("safety_pass_made_progress", claims=decision.claims)
            self.on_safety_claims(decision.claims)
        self._settle(_Waiting(time.monotonic(), decision=decision))
        self._arm(stamp)
        return decision.claims
