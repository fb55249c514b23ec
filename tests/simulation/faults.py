"""What goes wrong. Each run draws a climate, the kinds of faults it knows, so that rare combinations get whole runs of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hub.ids import SECOND
from tests.simulation.timeline import Pause
from tests.support.cluster import PROJECTS, REPOS

if TYPE_CHECKING:
    from tests.simulation.machine import Machine
    from tests.simulation.sidecar import Sidecar
    from tests.simulation.world import World


class Faults:
    """The adversary: one fault after another, until :meth:`end`."""

    def __init__(self, world: World) -> None:
        self.world, self.timeline, self.dice = world, world.timeline, world.timeline.dice
        kinds = sorted(KINDS)
        self.climate = (
            kinds if self.timeline.chance(0.3) else self.dice.sample(kinds, self.dice.randrange(len(kinds) // 3, len(kinds)))
        )
        self.pace_s = self.dice.choice((3.0, 7.0, 20.0))
        self.raging = True
        self.pending: list[Callable[[], None]] = []
        self.timeline.spawn(None, self._rages)

    async def _rages(self) -> None:
        while self.raging and self.climate:
            await Pause(self.timeline.span(0.1, self.pace_s * 4))
            if self.raging:
                kind = self.dice.choices(self.climate, [KINDS[name][0] for name in self.climate])[0]
                self.timeline.note(f"fault.{kind}")
                KINDS[kind][1](self)

    def end(self) -> None:
        """No more faults; what they broke is whole again."""
        world = self.world
        self.raging = False
        pending, self.pending = self.pending, []
        for act in pending:
            act()
        world.network.partitions.clear()
        world.network.duplicating, world.network.slow_until = 0.0, 0
        world.hub.disk_full, world.hub.failing_commits, world.hub.slow_until, world.hub.doomed = False, 0, 0, ""
        for machine in world.machines:
            machine.disk.full, machine.slow_until, machine.doomed = False, 0, False
            for sidecar in machine.sidecars:
                sidecar.declines_until = sidecar.lag_us = 0
                if not sidecar.running:
                    machine.restart_later(sidecar)

    def _ends(self, us: int, act: Callable[[], None]) -> None:
        """The end of a fault: then, or when all faults end."""
        self.pending.append(act)

        def end() -> None:
            if act in self.pending:
                self.pending.remove(act)
                act()

        self.timeline.after(us, end)

    # ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _sidecar(self) -> Sidecar:
        """Mostly one whose agent runs: there is more to break."""
        every = [sidecar for machine in self.world.machines for sidecar in machine.sidecars]
        busy = {shim.agent for shims in self.world.watch.agents.running.values() for shim in shims}
        return self.dice.choice([one for one in every if one.name in busy and self.timeline.chance(0.7)] or every)

    def _machine(self) -> Machine:
        return self._sidecar().machine

    def _long(self) -> int:
        """A short while, one that a lease survives, or one that it does not."""
        return self.timeline.span(*self.dice.choice(((0.5, 20), (30, 80), (80, 160))))

    def _until(self, low_s: float, high_s: float) -> int:
        return self.timeline.now + self.timeline.span(low_s, high_s)

    # ── the network ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def cut(self) -> None:
        """A connection breaks; both ends, one or none is told."""
        if self.world.network.connections:
            connection = self.dice.choice(self.world.network.connections)
            connection.cut(hub_knows=self.timeline.chance(0.5), sidecar_knows=self.timeline.chance(0.5))

    def partition(self) -> None:
        """A machine is cut off; what is sent arrives afterwards. Long enough, now and then, for its leases to run out."""
        machine = self._machine()
        partitions = self.world.network.partitions
        if partitions.get(machine.name, 0) < self.timeline.now:
            patient = any(shim.running and shim.temper in ("long", "hang") for shim in machine.shims.values())
            outlasts = patient and self.timeline.chance(0.6)
            partitions[machine.name] = self.timeline.now + (self.timeline.span(80, 160) if outlasts else self._long())

    def reroute(self) -> None:
        """A connection gets slow, its sidecar gives it up and connects anew: what the old one holds up arrives beside the new."""
        sidecar, lag_us = self._sidecar(), self.timeline.span(2, 9)
        if sidecar.connection is not None and self.timeline.chance(0.5):
            sidecar.connection.lag_us = lag_us
        else:  # the hello itself is held up, and with it what was held when it was sent
            sidecar.lag_us = lag_us
            sidecar.give_up_connection()
        self.timeline.after(self.timeline.span(0.2, 4), sidecar.give_up_connection, sidecar.host)
        if self.timeline.chance(0.4):  # every window between a decision and its commit is wide
            self.world.hub.slow_until = self._until(5, 15)

    def slow_network(self) -> None:
        """Frames take seconds."""
        self.world.network.slow_until = self._until(2, 40)

    def duplicate(self) -> None:
        """Frames arrive twice."""
        network = self.world.network
        network.duplicating = 0.3
        self._ends(self.timeline.span(2, 60), lambda: setattr(network, "duplicating", 0.0))

    # ── the hub ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def hub_crash(self) -> None:
        """At any moment, with a group half written or written and not told."""
        self.world.hub.crash()

    def hub_crash_in_commit(self) -> None:
        """When the next group is about to be written, or written and not told."""
        self.world.hub.doomed = self.dice.choice(("before", "after"))

    def hub_stall(self) -> None:
        """The event loop stands still."""
        hub = self.world.hub
        if hub.conductor is None:
            return
        life = hub.host.life
        hub.stall()
        self._ends(self.timeline.span(0.5, 90), lambda: hub.go_on() if hub.host.life == life else None)

    def hub_disk_slow(self) -> None:
        """Each commit takes seconds."""
        self.world.hub.slow_until = self._until(2, 30)

    def hub_disk_full(self) -> None:
        """No commit succeeds for a while."""
        hub = self.world.hub
        hub.disk_full = True
        self._ends(self.timeline.span(0.5, 40), lambda: setattr(hub, "disk_full", False))

    def commit_fails(self) -> None:
        """One commit, or two in a row, fail."""
        self.world.hub.failing_commits = self.dice.choice((1, 1, 1, 2))

    def clock_jump(self) -> None:
        """Somebody sets the hub's wall clock, up to an hour either way."""
        self.world.jump_wall_clock(self.dice.choice((-3600, -60, -5, 5, 60, 3600)) * SECOND)

    # ── machines and sidecars ────────────────────────────────────────────────────────────────────────────────────────────────

    def sidecar_crash(self) -> None:
        """The process dies; its agents do not."""
        sidecar = self._sidecar()
        sidecar.crash()
        sidecar.machine.restart_later(sidecar)

    def power_cut(self) -> None:
        """The machine stops, often in the middle of a write."""
        machine = self._machine()
        if machine.on and self.timeline.chance(0.5):
            machine.power_cut()
        else:
            machine.doomed = True

    def suspend(self) -> None:
        """The machine sleeps, perhaps past every deadline."""
        machine = self._machine()
        if machine.on:
            self._ends(self._long(), machine.sleep())

    def freeze_sidecar(self) -> None:
        """The sidecar stands still; the shims' deadlines hold."""
        sidecar = self._sidecar()
        if not sidecar.running:
            return
        life = sidecar.host.life
        self.timeline.pause(sidecar.host)
        self.timeline.after(self._long(), lambda: self.timeline.go_on(sidecar.host) if sidecar.host.life == life else None)

    def shim_killed(self) -> None:
        """A shim and its agent are killed."""
        shims = [shim for machine in self.world.machines for shim in machine.shims.values() if shim.running]
        if shims:
            self.dice.choice(shims).vanish()

    def sidecar_disk_full(self) -> None:
        """No record can be written."""
        machine = self._machine()
        machine.disk.full = True
        self._ends(self.timeline.span(1, 40), lambda disk=machine.disk: setattr(disk, "full", False))

    def sidecar_disk_slow(self) -> None:
        """Each record takes seconds."""
        self._machine().slow_until = self._until(2, 40)

    def reinstall(self) -> None:
        """A machine loses its state and joins again."""
        machine = self._machine()
        if machine.on:
            machine.reinstall()

    def bad_mood(self) -> None:
        """A sidecar declines what it is offered."""
        self._sidecar().declines_until = self._until(5, 60)

    def drain(self) -> None:
        """A sidecar is asked to stop, and starts again."""
        sidecar = self._sidecar()
        if sidecar.running and not sidecar.host.paused:
            sidecar.drain(stop_agents=self.timeline.chance(0.4))

    def registry(self) -> None:
        """A project or a repository is paused for a while."""
        projects = {
            name: (name == "default" and self.timeline.chance(0.7), dispatch) for name, (_, dispatch) in PROJECTS.items()
        }
        self.world.hub.registry(projects, {name: name == "app" and self.timeline.chance(0.5) for name in REPOS})
        self._ends(self.timeline.span(2, 60), lambda: self.world.hub.registry(PROJECTS, REPOS))


KINDS: Mapping[str, tuple[int, Callable[[Faults], None]]] = {
    "cut": (6, Faults.cut),
    "reroute": (6, Faults.reroute),
    "partition": (9, Faults.partition),
    "slow_network": (2, Faults.slow_network),
    "duplicate": (3, Faults.duplicate),
    "hub_crash": (2, Faults.hub_crash),
    "hub_crash_in_commit": (2, Faults.hub_crash_in_commit),
    "hub_stall": (1, Faults.hub_stall),
    "hub_disk_slow": (1, Faults.hub_disk_slow),
    "hub_disk_full": (1, Faults.hub_disk_full),
    "commit_fails": (1, Faults.commit_fails),
    "clock_jump": (2, Faults.clock_jump),
    "sidecar_crash": (5, Faults.sidecar_crash),
    "power_cut": (3, Faults.power_cut),
    "suspend": (5, Faults.suspend),
    "freeze_sidecar": (6, Faults.freeze_sidecar),
    "shim_killed": (3, Faults.shim_killed),
    "sidecar_disk_full": (1, Faults.sidecar_disk_full),
    "sidecar_disk_slow": (1, Faults.sidecar_disk_slow),
    "reinstall": (1, Faults.reinstall),
    "bad_mood": (1, Faults.bad_mood),
    "drain": (1, Faults.drain),
    "registry": (1, Faults.registry),
}
"""Every kind of fault: how often, and what it does."""
