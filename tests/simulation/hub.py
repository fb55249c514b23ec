"""The hub of the simulation: the real scheduler, conductor, row mapping and recovery, on a disk that can fail at any commit.

:class:`Conduct` is the real :class:`~hub.services.conductor.Conductor` with its three waits replaced by virtual ones: for the disk, for
its next deadline, for space on a full disk. What it decides, groups, commits, publishes and refuses is untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from hub.core import commands, ending, retry
from hub.core.commands import Command, Stamp
from hub.core.decision import Decision
from hub.core.errors import HubError, Refused, StoreFull
from hub.core.lease import Terms
from hub.core.scheduler import Scheduler
from hub.ids import SECOND
from hub.services import conductor as real
from hub.services.clock import SteadyClock
from hub.services.conductor import FULL_RETRY_S, Conductor
from hub.store.base import CommitFailed, StoreBroken
from hub.store.writer import Committed, Group
from sidecar import journal
from tests.property import model
from tests.simulation.door import Door
from tests.simulation.timeline import Host, Pause, Signal
from tests.support.clock import WALL
from tests.support.cluster import PROJECTS, REPOS
from tests.support.stores import MemoryStore, finished

if TYPE_CHECKING:
    from tests.simulation.world import World

TERMS = Terms(
    lease_us=60 * SECOND,
    beat_us=10 * SECOND,
    accept_us=12 * SECOND,
    grace_us=10 * SECOND,
    tombstone_us=40 * SECOND,
    avoid_us=20 * SECOND,
)
MAX_CLAIMS = 6
"""Accepted claims per generation in here: 50, as in the product, would take too many steps to wear out."""
TICK_US = 5_000


class HubClock(SteadyClock):
    """The real steady clock over virtual time. Its pulse looks at it all the time, unless the process stood still (``stall``)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stall = False
        super().__init__(lambda: world.timeline.now)

    def mono(self) -> int:
        if not self.stall:
            self._last = self._raw()
        return super().mono()

    def wall(self) -> int:
        return WALL + self.world.timeline.now + self.world.wall_shift_us

    def stamp(self) -> Stamp:
        return Stamp(self.mono(), self.wall(), self.world.timeline.dice.random())

    def stood_still(self) -> None:
        """The first look after a stall."""
        self.stall = True
        self.mono()
        self.stall = False


class Glance:
    """The same moment for those who only look: they throw no dice."""

    def __init__(self, clock: HubClock) -> None:
        self.steady = clock

    def stamp(self) -> Stamp:
        return Stamp(self.steady.mono(), self.steady.wall(), 0.5)


class Watched:
    """What the conductor writes through: the real store, which a fault may make full or faulty."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    async def commit(self, group: Group, now: int) -> Committed:
        hub, timeline = self.hub, self.hub.world.timeline
        if hub.disk_full:
            timeline.note("hub.disk_full")
            raise StoreFull("no space left on device")
        if hub.failing_commits:
            hub.failing_commits -= 1
            timeline.note("hub.commit_failed")
            raise CommitFailed("the disk said no")
        done = await hub.store.commit(group, now)  # type: ignore[arg-type]
        hub.world.watch.committed(group, done)
        return done


class Conduct(Conductor):
    """The real conductor, driven by hand."""

    hub: Hub
    asked: Command | None = None

    def post(self, command: Command, future: Any = None) -> None:
        watch, self.asked = self.hub.world.watch, command
        watch.before(command)
        try:
            super().post(command, future)
        except Refused as refusal:
            watch.refused(command, refusal)
            raise
        finally:
            self.asked = None

    def _settle(self, waiting: Any, refusal: Refused | None = None) -> None:
        if self.asked is not None:
            if refusal is not None:
                self.hub.world.watch.refused(self.asked, refusal)
            else:
                self.hub.world.watch.decided(self.asked, waiting.decision)
        super()._settle(waiting, refusal)

    def _arm(self, stamp: Stamp) -> None:
        due = self.scheduler_.next_deadline(stamp) if self.scheduler_ is not None else None
        if due is None or (self._timer is not None and self._timer[0] <= due):
            return
        self._timer = mine = (due, None)  # type: ignore[assignment]
        timeline, host = self.hub.world.timeline, self.hub.host

        def fire() -> None:
            if self._timer is mine:  # one more turn first, so that input which is already here is heard
                timeline.after(0, self._tick, host)

        timeline.after(max(TICK_US, due - stamp.mono), fire, host)

    async def _commit(self, group: Group) -> Committed:
        hub, timeline = self.hub, self.hub.world.timeline
        self.clock.wait_begins()
        try:
            await Pause(hub.disk_us())
            done = await self.store.commit(group, self.clock.wall())  # type: ignore[attr-defined]
            await Pause(timeline.span(0.0001, 0.002))  # durable, and nobody knows yet
        finally:
            self.clock.wait_ends()
        return done

    async def _reopen(self) -> None:
        while True:
            try:
                await self.open()
            except StoreFull:
                await Pause(int(FULL_RETRY_S * SECOND))
            else:
                return


class Hub:
    """One hub's machine: what is committed survives, everything else dies with the process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.host = Host("hub")
        self.store = MemoryStore()
        self.store.registry(PROJECTS, REPOS)
        self.terms = TERMS
        self.epoch = 0
        self.disk_full = False
        self.failing_commits = 0
        self.slow_until = 0
        self.conductor: Conduct | None = None
        self.door: Door | None = None
        self.boot()

    # ── its life ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def boot(self) -> None:
        """The process starts."""
        self.epoch += 1
        self.host.pauses = 0
        self.steady = HubClock(self.world)
        self.clock = Glance(self.steady)
        self.door = Door(self)
        self.conductor = conductor = Conduct(
            store=Watched(self),  # type: ignore[arg-type]
            facts=self.store.facts,
            publisher=self.door,  # type: ignore[arg-type]
            clock=self.steady,
            terms=self.terms,
            hub_epoch=self.epoch,
            reopen=self._read,
        )
        conductor.hub = self
        self.bell = Signal()
        conductor._wake.set = self.bell.fire  # type: ignore[method-assign]
        self.world.timeline.spawn(self.host, lambda: self._life(conductor))

    async def _read(self) -> Any:
        await Pause(self.world.timeline.span(0.01, 0.3))
        return self.store.snapshot()

    async def _life(self, conductor: Conduct) -> None:
        """What ``Conductor.run`` does, without a loop under it."""
        try:
            await conductor._reopen()
            self.world.timeline.note("hub.up", f"epoch {self.epoch}")
            while True:
                if conductor.scheduler_ is None:
                    await conductor._recover(CommitFailed("a command broke off half-way"))
                elif conductor._pending:
                    await conductor._write_group()
                else:
                    await self.bell
        except (StoreBroken, CommitFailed):
            self.world.timeline.note("hub.gives_up")
            self.world.timeline.after(0, self.crash)

    def crash(self) -> None:
        """The process dies with everything uncommitted; somebody starts it again."""
        if self.conductor is None:
            return
        timeline = self.world.timeline
        timeline.note("hub.crash", f"{len(self.conductor._writing)} decisions being written")
        self.host.die()
        self.conductor = None
        self.world.network.host_died(self.host)
        self.world.watch.hub_crashed()
        timeline.after(timeline.span(0.2, 40.0), self.boot)

    def stall(self) -> None:
        """The event loop stands still."""
        self.world.timeline.pause(self.host)

    def go_on(self) -> None:
        """And goes on."""
        self.world.timeline.go_on(self.host)
        if not self.host.paused:
            self.steady.stood_still()

    def disk_us(self) -> int:
        """How long this commit takes."""
        timeline = self.world.timeline
        return timeline.span(0.5, 6.0) if timeline.now < self.slow_until else timeline.span(0.001, 0.03)

    # ── being asked (the HTTP door) ──────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, command: Command, answered: Any) -> None:
        """A request arrives; ``answered(reply or error)`` leaves with its commit, if the hub lives that long."""
        conductor = self.conductor
        if conductor is None:
            return
        promise = Promise(answered)
        try:
            wanted = conductor._live.wanted_facts(command)
            if wanted is None:
                conductor.post(command, promise)
                return
        except HubError as fault:
            promise.set_exception(fault)
            return
        known = finished(self.store.facts.add(command, wanted))
        timeline = self.world.timeline
        late = timeline.span(0.0005, 3.0) if timeline.chance(0.2) else timeline.span(0.0005, 0.01)

        def apply() -> None:
            try:
                conductor.post(known, promise)
            except HubError as fault:
                promise.set_exception(fault)

        timeline.after(late, apply, self.host)

    # ── being looked at (what :mod:`tests.property.model` reads) ─────────────────────────────────────────────────────────────

    @property
    def scheduler(self) -> Scheduler:
        assert self.conductor is not None
        assert self.conductor.scheduler_ is not None
        return self.conductor.scheduler_

    @property
    def cluster(self) -> Any:
        return self.scheduler.cluster

    @property
    def is_up(self) -> bool:
        return self.conductor is not None and self.conductor.is_open

    @property
    def settled(self) -> bool:
        """Whether everything decided is committed."""
        return self.is_up and not self.conductor._pending and not self.conductor._writing  # type: ignore[union-attr]

    def rebuilt(self) -> tuple[Scheduler, Decision]:
        return Scheduler.open(self.store.snapshot(), self.terms, self.clock.stamp(), hub_epoch=self.epoch)

    def registry(self, projects: dict[str, tuple[bool, str]], repos: dict[str, bool]) -> None:
        """An administrator changed a project or a repository: the record is committed, then the scheduler hears of it."""
        if self.is_up:
            self.store.registry(projects, repos)
            self.ask(commands.Registry(projects=projects, repos=repos), lambda _answer: None)


class Promise:
    """The part of a future that the conductor uses."""

    def __init__(self, answered: Any) -> None:
        self._answered = answered
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, value: Any) -> None:
        self._done = True
        self._answered(value)

    def set_exception(self, fault: BaseException) -> None:
        self._done = True
        self._answered(fault)


class _Time:
    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.timeline.now / SECOND


class _Silence:
    def __getattr__(self, _name: str) -> Any:
        return lambda *_args, **_fields: None


@contextmanager
def virtual(world: World) -> Iterator[None]:
    """What the product's modules find in here: virtual time, no log, and budgets that can be worn out."""
    with ExitStack() as stack:
        for module, name, value in (
            (real, "time", _Time(world)),
            (real, "log", _Silence()),
            (journal, "log", _Silence()),
            *((module, "MAX_CLAIMS", MAX_CLAIMS) for module in (ending, retry, model)),
        ):
            stack.enter_context(patch.object(module, name, value))
        yield
