"""A machine: one boot clock with a rate of its own, one disk that loses what was not synced, and the shims that outlive sidecars."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.core.records import Key
from tests.simulation.door import HELLO_S
from tests.simulation.shim import Shim, Tree
from tests.simulation.sidecar import Sidecar
from tests.support.fake_disk import FakeDisk

if TYPE_CHECKING:
    from tests.simulation.work import Work
    from tests.simulation.world import World

RATES = ((950, 1000, 1050), (750, 800, 1000, 1250), (750, 1250), (750,), (750,))
"""Microseconds of a boot clock per 1000 of the hub's, in each kind of world: up to the quarter by which they may differ."""

POWER_ON_S = HELLO_S + 2
"""Boots are not compared, so the simulation stays with what a real machine needs: longer than a hub waits for a hello."""


class Machine:
    """Hosts the sidecars of its agents. ``rate`` is how fast its boot clock runs."""

    def __init__(self, world: World, name: str, agents: tuple[str, ...], capabilities: tuple[str, ...]) -> None:
        self.world, self.name, self.capabilities = world, name, capabilities
        self.rate = world.timeline.dice.choice(world.rates)
        self.booted_at = -world.timeline.span(10, 1000)
        self.boot_name = f"{name}, boot 0"
        self.installs = 0
        self.install_id = f"{name}-0"
        self.on = True
        self.doomed = False
        self.disk = FakeDisk()
        self.slow_until = 0
        self.shims: dict[str, Shim] = {}
        self.trees: dict[tuple[str, Key], Tree] = {}
        self.sidecars = [Sidecar(self, agent) for agent in agents]
        for sidecar in self.sidecars:
            sidecar.boot()

    # ── its clock ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def boot_us(self, at: int | None = None) -> int:
        """The boot clock now, or at a moment of true time; it runs on while the machine sleeps, and starts anew with it."""
        moment = self.world.timeline.now if at is None else at
        return (moment - self.booted_at) * self.rate // 1000

    def when(self, boot_us: int) -> int:
        """The true time at which the boot clock will say this."""
        return self.booted_at - (-boot_us * 1000 // self.rate)

    # ── its disk ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def disk_us(self) -> int:
        """How long it takes until a record is durable."""
        timeline = self.world.timeline
        return timeline.span(0.2, 5.0) if timeline.now < self.slow_until else timeline.span(0.0002, 0.02)

    # ── its runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, sidecar: Sidecar, key: Key, run_id: str, soft_us: int, hard_us: int, temper: str, wall_us: int) -> None:
        """Spawn a shim for a run; a run directory serves one run, ever."""
        if f"{sidecar.name}/{run_id}" not in self.shims:
            self.shims[f"{sidecar.name}/{run_id}"] = Shim(self, sidecar.name, key, run_id, soft_us, hard_us, temper, wall_us)

    def attach(self, work: Work, run_id: str) -> Shim | None:
        """The run, alive or not; None when no shim ever held its lock, and from now on none can."""
        return self.shims.get(f"{work.sidecar.name}/{run_id}")

    def tree(self, agent: str, key: Key) -> Tree:
        """What is in the assignment's workspace."""
        return self.trees.setdefault((agent, key), Tree())

    def stop_strangers(self, agent: str, mine: set[str]) -> None:
        """Before hello: end every run that the journal does not own."""
        for name, shim in list(self.shims.items()):
            if shim.agent == agent and shim.run_id not in mine:
                shim.kill("stranger")
                del self.shims[name]

    def forget(self, agent: str, key: Key) -> None:
        """The assignment is settled: its runs are over and deleted."""
        for name, shim in list(self.shims.items()):
            if shim.agent == agent and shim.key == key:
                shim.kill("forgotten")
                del self.shims[name]

    # ── its troubles ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def restart_later(self, sidecar: Sidecar) -> None:
        """Whoever keeps services running starts it again."""

        def start() -> None:
            if self.on and not sidecar.running:
                sidecar.boot()

        timeline = self.world.timeline
        timeline.after(timeline.span(0.2, 30.0), start)

    def power_cut(self) -> None:
        """Everything stops; of what was not synced some bytes may be left. Later it boots, and its clock begins again."""
        timeline = self.world.timeline
        if not self.on:
            return
        timeline.note("machine.power_cut", self.name)
        for sidecar in self.sidecars:
            sidecar.crash()
        for shim in self.shims.values():
            shim.vanish()
        self.disk.crash(keep=timeline.dice.randrange(0, 200))
        self.on = False
        timeline.after(timeline.span(POWER_ON_S, 90.0), self._power_on)

    def _power_on(self) -> None:
        self.booted_at = self.world.timeline.now
        self.boot_name = f"{self.name}, booted at {self.booted_at}"
        self.on = True
        for sidecar in self.sidecars:
            if not sidecar.running:
                sidecar.boot()

    def reinstall(self) -> None:
        """Its state is deleted and it is joined again: another installation under the same names."""
        self.world.timeline.note("machine.reinstalled", self.name)
        for sidecar in self.sidecars:
            sidecar.crash()
        for shim in self.shims.values():
            shim.vanish()
        self.shims.clear()
        self.disk = FakeDisk()
        self.installs += 1
        self.install_id = f"{self.name}-{self.installs}"
        for sidecar in self.sidecars:
            self.restart_later(sidecar)

    def sleep(self) -> Callable[[], None]:
        """The machine is suspended: nothing on it runs; its boot clock does. Call what is returned to wake it up."""
        timeline = self.world.timeline
        hosts = [sidecar.host for sidecar in self.sidecars] + [shim.host for shim in self.shims.values()]
        lives = [(host, host.life) for host in hosts]
        for host, _ in lives:
            timeline.pause(host)

        def wake() -> None:
            for host, life in lives:
                if host.life == life:
                    timeline.go_on(host)
            for shim in self.shims.values():
                if not shim.asleep:
                    shim.keep_deadline()  # before the agent does anything

        return wake
