"""The world's agents and what their sidecars remember of them: I15 and I16."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.wire import frames
from sidecar.core import effects as fx
from sidecar.core import records
from sidecar.core.records import Key
from tests.simulation.violation import must

if TYPE_CHECKING:
    from tests.simulation.shim import Shim
    from tests.simulation.sidecar import Sidecar
    from tests.simulation.world import World

SLACK_US = 2_000
"""Rounding of the boot clocks."""


class Agents:
    """Sees every agent that runs, whoever believes what."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.running: dict[int, list[Shim]] = {}
        self.renewed: dict[tuple[int, int], int] = {}
        """When the hub last began a lease anew, as of a frame it heard then (true time)."""
        self.concluded: set[tuple[str, Key]] = set()

    # ── what sidecars write and say ──────────────────────────────────────────────────────────────────────────────────────────

    def writes(self, sidecar: Sidecar, record: records.JournalRecord) -> None:
        """An entry with a result is removed only when the hub has given its verdict."""
        if isinstance(record, records.Concluded):
            self.concluded.add((sidecar.name, record.key))
        elif isinstance(record, records.Removed):
            at = (sidecar.name, record.key)
            free = at not in self.concluded or at in self.world.watch.told.acknowledged
            must(free, "I15", f"the result of t-{record.task}/{record.lease_epoch} is removed unacknowledged")

    def says(self, sidecar: Sidecar, effect: fx.Send | fx.SendNow) -> None:
        """What a frame rests on is on the disk; a beat rests on nothing."""
        frame = effect.frame
        if isinstance(frame, frames.Result):
            self.world.watch.told.said[sidecar.name, Key(frame.task, frame.lease_epoch)] = frame
        if isinstance(effect, fx.Send):
            node = sidecar.machine.disk.nodes.get(sidecar.path)
            must(node is None or len(node.durable) == len(node.written), "I15", f"{frame.t} left before its record was durable")

    # ── how long agents may run ──────────────────────────────────────────────────────────────────────────────────────────────

    def wakes(self, sidecar: Sidecar, wake: fx.Wake) -> None:
        """An agent is woken under an accepted lease only, and for no longer than that."""
        granted = (sidecar.name, wake.key) in self.world.watch.told.granted
        must(granted, "I15", f"t-{wake.key.task}/{wake.key.lease_epoch} is woken without an accepted lease")
        self.extends(sidecar, wake)

    def extends(self, sidecar: Sidecar, effect: fx.Wake | fx.Extend) -> None:
        """A deadline is counted from the sending of what the hub answered, which was before the hub heard it."""
        heard = self.renewed.get(effect.key)
        if heard is not None:
            over_us = effect.hard_us - sidecar.machine.boot_us(heard) - self.world.hub.terms.lease_us * 35 // 36
            must(over_us <= SLACK_US, "I15", f"t-{effect.key.task} may run {over_us / 1e6:.3f} s longer than its lease")

    def starts(self, shim: Shim) -> None:
        """A process tree begins."""
        self.running.setdefault(shim.key.task, []).append(shim)
        self.alone(self.running[shim.key.task])

    def ends(self, shim: Shim) -> None:
        """Its last process is dead."""
        self.running[shim.key.task].remove(shim)
        if not self.running[shim.key.task]:
            del self.running[shim.key.task]

    def alone(self, shims: list[Shim]) -> None:
        """At most one of them runs; those of a suspended machine stand still, and end before they go on."""
        awake = [f"{shim.agent} {shim.run_id}" for shim in shims if not shim.asleep]
        must(len(awake) <= 1, "I16", f"these agents work on t-{shims[0].key.task} at once: {', '.join(awake)}")

    def after_step(self) -> None:
        """Nobody runs beside another, or beyond its deadline."""
        for shims in self.running.values():
            if len(shims) > 1:
                self.alone(shims)
            for shim in shims:
                if not shim.asleep:
                    over_us = shim.machine.boot_us() - shim.hard_us
                    must(
                        over_us <= SLACK_US,
                        "I15",
                        f"{shim.agent} {shim.run_id} lives {over_us / 1e6:.3f} s beyond its deadline",
                    )
