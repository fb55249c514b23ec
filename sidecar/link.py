"""The socket between an agent and the hub: connects, carries frames both ways, connects again.

It knows no rule of the protocol but how to come back (``backoff``) and that only the writer task of a connection awaits
the socket. What to say, and when silence means that the other side is dead, is the holder's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from hub.wire.codec import FrameError, decode_from_hub, decode_spec, encode
from hub.wire.codes import Close
from hub.wire.frames import Accepted, Error, FromHub, FromSidecar, Goaway, Welcome
from sidecar.backoff import Ending, Reconnect
from sidecar.blobs import BlobError, fetch
from sidecar.settings import SettingsError

log = structlog.get_logger(__name__)

SUBPROTOCOL = Subprotocol("agentcom.v1")
MESSAGE_BYTES = 1024 * 1024
OUTBOX_BYTES = 1024 * 1024
"""Frames that wait for one connection's socket; beyond, the connection is dropped and both sides reconcile."""
OPEN_S = 10.0
WRITE_S = 10.0
CLOSE_S = 2.0
_CURES: Mapping[int, str] = {
    401: "the hub does not know this token: join again with a new code, or use the one in the hub's agent.token",
    403: "this token is not an agent's: use the one in the hub's agent.token",
    404: "nothing listens for sidecars there: hub_url ends in /ws",
    429: "the hub has no room for more connections just now; if it stays, see limits.max_links and dampers.connect_per_min",
    Close.RATE: "this sidecar said more than the hub listens to: report it, with what its agent printed",
    Close.NAME_IN_USE: "another installation uses this agent's id: give this one an id of its own, or stop the other",
}
"""What to do about an ending that trying again will not cure, by HTTP status or close code."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Listener(Protocol):
    """Who is told what happens on the link. Calls come from the link's task and must not block."""

    @property
    def wanted(self) -> bool:
        """Whether the hub waits for something from here."""
        ...

    def opened(self) -> None:
        """A socket is open and nothing was sent on it."""
        ...

    def received(self, frame: FromHub) -> None:
        """The hub sent this."""
        ...

    def closed(self) -> None:
        """The socket is gone."""
        ...


class _Outbox:
    """Encoded frames on their way to one socket, bounded in bytes."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()

    def put(self, data: bytes) -> bool:
        """Queue; False if there is no room."""
        if self._bytes + len(data) > OUTBOX_BYTES:
            return False
        self._frames.append(data)
        self._bytes += len(data)
        self._filled.set()
        return True

    async def write_to(self, socket: ClientConnection) -> None:
        """Send what comes, for ever; raises TimeoutError when the socket takes nothing for 10 s."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._frames:
                data = self._frames.popleft()
                self._bytes -= len(data)
                await _transmit(socket, data)


async def _transmit(socket: ClientConnection, data: bytes) -> None:
    """Hand one frame to the socket; raises TimeoutError when it takes nothing for 10 s."""
    async with asyncio.timeout(WRITE_S):
        await socket.send(data, text=True)


class Link:
    """One agent's connections, one after the other. ``token`` is asked for each: it may have been rotated, or be just now."""

    def __init__(
        self,
        url: str,
        token: Callable[[], str],
        *,
        agent: str,
        reconnect: Reconnect,
        listener: Listener,
        clock_s: Callable[[], float],
    ) -> None:
        self._url = url
        self._token = token
        self._agent = agent
        self._reconnect = reconnect
        self._listener = listener
        self._clock_s = clock_s
        self._socket: ClientConnection | None = None
        self._outbox = _Outbox()
        self._after_s: float | None = None
        self._closing = asyncio.Event()

    async def run(self) -> None:
        """Stay connected until :meth:`close`; raises :class:`~sidecar.backoff.Refused` when that is pointless."""
        while not self._closing.is_set():
            ending = await self._connection()
            if self._closing.is_set():
                return
            wait_s = self._reconnect.ended(ending, self._clock_s(), holding=self._listener.wanted)
            cure = _CURES.get(ending.http_status or ending.code or 0)
            (log.info if cure is None else log.warning)(
                "link_waits",
                agent=self._agent,
                seconds=round(wait_s, 2),
                code=ending.code,
                http_status=ending.http_status,
                reason=ending.reason,
                **({} if cure is None else {"cure": cure}),
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._closing.wait()

    def send(self, frame: FromSidecar) -> None:
        """Queue a frame for the current connection; without one it is lost, which the holder's repetition heals."""
        if self._socket is None:
            return
        try:
            data = encode(frame)
        except ValueError as fault:
            log.warning("frame_too_large", agent=self._agent, frame=frame.t, reason=str(fault))
            return
        if not self._outbox.put(data):
            self.drop("the socket does not take what is sent")

    def drop(self, reason: str) -> None:
        """Tear the connection down without a farewell: the other side is presumed dead."""
        if self._socket is not None:
            log.warning("link_dropped", agent=self._agent, reason=reason)
            self._socket.transport.abort()

    async def close(self) -> None:
        """Close for good."""
        self._closing.set()
        if self._socket is not None:
            await self._socket.close()

    async def _connection(self) -> Ending:
        """One connection from its attempt to its end. A token that cannot be read is like a hub that is away: it comes back."""
        self._after_s = None
        try:
            async with connect(
                self._url,
                subprotocols=[SUBPROTOCOL],
                additional_headers={"Authorization": f"Bearer {self._token()}"},
                compression=None,
                max_size=MESSAGE_BYTES,
                open_timeout=OPEN_S,
                close_timeout=CLOSE_S,
                ping_interval=None,  # the beat is the only heartbeat: its answer proves that the hub works
                proxy=None if urlsplit(self._url).hostname in _LOOPBACK else True,
            ) as socket:
                return await self._talk(socket)
        except InvalidStatus as fault:
            return Ending(http_status=fault.response.status_code, reason="refused before the upgrade",
                          after_s=_seconds(fault.response.headers.get("Retry-After")))  # fmt: skip
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, SettingsError) as fault:
            return Ending(reason=f"{type(fault).__name__}: {fault}"[:200])

    async def _talk(self, socket: ClientConnection) -> Ending:
        self._socket, self._outbox = socket, _Outbox()
        writer = asyncio.create_task(self._write(socket, self._outbox), name=f"{self._agent}-writer")
        self._listener.opened()
        try:
            async for message in socket:
                await self._take(message)
        except ConnectionClosed:
            pass
        finally:
            self._socket = None
            self._listener.closed()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return Ending(code=socket.close_code, reason=socket.close_reason or "", after_s=self._after_s)

    async def _write(self, socket: ClientConnection, outbox: _Outbox) -> None:
        try:
            await outbox.write_to(socket)
        except (ConnectionClosed, TimeoutError):
            socket.transport.abort()  # the reader ends, and with it the connection

    async def _take(self, message: str | bytes) -> None:
        try:
            frame = decode_from_hub(message)
        except FrameError as fault:
            log.warning("bad_frame", agent=self._agent, code=fault.code, reason=str(fault))
            self.send(Error(re=fault.re, code=fault.code, message=str(fault)[:1024], errors=fault.errors))
            return
        if isinstance(frame, Goaway):
            self._after_s = frame.reconnect_after_ms / 1000
        if isinstance(frame, Welcome):
            self._reconnect.welcomed(self._clock_s())
            log.info("connected", agent=self._agent, hub=self._url, session=frame.session_epoch)
        if isinstance(frame, Error):
            log.warning("hub_refused_frame", agent=self._agent, code=frame.code, reason=frame.message)
        if isinstance(frame, Accepted) and frame.spec is None and frame.spec_ref is not None:
            frame = await self._with_spec(frame, frame.spec_ref)
        self._listener.received(frame)

    async def _with_spec(self, frame: Accepted, sha256: str) -> Accepted:
        """The frame with the spec it names; as it is when that cannot be had, and the assignment is given back."""
        try:
            return replace(frame, spec=decode_spec(await fetch(self._url, self._token(), sha256)))
        except (BlobError, FrameError, SettingsError) as fault:
            log.warning("spec_unavailable", agent=self._agent, task=frame.task, code=fault.code, reason=str(fault))
            return frame


def _seconds(retry_after: str | None) -> float | None:
    """``Retry-After`` in its form of seconds, at most an hour; the other form is a date, which no hub of ours sends."""
    return min(float(retry_after), 3600.0) if retry_after is not None and retry_after.isdecimal() else None
