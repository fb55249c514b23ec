"""The hub of the simulation: one machine's process and disk. What is committed survives; a crash may fall anywhere around a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.core import commands
from hub.core.commands import Command
from hub.core.decision import Decision
from hub.core.errors import HubError
from hub.core.lease import Terms
from hub.core.scheduler import Scheduler
from hub.ids import SECOND
from hub.store.base import CommitFailed, StoreBroken
from tests.simulation.conduct import Conduct, Glance, HubClock, Promise, Watched
from tests.simulation.door import Door
from tests.simulation.timeline import Host, Pause, Signal
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
        self.doomed = ""
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
        timeline.after(timeline.span(0.2, 20.0), self.boot)

    async def dies_here(self, moment: str) -> None:
        """A crash that was waiting for this moment of a commit."""
        if self.doomed == moment:
            self.doomed = ""
            self.world.timeline.note(f"hub.dies_{moment}_commit")
            self.world.timeline.after(0, self.crash)
            await Signal()  # for ever

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
        late = timeline.span(0.0005, 3.0) if timeline.chance(0.4) else timeline.span(0.0005, 0.01)

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
