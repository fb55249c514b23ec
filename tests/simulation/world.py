"""One run: a hub, three machines with four agents, people, and a climate of faults; then calm, in which everything must come to rest.

``run(seed)`` plays one seed. While the faults rage every step is followed by the safety invariants; afterwards time goes on until each
task is over or legally waiting, and that it comes to that is what liveness means here.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from hub.core.explain import explain
from hub.core.matching import class_of
from hub.ids import AgentState, TaskState
from tests.simulation.conduct import MAX_CLAIMS, virtual
from tests.simulation.faults import Faults
from tests.simulation.hub import Hub
from tests.simulation.invariants import Watch
from tests.simulation.machine import RATES, Machine
from tests.simulation.network import Network
from tests.simulation.people import People
from tests.simulation.shim import TEMPERS
from tests.simulation.timeline import Timeline
from tests.simulation.violation import Violation, must

STEPS = 3000
CALM_STEPS = 12_000
"""Within so many steps without faults everything comes to rest."""


class World:
    """Everything there is."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.wall_shift_us = self.furthest_shift_us = 0
        self.max_claims = MAX_CLAIMS
        self.live_tasks = timeline.dice.choice((3, 6, 14))
        """Submitters wait while so many tasks are live: with few, agents are idle and take over at once."""
        self.rates = timeline.dice.choice(RATES)
        self.tempers = {**TEMPERS, "long": TEMPERS["long"] * timeline.dice.choice((1, 1, 8))}
        self.watch = Watch(self)
        self.network = Network(self)
        self.hub = Hub(self)
        self.machines = [
            Machine(self, "m1", ("a1", "a2"), ("x", "y")),
            Machine(self, "m2", ("a3",), ("x", "y")),
            Machine(self, "m3", ("a4",), ("x",)),
        ]
        self.agents = [sidecar.name for machine in self.machines for sidecar in machine.sidecars]
        self.people = People(self)
        self.faults = Faults(self)

    def step(self) -> None:
        """One thing happens, and then everything that must hold is asked for."""
        self.timeline.step()
        self.watch.after_step()

    def is_hampered(self, agent: str) -> bool:
        """Whether what is said to this agent, or by it, may take its time."""
        sidecar = next(sidecar for machine in self.machines for sidecar in machine.sidecars if sidecar.name == agent)
        machine, now = sidecar.machine, self.timeline.now
        connection = sidecar.connection if sidecar.running else None
        lags = connection is None or connection.broken or connection.lag_us > 0
        slow = max(machine.slow_until, self.network.slow_until, self.network.partitions.get(machine.name, 0)) > now
        return sidecar.host.paused or lags or slow or len(sidecar.queue) > 2 or self.hub.slow_until > now

    def jump_wall_clock(self, us: int) -> None:
        """I17: leases neither expire nor grow by it."""
        hub = self.hub
        self.furthest_shift_us = max(self.furthest_shift_us, self.wall_shift_us + us)
        if not hub.is_up or hub.host.paused:
            self.wall_shift_us += us
            return
        before = hub.steady.mono()
        leases = {task.n: task.lease_until for task in hub.cluster.tasks.values() if task.leased}
        self.wall_shift_us += us
        assert hub.conductor is not None
        hub.conductor._tick()
        for n, until in leases.items():
            task = hub.cluster.tasks[n]
            must(
                task.cause != "lease_expired" or before >= until,
                "I17",
                f"a jump of the clock ended the lease of t-{n}",
            )
            must(not task.leased or task.lease_until == until, "I17", f"a jump of the clock moved the lease of t-{n}")

    # ── coming to rest ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def calm_down(self) -> None:
        """The faults end, people undo what stands in the way, and time goes on until nothing is left to do."""
        self.timeline.note("calm")
        self.faults.end()
        self.jump_wall_clock(
            self.furthest_shift_us - self.wall_shift_us
        )  # or what was planned by a clock ahead would take an hour
        self.timeline.spawn(None, self.people.set_everything_going)
        self.timeline.spawn(None, self.people.keep_agents_going)
        until = self.timeline.steps + CALM_STEPS
        while (why := self.unrest()) is not None:
            must(self.timeline.steps < until, why[0], f"still after {CALM_STEPS} calm steps: {why[1]}")
            for _ in range(20):
                self.step()
        self.watch.live(thoroughly=True)

    def unrest(self) -> tuple[str, str] | None:
        """The first thing that is not over yet, with the number of the liveness it belongs to."""
        hub = self.hub
        if not hub.settled:
            return "L4", "the hub is not at rest"
        for machine in self.machines:
            for sidecar in machine.sidecars:
                if not sidecar.running or not sidecar.holder.connected:
                    return "L4", f"{sidecar.name} is not connected"
                if sidecar.holder.holds_anything:
                    return "L3", f"{sidecar.name} still holds {list(sidecar.holder._holdings)}"
        for agent in hub.cluster.agents.values():
            if not agent.connected or agent.state is AgentState.OFFLINE:
                return "L4", f"the hub believes that {agent.id} is {agent.state}, connected={agent.connected}"
        if hub.cluster.controls:
            return "L2", f"controls nobody noted: {list(hub.cluster.controls.values())}"
        for task in hub.cluster.tasks.values():
            if not task.terminal and not self._waits_legally(task.n):
                said = explain(hub.cluster, task, hub.clock.stamp())
                return "L2" if task.leased else "L1", f"t-{task.n} is {task.state}: {said}"
        if self.watch.agents.running:
            return "I15", f"agents run on: {list(self.watch.agents.running)}"
        return None

    def _waits_legally(self, n: int) -> bool:
        """Whether nobody but a person can move it: it is held, needs such a one, or no agent there is can do it."""
        cluster = self.hub.cluster
        task = cluster.tasks[n]
        if task.state is TaskState.WAITING:
            return task.held or all(self._waits_legally(edge.needs) for edge in task.edges if not edge.satisfied)
        if task.state is TaskState.QUEUED:
            need = cluster.ready.needs[task.requirement]
            able = [agent for agent in cluster.agents.values() if class_of(agent).serves(need)]
            return not any(task.assign_to in (None, agent.id) for agent in able)
        return False


@dataclass
class Run:
    """What a seed came to; ``invariant`` is the number of the one that did not hold, if any."""

    seed: int
    steps: int = 0
    digest: str = ""
    invariant: str = ""
    what: str = ""
    caused_by: str = ""
    trace: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)


def run(
    seed: int,
    steps: int = STEPS,
    *,
    echo: Callable[[str], None] | None = None,
    planted: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Run:
    """Play one seed; ``planted`` puts a fault into the product for as long as it takes."""
    done = Run(seed)
    timeline = Timeline(seed)
    timeline.echo = echo
    try:
        with virtual(timeline), planted():
            world = World(timeline)
            while timeline.steps < steps:
                world.step()
            world.calm_down()
    except Violation as fault:
        done.invariant, done.what = fault.invariant, fault.what
    except Exception as fault:  # a defect of the product shows itself in any way
        done.invariant, done.what = "crash", f"{type(fault).__name__}: {fault}"
        done.caused_by = "".join(traceback.format_exception(fault))
    finally:
        timeline.end()
    done.steps, done.digest, done.seen = timeline.steps, timeline.digest, timeline.seen
    done.trace = list(timeline.trace)
    return done
