"""A hub for sidecars under test: a real WebSocket server that speaks the wire, remembers every frame, and does as told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from hub.ids import HeldVerdict, HubEpoch, Lane, SessionEpoch, Verdict
from hub.wire import frames
from hub.wire.codec import decode_from_sidecar, encode
from hub.wire.spec import Spec

WAIT_S = 20.0


@dataclass
class FakeHub:
    """Answers like a hub that agrees with everything, unless a field says otherwise. Use :func:`running`."""

    beat_ms: int = 1000
    lease_ms: int = 15_000
    limits: frames.Limits = field(default_factory=frames.Limits)
    token: str = "secret"
    answer_beats: bool = True
    answer_results: bool = True
    welcome: bool = True
    refuse_with: HTTPStatus | None = None
    verdict: Callable[[frames.Held], HeldVerdict] = lambda held: HeldVerdict.KEEP
    beat_ok: Callable[[frames.LeaseBeat], bool] = lambda lease: True
    specs: dict[tuple[int, int], Spec] = field(default_factory=dict)

    url: str = ""
    port: int = 0
    got: list[frames.FromSidecar] = field(default_factory=list)
    attempts: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)
    sessions: int = 0
    socket: ServerConnection | None = None
    welcomed: ServerConnection | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _ids: int = 0

    async def send(self, frame: frames.FromHub) -> int:
        """Send a frame to the connected sidecar; returns its id."""
        assert self.socket is not None
        self._ids += 1
        await self.socket.send(encode(replace(frame, id=self._ids, e=SessionEpoch(self.sessions))), text=True)
        return self._ids

    async def assign(self, spec: Spec) -> None:
        """Offer a task; its spec follows when it is accepted."""
        self.specs[spec.task, spec.lease_epoch] = spec
        await self.until(lambda: self.socket is not None and self.welcomed is self.socket)
        await self.send(frames.Assign(task=spec.task, lease_epoch=spec.lease_epoch, lane=Lane.NORMAL))

    async def until(self, condition: Callable[[], object], within_s: float = WAIT_S) -> None:
        """Wait until something is true; fails with what arrived."""
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"never happened; got {[frame.t for frame in self.got if frame.t != 'beat']}") from None

    async def expect(self, kind: type, count: int = 1, within_s: float = WAIT_S):
        """Wait for the n-th frame of a kind."""
        await self.until(lambda: len(self.of(kind)) >= count, within_s)
        return self.of(kind)[count - 1]

    def of(self, kind: type) -> list:
        return [frame for frame in self.got if isinstance(frame, kind)]

    async def disconnect(self, code: int | None = None) -> None:
        """Close the current connection with a code, or cut it."""
        socket, self.socket = self.socket, None
        assert socket is not None
        if code is None:
            socket.transport.abort()
        else:
            await socket.close(code)

    # ---

    async def _serve(self, socket: ServerConnection) -> None:
        self.socket = socket
        try:
            async for message in socket:
                frame = decode_from_sidecar(message)
                self.got.append(frame)
                await self._answer(frame)
                self._changed.set()
        except ConnectionClosed:
            pass
        finally:
            if self.socket is socket:
                self.socket = None
            self._changed.set()

    async def _answer(self, frame: frames.FromSidecar) -> None:
        match frame:
            case frames.Hello():
                if self.welcome:
                    self.sessions += 1
                    await self.send(self._welcome(frame))
                    self.welcomed = self.socket
            case frames.Accept(task=task, lease_epoch=epoch):
                spec = self.specs.get((task, epoch))
                if spec is not None:
                    await self.send(
                        frames.Accepted(re=frame.id, task=task, lease_epoch=epoch, lease_ms=self.lease_ms, spec=spec)
                    )
            case frames.Beat() if self.answer_beats:
                leases = tuple(
                    frames.LeaseAnswer(
                        task=lease.task, lease_epoch=lease.lease_epoch, ok=self.beat_ok(lease), lease_ms=self.lease_ms
                    )
                    for lease in frame.leases
                )
                await self.send(frames.Beaten(re=frame.id, leases=leases, sent_mono=frame.sent_mono))
            case frames.Result() if self.answer_results:
                await self.send(
                    frames.ResultAck(re=frame.id, task=frame.task, lease_epoch=frame.lease_epoch, verdict=Verdict.APPLIED)
                )
            case frames.Question() | frames.GiveBack() | frames.Decline() | frames.Bye():
                await self.send(frames.Ok(re=frame.id))
            case _:
                pass

    def _welcome(self, hello: frames.Hello) -> frames.Welcome:
        held = [
            frames.HeldAnswer(task=item.task, lease_epoch=item.lease_epoch, verdict=self.verdict(item)) for item in hello.held
        ]
        held += [
            frames.HeldAnswer(task=item.task, lease_epoch=item.lease_epoch, verdict=HeldVerdict.SEND_RESULT)
            for item in hello.outbox
        ]
        return frames.Welcome(
            re=hello.id,
            session_epoch=SessionEpoch(self.sessions),
            hub_id="hub",
            hub_epoch=HubEpoch(1),
            beat_ms=self.beat_ms,
            lease_ms=self.lease_ms,
            limits=self.limits,
            verdicts=tuple(held),
        )

    def _admit(self, connection: ServerConnection, request):
        self.attempts += 1
        self.headers.append({name.lower(): value for name, value in request.headers.raw_items()})
        self._changed.set()
        if self.refuse_with is not None:
            return connection.respond(self.refuse_with, "no\n")
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return connection.respond(HTTPStatus.UNAUTHORIZED, "who are you\n")
        return None


@contextlib.asynccontextmanager
async def running(hub: FakeHub | None = None) -> AsyncIterator[FakeHub]:
    """A hub that listens; a hub given a second time comes back on its old port."""
    hub = hub or FakeHub()
    async with serve(
        hub._serve, "127.0.0.1", hub.port, subprotocols=["agentcom.v1"], process_request=hub._admit, ping_interval=None
    ) as server:
        hub.port = server.sockets[0].getsockname()[1]
        hub.url = f"ws://127.0.0.1:{hub.port}/ws"
        yield hub
