"""Connections between sidecars and the hub: in order within one, in any order between two, and only as good as the weather.

A connection keeps order and loses nothing until it breaks; what is on its way then may still arrive at an end that does not know yet.
A partition delays whatever is sent through it, so that frames of a connection long given up arrive beside those of the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.timeline import Host

if TYPE_CHECKING:
    from tests.simulation.door import Door, HubLink
    from tests.simulation.sidecar import Sidecar
    from tests.simulation.world import World


def brief(frame: Any) -> str:
    """A frame as the trace shows it."""
    more = [
        getattr(frame, "verdict", ""),
        getattr(frame, "code", ""),
        getattr(frame, "outcome", ""),
        getattr(frame, "reason", ""),
    ]
    task = f" t-{frame.task}/{frame.lease_epoch}" if hasattr(frame, "task") else ""
    return f"{frame.t}{task}{''.join(f' {word}' for word in more if word)}"


class Connection:
    """One socket. Each end may believe that it is open while the other knows better."""

    def __init__(self, network: Network, sidecar: Sidecar, door: Door) -> None:
        self.network, self.sidecar = network, sidecar
        self.link: HubLink = door.new_link(self)
        self.sidecar_open = True
        self.broken = False
        self.lag_us, sidecar.lag_us = sidecar.lag_us, 0
        self.hub_host = door.hub.host
        self.last_up = self.last_down = 0

    def to_hub(self, frame: Any) -> None:
        """The sidecar sends."""
        if not self.sidecar_open:
            return
        timeline, sidecar = self.network.world.timeline, self.sidecar
        timeline.note("frame.up", f"{sidecar.name} {brief(frame)}")
        if self.broken:
            return
        self.last_up = self._arrival(self.last_up)
        for copy in range(self.network.copies("network.duplicate_up")):
            timeline.at(self.last_up, lambda again=copy > 0: self._arrives(frame, again=again), self.hub_host)

    def _arrives(self, frame: Any, *, again: bool) -> None:
        if again and self.link.open:
            with self.network.world.watch.nothing_changes(frame):
                self.link.received(frame)
        else:
            self.link.received(frame)

    def to_sidecar(self, frame: Any) -> None:
        """The hub sends."""
        timeline, sidecar = self.network.world.timeline, self.sidecar
        timeline.note("frame.down", f"{sidecar.name} {brief(frame)}")
        if self.broken:
            return
        self.last_down = self._arrival(self.last_down)

        def arrive() -> None:
            if self.sidecar_open:
                sidecar.received(frame)

        for _ in range(self.network.copies("network.duplicate_down")):
            timeline.at(self.last_down, arrive, sidecar.host)

    def _arrival(self, last: int) -> int:
        timeline, network = self.network.world.timeline, self.network
        at = timeline.now + network.latency_us() + self.lag_us
        partitioned = network.partitions.get(self.sidecar.machine.name, 0)
        if at < partitioned:
            at = partitioned + network.latency_us()
        return max(last, at)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def close_by_hub(self, code: int, reason: str) -> None:
        """The sidecar hears of it behind everything that was sent before."""
        self.network.forget(self)
        timeline = self.network.world.timeline
        at = self._arrival(self.last_down)
        timeline.at(at, lambda: self._ends_at_sidecar(code, reason), self.sidecar.host)

    def close_by_sidecar(self, *, quietly: bool = False) -> None:
        """The hub hears of it behind everything that was sent before; ``quietly``: it never does."""
        if not self.sidecar_open:
            return
        self.sidecar_open = False
        self.network.forget(self)
        if not quietly:
            timeline = self.network.world.timeline
            timeline.at(self._arrival(self.last_up), self.link.closed, self.hub_host)

    def cut(self, *, hub_knows: bool, sidecar_knows: bool) -> None:
        """Something between breaks it; an end that is not told finds out by silence."""
        timeline = self.network.world.timeline
        self.network.forget(self)
        self.broken = True
        timeline.note("network.cut", f"{self.sidecar.name} hub_knows={hub_knows} sidecar_knows={sidecar_knows}")
        if hub_knows:
            timeline.after(self.network.latency_us(), self.link.closed, self.hub_host)
        if sidecar_knows:
            timeline.after(self.network.latency_us(), lambda: self._ends_at_sidecar(1006, "reset"), self.sidecar.host)

    def _ends_at_sidecar(self, code: int, reason: str) -> None:
        if self.sidecar_open:
            self.sidecar_open = False
            self.sidecar.disconnected(self, code, reason)


class Network:
    """All connections, and the weather."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.connections: list[Connection] = []
        self.partitions: dict[str, int] = {}
        self.slow_until = 0
        self.duplicating = 0.0

    def latency_us(self) -> int:
        timeline = self.world.timeline
        if timeline.now < self.slow_until:
            return timeline.span(0.2, 8.0)
        return timeline.span(0.0005, 0.08)

    def copies(self, kind: str) -> int:
        """How often a frame arrives."""
        if self.duplicating and self.world.timeline.chance(self.duplicating):
            self.world.timeline.note(kind)
            return 2
        return 1

    def connect(self, sidecar: Sidecar) -> Connection | None:
        """A new connection, or None when the hub cannot be reached."""
        hub = self.world.hub
        if not hub.is_up or hub.host.paused or self.partitions.get(sidecar.machine.name, 0) > self.world.timeline.now:
            return None
        assert hub.door is not None
        connection = Connection(self, sidecar, hub.door)
        self.connections.append(connection)
        return connection

    def forget(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)

    def host_died(self, host: Host) -> None:
        """Every connection of this process breaks; mostly the other end is told."""
        timeline = self.world.timeline
        for connection in list(self.connections):
            if connection.hub_host is host:
                connection.cut(hub_knows=False, sidecar_knows=timeline.chance(0.8))
            elif connection.sidecar.host is host:
                connection.sidecar_open = False
                connection.cut(hub_knows=timeline.chance(0.8), sidecar_knows=False)
