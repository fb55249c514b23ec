"""The real conductor, driven by hand on virtual time.

:class:`Conduct` is the product's :class:`~hub.services.conductor.Conductor` with its three waits replaced: for the disk, for its next
deadline, for space on a full disk. What it decides, groups, commits, publishes and refuses, and in which order, is untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from sqlite3 import IntegrityError
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from hub.core import ending, retry
from hub.core.commands import Command, Stamp
from hub.core.errors import Refused, StoreFull
from hub.ids import SECOND
from hub.services import conductor as real
from hub.services.clock import SteadyClock
from hub.services.conductor import FULL_RETRY_S, Conductor
from hub.store.base import CommitFailed
from hub.store.journal import FenceBroken
from hub.store.writer import Committed, Group
from sidecar import journal
from tests.property import model
from tests.simulation.timeline import Pause, Timeline
from tests.simulation.violation import Violation
from tests.support.clock import WALL

if TYPE_CHECKING:
    from tests.simulation.hub import Hub
    from tests.simulation.world import World

MAX_CLAIMS = 6
"""Accepted claims per generation in here: 50, as in the product, would take too many steps to wear out."""
TICK_US = 5_000
"""A deadline waits at least this long, as in the product."""


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
        try:
            done = await hub.store.commit(group, now)  # type: ignore[arg-type]
        except (FenceBroken, IntegrityError) as fault:
            raise Violation("I14", f"the store refuses a group: {fault}") from fault
        hub.world.watch.committed(done)
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
            await hub.dies_here("before")
            done = await self.store.commit(group, self.clock.wall())  # type: ignore[attr-defined]
            await Pause(timeline.span(0.0001, 0.002))  # durable, and nobody knows yet
            await hub.dies_here("after")
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
    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def monotonic(self) -> float:
        return self._timeline.now / SECOND


class _Silence:
    def __getattr__(self, _name: str) -> Any:
        return lambda *_args, **_fields: None


@contextmanager
def virtual(timeline: Timeline) -> Iterator[None]:
    """What the product's modules find in here: virtual time, no log, and budgets that can be worn out."""
    with ExitStack() as stack:
        for module, name, value in (
            (real, "time", _Time(timeline)),
            (real, "log", _Silence()),
            (journal, "log", _Silence()),
            *((module, "MAX_CLAIMS", MAX_CLAIMS) for module in (ending, retry, model)),
        ):
            stack.enter_context(patch.object(module, name, value))
        yield
