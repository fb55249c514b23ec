"""The hub's end of every connection, as :mod:`hub.edge.link` and :mod:`hub.edge.links` keep it, over the real translation.

Everything a link says comes from the conductor's publisher; the watch compares it with what is committed at that moment.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

from hub.core import commands, decision
from hub.core.errors import HubError, Refused
from hub.edge import translate
from hub.ids import SECOND, AgentId, SessionEpoch
from hub.store.specs import read_specs
from hub.store.sql import statements
from hub.store.writer import WriterTx
from hub.wire import frames
from hub.wire.codes import Close
from tests.simulation.timeline import Pause

if TYPE_CHECKING:
    from tests.simulation.hub import Hub
    from tests.simulation.network import Connection

IDLE_BEATS = 2.5
HELLO_S = 10.0
BLOCKED_MS = 40_000
"""An unanswered question parks its task after this long."""


class HubLink:
    """One connection, as the hub sees it."""

    def __init__(self, door: Door, connection: Connection) -> None:
        self.door, self.connection = door, connection
        self.open = True
        self.greeted = False
        self.hello_id: int | None = None
        self.greeting = 0
        self.agent: AgentId | None = None
        self.epoch: SessionEpoch | None = None
        self.heard_us = door.hub.world.timeline.now
        self.held_back: deque[Any] | None = None
        door.hub.world.timeline.after(int(HELLO_S * SECOND), self._waited_for_hello, door.hub.host)

    def _waited_for_hello(self) -> None:
        if not self.greeted:
            self.close(Close.NO_HELLO, "no hello")

    # ── hearing ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def received(self, frame: Any) -> None:
        """One frame from the sidecar, in order."""
        self.heard_us = self.door.hub.world.timeline.now
        if not self.open:
            return
        if isinstance(frame, frames.Hello):
            self._hello(frame)
        elif self.epoch is not None and self.agent is not None and frame.e in (None, self.epoch):
            self._in_session(frame, self.agent, self.epoch)

    def _hello(self, frame: frames.Hello) -> None:
        if self.greeted:
            return
        self.greeted, self.agent, self.hello_id = True, AgentId(frame.agent_id), frame.id
        command = translate.hello(frame, frame.agent_id, self.door.greet(self), admitted_at=0)

        def answered(answer: Any) -> None:
            if isinstance(answer, BaseException):
                self.door.greeting.pop(self.greeting, None)
                self.close(Close.NAME_IN_USE if getattr(answer, "code", "") == "name_in_use" else Close.RESYNC, str(answer))

        self.door.hub.ask(command, answered)

    def _in_session(self, frame: Any, agent: AgentId, epoch: SessionEpoch) -> None:
        who: dict[str, Any] = {"actor": agent, "agent": agent, "session_epoch": epoch}
        if isinstance(frame, frames.Ok):
            if frame.re is not None:
                self._tell(commands.ControlNoted(**who, cid=frame.re))
        elif isinstance(frame, frames.Bye):
            self.send(frames.Ok(re=frame.id))
            self.door.depart(self, bye=True)
        elif not isinstance(frame, frames.Error):
            command = translate.command_of(frame, agent, epoch)
            if command is not None:
                self._tell(command)

    def _tell(self, command: commands.Command) -> None:
        conductor = self.door.hub.conductor
        assert conductor is not None
        try:
            if conductor.wants_facts(command):
                self.door.hub.ask(command, lambda _answer: None)
            else:
                conductor.post(command)
        except Refused:
            pass  # the sidecar hears an error frame, which tells it nothing
        except HubError as fault:
            self.close(Close.RESYNC, fault.code)

    # ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self, effect: Any) -> None:
        """Tell the sidecar of an effect, in order; a grant waits for its spec and holds back what follows."""
        if self.held_back is not None:
            self.held_back.append(effect)
        elif isinstance(effect, decision.GrantLease):
            self.held_back = deque()
            self.door.hydrate(self, effect)
        elif isinstance(effect, decision.CloseSession):
            self.close(effect.code, effect.reason)
        elif isinstance(effect, decision.Beaten):
            self.send(translate.beaten(effect, self.door.lease_ms))
        elif isinstance(effect, decision.Welcome):
            self.send(self.door.welcome(self, effect))
        else:
            self.send(translate.frame_of(effect))

    def granted(self, frame: frames.Accepted) -> None:
        """The spec was read: say so, then everything held back."""
        self.send(frame)
        waiting, self.held_back = self.held_back or deque(), None
        for effect in waiting:
            self.publish(effect)

    def send(self, frame: Any) -> None:
        """Let a frame leave the hub."""
        if self.open:
            self.door.hub.world.watch.told.leaves(self, frame)
            self.connection.to_sidecar(frame)

    def close(self, code: int, reason: str) -> None:
        """Close the socket, saying why."""
        if self.open:
            self.connection.close_by_hub(int(code), reason)
            self.closed()

    def closed(self) -> None:
        """The socket is gone, by whoever."""
        if self.open:
            self.open = False
            self.door.depart(self, bye=False)


class Door:
    """All links of one life of the hub; the conductor's publisher."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.links: list[HubLink] = []
        self.greeting: dict[int, HubLink] = {}
        self.numbers = itertools.count(1)
        self.live: dict[AgentId, HubLink] = {}
        self.found: Any = {}
        self.lease_ms = hub.terms.lease_us // 1000
        hub.world.timeline.spawn(hub.host, self._sweep)

    # ── the publisher's side ─────────────────────────────────────────────────────────────────────────────────────────────────

    def effects(self, effects: Any, _decided_at: float) -> None:
        for agent, epoch, effect in effects:
            if isinstance(effect, decision.Welcome):
                self._bind(agent, epoch, effect)
            link = self.live.get(agent)
            if link is not None and link.epoch == epoch:
                link.publish(effect)

    def specs(self, found: Any) -> None:
        self.found = found

    def events(self, _events: Any) -> None:
        pass

    def committed(self, _decisions: int, _seconds: float) -> None:
        pass

    def resync(self) -> None:
        self.hub.world.timeline.note("hub.resync")
        for link in list(self.links):
            link.close(Close.RESYNC, "resync")

    # ── the links' side ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def new_link(self, connection: Connection) -> HubLink:
        link = HubLink(self, connection)
        self.links.append(link)
        return link

    def greet(self, link: HubLink) -> int:
        link.greeting = next(self.numbers)
        self.greeting[link.greeting] = link
        return link.greeting

    def _bind(self, agent: AgentId, epoch: SessionEpoch, effect: decision.Welcome) -> None:
        link = self.greeting.pop(effect.greeting, None)
        if link is None:
            return
        link.epoch = epoch
        self.live[agent] = link
        if not link.open:
            self.depart(link, bye=False)

    def depart(self, link: HubLink, *, bye: bool) -> None:
        if not bye and link in self.links:
            self.links.remove(link)
        if link.agent is not None and link.epoch is not None and self.live.get(link.agent) is link:
            del self.live[link.agent]
            gone = commands.Disconnected(actor=link.agent, agent=link.agent, session_epoch=link.epoch, bye=bye)
            conductor = self.hub.conductor
            if conductor is not None and conductor.is_open:
                conductor.post(gone)

    def welcome(self, link: HubLink, effect: decision.Welcome) -> frames.Welcome:
        terms = self.hub.terms
        items = [frames.HeldAnswer(task=item.n, lease_epoch=item.lease_epoch, verdict=item.verdict) for item in effect.verdicts]
        return frames.Welcome(
            re=link.hello_id,
            session_epoch=link.epoch or SessionEpoch(0),
            hub_id="h",
            hub_epoch=self.hub.epoch,  # type: ignore[arg-type]
            beat_ms=terms.beat_us // 1000,
            lease_ms=self.lease_ms,
            limits=frames.Limits(accept_ms=terms.accept_us // 1000, resend_ms=terms.resend_us // 1000, blocked_ms=BLOCKED_MS),
            verdicts=tuple(items),
        )

    def hydrate(self, link: HubLink, grant: decision.GrantLease) -> None:
        """At once if the spec came with the commit, else when it has been read."""
        key = (grant.n, grant.lease_epoch)
        if key in self.found:
            link.granted(self._accepted(grant, self.found[key]))
            return
        hub, timeline = self.hub, self.hub.world.timeline

        def read() -> None:
            look = WriterTx(hub.store.connection, statements(), 0)
            link.granted(self._accepted(grant, read_specs(look, [key])[key]))

        timeline.after(timeline.span(0.001, 0.05), read, hub.host)

    def _accepted(self, grant: decision.GrantLease, spec: Any) -> frames.Accepted:
        if isinstance(spec, Exception):
            raise spec
        return frames.Accepted(re=grant.re, task=grant.n, lease_epoch=grant.lease_epoch, lease_ms=self.lease_ms, spec=spec)

    async def _sweep(self) -> None:
        beat_us = self.hub.terms.beat_us
        while True:
            await Pause(beat_us // 2)
            for link in list(self.links):
                if link.epoch is not None and self.hub.world.timeline.now - link.heard_us > beat_us * IDLE_BEATS:
                    self.hub.world.timeline.note("hub.idle", f"{link.agent}")
                    link.close(Close.IDLE, "idle")
