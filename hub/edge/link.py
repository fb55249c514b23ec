"""One sidecar's link, from its first frame to its last: who it is, what it may say, what it is told.

Knows frames and sessions, not sockets: it is given a way to write bytes and to close. Everything it hears becomes a command; everything
it says comes from a committed decision. Effects keep their order even while the spec of a granted lease is being read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

import structlog

from hub.core import commands, decision
from hub.core.decision import Effect
from hub.core.errors import HubError, Refused
from hub.edge import translate
from hub.edge.auth import Identity
from hub.edge.ratelimit import Bucket
from hub.ids import AgentId, SessionEpoch
from hub.wire import frames
from hub.wire.codec import FrameError, MalformedResult, decode_from_sidecar, encode
from hub.wire.codes import Close

VIOLATIONS = 10
VIOLATION_WINDOW_S = 60.0
HELLO_S = 10.0
FRAMES_PER_MIN = 1200.0
"""What a sidecar may say unasked, in frames, and as much at once. An agent at work says a few a minute."""
CHEAP_COST = 0.1
"""Of a beat or a result: they are the last thing that should be missed."""
CHEAP = (frames.Beat, frames.Result)
ASKED = (frames.Assign, frames.Accepted, frames.Control)
"""Frames whose answers cost the sidecar nothing, however fast it works."""
VERSION = "agentcom.v1"

log = structlog.get_logger("link")


class Wire(Protocol):
    """The socket below a link."""

    def write(self, data: bytes) -> None:
        """Queue one text frame; a peer that does not read is closed, never waited for."""

    def close(self, code: int, reason: str) -> None:
        """Close with an application code."""


class Exchange(Protocol):
    """What a link needs of the registry of all links."""

    lease_ms: int

    def greet(self, link: Link) -> int:
        """A link said hello; the number under which its welcome will find it."""

    def not_welcome(self, link: Link) -> None:
        """The hello of a link was refused."""

    def ask(self, command: commands.Command, done: Callable[[BaseException | None], None]) -> None:
        """Apply a command and hear whether it was refused."""

    def tell(self, link: Link, command: commands.Command) -> None:
        """Apply a command of a session; raises HubError if that cannot be done now."""

    def hydrate(self, link: Link, grant: decision.GrantLease) -> None:
        """Have the spec of a granted lease read; :meth:`Link.granted` follows."""

    def welcome(self, link: Link, effect: decision.Welcome, re: int | None) -> frames.Welcome:
        """The welcome of a session."""

    def depart(self, link: Link, *, bye: bool) -> None:
        """A link is gone, or said goodbye."""


_REFUSED = {"name_in_use": Close.NAME_IN_USE, "agent_removed": Close.AGENT_DELETED}
"""Refusals of a hello that have a close code of their own."""


class Link:
    """Created after the upgrade; ``closed`` is called once when the socket is gone."""

    def __init__(self, links: Exchange, wire: Wire, identity: Identity) -> None:
        self._links = links
        self._wire = wire
        self.identity = identity
        self._loop = asyncio.get_running_loop()
        self._hello_timer = self._loop.call_later(HELLO_S, self.close, Close.NO_HELLO, "no hello")
        self._violations: deque[float] = deque(maxlen=VIOLATIONS)
        self._held_back: deque[Effect] | None = None
        self._heard = self._loop.time()
        self._budget = Bucket(FRAMES_PER_MIN, self._loop.time)
        self._greeted = False
        self._hello_id: int | None = None
        self.agent: AgentId | None = None
        self.epoch: SessionEpoch | None = None
        self.greeting = 0
        self.open = True

    # ── hearing ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def received(self, data: bytes) -> None:
        """One text frame from the sidecar."""
        self._heard = self._loop.time()
        if not self.open or self._floods(CHEAP_COST):
            return
        try:
            frame = decode_from_sidecar(data)
        except MalformedResult as fault:
            self._violation_free_result(fault)
            return
        except FrameError as fault:
            self._refuse(fault)
            return
        if not isinstance(frame, CHEAP) and self._floods(1.0 - CHEAP_COST):
            return
        if isinstance(frame, frames.Hello):
            self._hello(frame)
        elif self.agent is None or self.epoch is None:
            self.send(frames.Error(re=frame.id, code="no_session", message="the first frame is hello"))
            self._violation()
        elif frame.e is not None and frame.e != self.epoch:
            self.send(frames.Error(re=frame.id, code="stale_session", message=f"this session is {self.epoch}"))
        else:
            self._in_session(frame, self.agent, self.epoch)

    def _floods(self, cost: float) -> bool:
        """Whether this frame is one too many: a sidecar that shouts is closed, so that the others are heard."""
        if not self._budget.take(cost):
            return False
        log.warning("link_floods", agent=self.agent, per_min=FRAMES_PER_MIN)
        self.close(Close.RATE, f"more than {FRAMES_PER_MIN:g} frames a minute")
        return True

    def _hello(self, frame: frames.Hello) -> None:
        if self._greeted:
            self.send(frames.Error(re=frame.id, code="already_greeted", message="one hello opens one session"))
            self._violation()
            return
        if VERSION not in frame.versions:
            self.send(frames.Error(re=frame.id, code="version", message=f"this hub speaks {VERSION}", fatal=True))
            self.close(Close.VERSION, "version")
            return
        agent = AgentId(frame.agent_id)
        if (why := self._forbids(frame, agent)) is not None:
            self.send(frames.Error(re=frame.id, code="forbidden", message=why, fatal=True))
            self.close(Close.FORBIDDEN, "forbidden")
            return
        self._greeted, self.agent = True, agent
        self._hello_id = frame.id
        self._hello_timer.cancel()
        command = translate.hello(frame, agent, self._links.greet(self), admitted_at=self.identity.created_at)
        self._links.ask(command, self._hello_answered)

    def _forbids(self, frame: frames.Hello, agent: AgentId) -> str | None:
        """Why this token does not open this session; None if it does."""
        if not self.identity.may_be(agent):
            return f"this token is not for the agent {agent}"
        if self.identity.install_id not in (None, frame.install_id):
            return "this token belongs to another installation; join this machine with a code of its own"
        return None

    def _hello_answered(self, fault: BaseException | None) -> None:
        if fault is None:
            return
        self._links.not_welcome(self)
        code = fault.code if isinstance(fault, HubError) else "internal"
        self.send(frames.Error(re=self._hello_id, code=code, message=str(fault)[:1024], fatal=True))
        self.close(_REFUSED.get(code, Close.RESYNC), code)

    def _in_session(self, frame: frames.FromSidecar, agent: AgentId, epoch: SessionEpoch) -> None:
        if isinstance(frame, frames.Ok):
            if frame.re is not None:
                self._tell(commands.ControlNoted(actor=agent, agent=agent, session_epoch=epoch, cid=frame.re), frame.id)
        elif isinstance(frame, frames.Bye):
            self.send(frames.Ok(re=frame.id))
            self._links.depart(self, bye=True)
        elif isinstance(frame, frames.Error):
            log.warning("sidecar_error", agent=agent, code=frame.code, message=frame.message, re=frame.re)
        else:
            command = translate.command_of(frame, agent, epoch)
            if command is not None:
                self._tell(command, frame.id)

    def _tell(self, command: commands.Command, re: int | None) -> None:
        try:
            self._links.tell(self, command)
        except Refused as refusal:
            self.send(frames.Error(re=re, code=refusal.code, message=refusal.message[:1024]))
        except HubError as fault:
            # the hub is rebuilding: reconcile instead of guessing what was heard
            self.close(Close.RESYNC, fault.code)

    def _violation_free_result(self, fault: MalformedResult) -> None:
        if self.agent is None or self.epoch is None:
            self._refuse(fault)
            return
        self._tell(translate.malformed(fault, self.agent, self.epoch), fault.re)

    def _refuse(self, fault: FrameError) -> None:
        self.send(frames.Error(re=fault.re, code=fault.code, message=str(fault)[:1024], errors=fault.errors))
        if fault.code != "unsupported":
            self._violation()

    def _violation(self) -> None:
        now = self._loop.time()
        self._violations.append(now)
        if len(self._violations) == VIOLATIONS and now - self._violations[0] < VIOLATION_WINDOW_S:
            self.close(Close.VIOLATIONS, "protocol violations")

    # ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self, effect: Effect) -> None:
        """Tell the sidecar of a committed effect, in order."""
        if self._held_back is not None:
            self._held_back.append(effect)
        elif isinstance(effect, decision.GrantLease):
            self._held_back = deque()
            self._links.hydrate(self, effect)
        elif isinstance(effect, decision.CloseSession):
            self.close(effect.code, effect.reason)
        elif isinstance(effect, decision.Beaten):
            self.send(translate.beaten(effect, self._links.lease_ms))
        elif isinstance(effect, decision.Welcome):
            self.send(self._links.welcome(self, effect, self._hello_id))
        else:
            self.send(translate.frame_of(effect))

    def granted(self, frame: frames.Accepted | None) -> None:
        """The spec was read (None: it could not be, and the lease is taken back): say so, then everything held back."""
        if frame is not None:
            self.send(frame)
        waiting, self._held_back = self._held_back or deque(), None
        for effect in waiting:
            self.publish(effect)  # another grant among them holds back the rest again

    def send(self, frame: frames.Frame) -> None:
        """Write a frame now."""
        if self.open:
            if isinstance(frame, ASKED):
                self._budget.give_back(1.0)
            self._wire.write(encode(frame))

    def close(self, code: int, reason: str) -> None:
        """Close the socket; what the sidecar holds is untouched."""
        if self.open:
            self._wire.close(code, reason)
            self.closed()

    def closed(self) -> None:
        """The socket is gone, by whoever."""
        if self.open:
            self.open = False
            self._hello_timer.cancel()
            self._links.depart(self, bye=False)

    def silent_for(self) -> float:
        """Seconds since the last frame."""
        return self._loop.time() - self._heard
