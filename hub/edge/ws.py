"""The sidecars' door: websockets' own connection, handed its upgrade by uvicorn, in callback style.

One port serves HTTP and these sockets. A whole text frame goes straight to its link; writing is coalesced per turn of the loop into the
transport's buffer, which is bounded: a peer that does not read is closed (4008) and reconciles later. Nothing here awaits a socket.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

import orjson
from websockets.asyncio.server import Server, ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, Event
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from hub.core.errors import Refused
from hub.edge.auth import Authenticator, Identity, require
from hub.edge.link import VERSION, Link
from hub.edge.links import Links
from hub.edge.ratelimit import Limiter
from hub.ids import Scope
from hub.wire.codes import Close

MAX_MESSAGE_BYTES = 1 << 20
"""Transport limit; above it the library closes 1009. Frames themselves are limited to 256 KiB by the codec."""
OUTBOX_BYTES = 1 << 20
WRITE_DEADLINE_S = 10.0
PATH = "/ws"


class Socket(ServerConnection):
    """A websockets connection whose text frames go to a :class:`Link`."""

    link: Link | None = None
    _flushing = False
    _stuck: asyncio.TimerHandle | None = None

    def process_event(self, event: Event) -> None:
        """Called by the library for every frame; the request before them is its own."""
        if self.link is None or not isinstance(event, Frame) or event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            super().process_event(event)
        elif event.opcode is Opcode.TEXT and event.fin:
            self.link.received(bytes(event.data))
        else:
            self.link.close(Close.VIOLATIONS, "one whole text frame per message")

    def write(self, data: bytes) -> None:
        """Queue one text frame."""
        if self.protocol.state is not OPEN:
            return
        self.protocol.send_text(data)
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self.transport.is_closing():
            return
        self.send_data()
        if self.transport.get_write_buffer_size() > OUTBOX_BYTES and self.link is not None:
            self.link.close(Close.SLOW, "slow reader")

    def close_with(self, code: int, reason: str) -> None:
        """Start the closing handshake; a peer that does not finish it in time is cut off."""
        if self.protocol.state is OPEN:
            self.protocol.send_close(code, reason)
            self.send_data()
        self.loop.call_later(self.close_timeout or WRITE_DEADLINE_S, self.transport.abort)

    def pause_writing(self) -> None:
        """The peer does not keep up: it has until the write deadline."""
        super().pause_writing()
        self._stuck = self.loop.call_later(WRITE_DEADLINE_S, self._give_up)

    def resume_writing(self) -> None:
        """The peer keeps up again."""
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def _give_up(self) -> None:
        if self.link is not None:
            self.link.close(Close.SLOW, "write deadline")
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        super().connection_lost(exc)
        if self._stuck is not None:
            self._stuck.cancel()
        if self.link is not None:
            self.link.closed()


class _Wire:
    """The socket as its link sees it."""

    def __init__(self, socket: Socket) -> None:
        self.write = socket.write
        self.close = socket.close_with


class Acceptor:
    """Stands where websockets expects its server: runs the handshake of each socket and keeps the tasks."""

    def __init__(self, links: Links, auth: Authenticator, limiter: Limiter) -> None:
        self._links = links
        self._auth = auth
        self._limiter = limiter
        self.handler_tasks: set[asyncio.Task[None]] = set()
        self.serving = True

    def is_serving(self) -> bool:
        """Whether new sockets are taken; the library answers 503 otherwise."""
        return self.serving

    def factory(self, **_uvicorn: Any) -> Socket:
        """What uvicorn calls for an upgrade request."""
        protocol = ServerProtocol(subprotocols=[Subprotocol(VERSION)], max_size=MAX_MESSAGE_BYTES)
        # ping and deadlines are the protocol's own: beats
        return Socket(protocol, cast("Server", self), ping_interval=None, close_timeout=WRITE_DEADLINE_S)

    async def handler(self, connection: ServerConnection) -> None:
        """Run by websockets for each connection: the handshake, then nothing until it is closed."""
        socket = cast("Socket", connection)
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S):
                await socket.handshake(self._check, None, None)
        except (TimeoutError, WebSocketException, ConnectionError, EOFError):  # also one who has said that he says no more
            socket.transport.abort()
        finally:
            task = asyncio.current_task()
            if task is not None:
                self.handler_tasks.discard(task)
        if socket.protocol.state is not OPEN:
            # a refusal is flushed before the socket goes
            socket.transport.close()

    def _check(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse before the upgrade, with a real status and body; otherwise make the link (its frames may follow at once)."""
        try:
            self._admit(cast("Socket", connection), request)
        except Refused as refusal:
            return _refusal(refusal)
        return None

    def _admit(self, socket: Socket, request: Request) -> None:
        if request.path.partition("?")[0] != PATH:
            raise Refused(404, "not_found", f"the sidecars' socket is at {PATH}")
        identity = self._identify(socket, request)
        offered = [word.strip() for value in request.headers.get_all("Sec-WebSocket-Protocol") for word in value.split(",")]
        if VERSION not in offered:
            raise Refused(426, "version", f"this hub speaks the subprotocol {VERSION}")
        self._links.check_room()
        socket.link = Link(self._links, _Wire(socket), identity)
        self._links.add(socket.link)

    def _identify(self, socket: Socket, request: Request) -> Identity:
        peer = str((socket.transport.get_extra_info("peername") or ("unknown",))[0])
        try:
            identity = self._auth.authenticate(request.headers.get("Authorization"))
        except Refused:
            self._limiter.denied(peer)
            raise
        require(identity, Scope.AGENT)
        self._limiter.connect(identity, peer)
        return identity


def _refusal(refusal: Refused) -> Response:
    status = HTTPStatus(refusal.status)
    body = orjson.dumps(
        {
            "type": f"urn:agentcom:problem:{refusal.code}",
            "title": status.phrase,
            "status": refusal.status,
            "detail": refusal.message,
            "code": refusal.code,
            "hint": refusal.hint,
        }
    )
    headers = Headers(
        [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body))), ("Connection", "close")]
    )
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(refusal.retry_after_s)
    return Response(refusal.status, status.phrase, headers, body)
