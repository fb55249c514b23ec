"""A bad network between two ends that mean well: a TCP proxy whose faults are switched while it runs, for all connections or one.

Each direction of a connection has a :class:`Flow`; beside it a connection can be reset, left half-open, swallowed (:meth:`Pair.vanish`) or
said twice (:meth:`Pair.repeat`). :meth:`Proxy.when` does such a thing at the very frame that a pattern names: before it, amid its bytes, or
after it was delivered. Frames are WebSocket messages, unmasked for the pattern alone; in plain HTTP each piece that arrives is one.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.support.tap import Messages, Point, Trap, Way

PIECE_BYTES = 16_384
PIECES = 8
"""Pieces on their way in one direction; beyond, the sender feels that nobody reads."""
SLICE_S = 0.05
"""A throttled flow moves this often, or a byte at a time."""
REMEMBERED_BYTES = 1 << 20
"""How much of a connection can be repeated."""
_RESET = struct.pack("ii", 1, 0)

End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Flow:
    """How bytes travel: delayed, at most so many a second (0: none, until this changes), an end told only after a while."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    closing_s: float = 0.0


CLEAR = Flow()


Piece = tuple[float, bytes, Trap[Any] | None]
"""Bytes, when they are due, and what happens behind them."""


class Pair:
    """One connection through the proxy: the end that came, and the end at the target."""

    def __init__(self, proxy: Proxy, near: End) -> None:
        self._proxy = proxy
        self._near = near
        self._far: End | None = None
        self._said = bytearray()
        self._messages = {way: Messages() for way in Way}
        self.flows: dict[Way, Flow] = {}
        """What is special about this connection."""
        self.silent = proxy.dark

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def reset(self) -> None:
        """Both ends are told at once that the connection is broken (RST)."""
        self.silent = True
        for _, writer in self._ends:
            _reset(writer)

    def vanish(self) -> None:
        """Nothing is delivered any more, whatever is said is taken, nobody is told."""
        self.silent = True

    def half_open(self, gone: Way) -> None:
        """One end is told that the connection is broken, the other knows nothing: UP tells the target, DOWN who connected."""
        self.silent = True
        end = self._far if gone is Way.UP else self._near
        if end is not None:
            _reset(end[1])

    def end(self) -> None:
        """Who connected sees an orderly end; the target does when its flow's ``closing_s`` is over."""
        self._near[1].close()

    def repeat(self) -> None:
        """A second connection to the target says everything that was said on this one so far, and hears what it likes."""
        self._proxy.start(self._repeat(bytes(self._said)))

    async def _repeat(self, said: bytes) -> None:
        try:
            reader, writer = await self._proxy.reach()
        except OSError:
            return
        try:
            writer.write(said)
            while await reader.read(PIECE_BYTES):
                pass
        except OSError:
            pass
        finally:
            writer.transport.abort()

    # ── carrying ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _ends(self) -> list[End]:
        return [end for end in (self._near, self._far) if end is not None]

    async def carry(self) -> None:
        """Until both ends are done."""
        try:
            if self.silent:
                while await self._near[0].read(PIECE_BYTES):
                    pass
                return
            self._far = await self._proxy.reach()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._move(Way.UP, self._near, self._far), name="proxy-up")
                group.create_task(self._move(Way.DOWN, self._far, self._near), name="proxy-down")
        except* OSError:
            self.reset()
        finally:
            for _, writer in self._ends:
                writer.transport.abort()

    async def _move(self, way: Way, source: End, sink: End) -> None:
        pieces: asyncio.Queue[Piece | None] = asyncio.Queue(PIECES)
        loop, due = asyncio.get_running_loop(), 0.0
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deliver(way, pieces, sink[1]), name="proxy-deliver")
            try:
                while data := await source[0].read(PIECE_BYTES):
                    flow = self._flow(way)
                    due = max(due, loop.time() + flow.delay_s + random.uniform(0, flow.jitter_s))
                    for piece, trap in self._cut(way, data):
                        await pieces.put((due, piece, trap))
            except OSError:
                if not self.silent:  # an end that breaks off is heard at the other
                    self.reset()
            await pieces.put(None)

    def _cut(self, way: Way, data: bytes) -> Iterator[tuple[bytes, Trap[Pair] | None]]:
        """What goes on of these bytes, and the traps that spring behind each piece."""
        if way is Way.UP and len(self._said) < REMEMBERED_BYTES:
            self._said += data
        for raw, payload in self._messages[way].frames(data):
            if raw.startswith(b"HTTP/1.1 101 "):
                for messages in self._messages.values():
                    messages.upgraded = True
            traps = () if self.silent else self._proxy.traps
            trap = next((trap for trap in traps if trap.matches(way, payload)), None)
            if trap is not None:
                trap.sprung = True
            yield raw[: len(raw) if trap is None else trap.point.of(len(raw))], trap

    async def _deliver(self, way: Way, pieces: asyncio.Queue[Piece | None], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while (next_one := await pieces.get()) is not None:
            due, data, trap = next_one
            await asyncio.sleep(max(0.0, due - loop.time()))
            while data and not self.silent:
                count = await self._proxy.allowed(self, way, len(data))
                if self._open(writer):
                    writer.write(data[:count])
                    await writer.drain()
                data = data[count:]
            if trap is not None:
                trap.action(self)
                trap.done.set()
        await asyncio.sleep(self._flow(way).closing_s)
        if self._open(writer):
            writer.write_eof()

    def _open(self, writer: asyncio.StreamWriter) -> bool:
        return not self.silent and not writer.transport.is_closing()

    def _flow(self, way: Way) -> Flow:
        return self.flows.get(way) or self._proxy.flows[way]


class Proxy:
    """Listens on a free port of loopback and carries what comes to ``target``, a port of loopback. An async context manager."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.flows = dict.fromkeys(Way, CLEAR)
        self.refusing = False
        """Whoever comes is reset."""
        self.dark = False
        """Whoever comes is accepted, and what it says swallowed."""
        self.traps: list[Trap[Pair]] = []
        self.pairs: list[Pair] = []
        """Living connections, oldest first."""
        self.accepted = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._come, "127.0.0.1", 0, limit=PIECE_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def when(self, way: Way, pattern: bytes, point: Point, action: Callable[[Pair], None]) -> Trap[Pair]:
        """Do this once, at the next frame that contains ``pattern``."""
        trap = Trap(way, pattern, point, action)
        self.traps.append(trap)
        return trap

    def flow(self, *ways: Way, **flow: float) -> None:
        """Let all bytes of these directions (both, if none is named) travel like this from now on."""
        for way in ways or Way:
            self.flows[way] = Flow(**flow)

    def reset(self) -> None:
        """Break every connection."""
        for pair in list(self.pairs):
            pair.reset()

    def refuse(self) -> None:
        """Break every connection, and each that comes."""
        self.refusing = True
        self.reset()

    def blacken(self) -> None:
        """Swallow everything, of those who are here and of those who come."""
        self.dark = True
        for pair in self.pairs:
            pair.vanish()

    def heal(self) -> None:
        """No fault any more. A connection that lost something stays lost: its ends must notice by themselves."""
        self.flows = dict.fromkeys(Way, CLEAR)
        self.dark = self.refusing = False

    # ── for the pairs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Own a task."""
        task = asyncio.create_task(work, name="proxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reach(self) -> End:
        """A connection to the target."""
        return await asyncio.open_connection("127.0.0.1", self.target, limit=PIECE_BYTES)

    async def allowed(self, pair: Pair, way: Way, wanted: int) -> int:
        """How many bytes may be delivered now, after having waited for their turn."""
        while True:
            rate = pair._flow(way).bytes_per_s
            if rate is None:
                return wanted
            if rate > 0:
                count = min(wanted, max(1, int(rate * SLICE_S)))
                await asyncio.sleep(count / rate)
                return count
            await asyncio.sleep(SLICE_S)
            if pair.silent:
                return wanted

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            _reset(writer)
            return
        self.start(self._carry(Pair(self, (reader, writer))))

    async def _carry(self, pair: Pair) -> None:
        self.pairs.append(pair)
        try:
            await pair.carry()
        finally:
            self.pairs.remove(pair)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other end gets an RST instead of an orderly end."""
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
