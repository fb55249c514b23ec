"""Committed events as they happen: a bounded ring for observers, and wake-ups for the services that act on them.

Nothing waits for an observer: a slow one is dropped from the ring and resumes from the rows by its last seq.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from hub.core.rows import EventRow

RING_EVENTS = 8192
OBSERVER_EVENTS = 2048
"""Events an observer may lag behind before it is dropped."""
OBSERVERS = 256
"""Observers at once."""

Numbered = tuple[int, EventRow]


class TooManyObservers(RuntimeError):
    """The bound on observers is reached."""


class Stream:
    """One observer's place in the ring."""

    def __init__(self, first: int, backlog: Sequence[Numbered]) -> None:
        self.first = first
        self._queue: asyncio.Queue[Numbered | None] = asyncio.Queue()
        for event in backlog:
            self._queue.put_nowait(event)

    def offer(self, event: Numbered) -> bool:
        """Take an event; False when this observer has fallen too far behind and its stream has ended."""
        if self._queue.qsize() >= OBSERVER_EVENTS + RING_EVENTS:
            self.end()
            return False
        self._queue.put_nowait(event)
        return True

    def end(self) -> None:
        """No more events follow."""
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Numbered]:
        """Events in order of seq, without a gap, until the stream ends."""
        while (event := await self._queue.get()) is not None:
            yield event


class Feed:
    """The live end of the event table."""

    def __init__(self, epoch: str, last_seq: int) -> None:
        self.epoch = epoch
        self.last_seq = last_seq
        self._ring: deque[Numbered] = deque(maxlen=RING_EVENTS)
        self._streams: set[Stream] = set()
        self._listeners: list[Callable[[Sequence[Numbered]], None]] = []
        self._closed = False

    def publish(self, events: Sequence[Numbered]) -> None:
        """Called by the conductor after each commit, in order."""
        if not events:
            return
        self.last_seq = events[-1][0]
        self._ring.extend(events)
        for stream in list(self._streams):
            if not all(stream.offer(event) for event in events):
                self._streams.discard(stream)
        for listener in self._listeners:
            listener(events)

    @property
    def observers(self) -> int:
        """Streams that are read live."""
        return len(self._streams)

    @asynccontextmanager
    async def subscribe(self, after: int | None) -> AsyncIterator[Stream]:
        """Join the ring after this seq (None: from now on). Events before ``stream.first`` must be read from the rows."""
        with self._joined(self.last_seq if after is None else after) as stream:
            yield stream

    @contextmanager
    def _joined(self, after: int) -> Iterator[Stream]:
        if len(self._streams) >= OBSERVERS:
            raise TooManyObservers(f"{OBSERVERS} observers are connected")
        oldest = self._ring[0][0] if self._ring else self.last_seq + 1
        stream = Stream(max(after + 1, oldest), [event for event in self._ring if event[0] > after])
        self._streams.add(stream)
        if self._closed:
            stream.end()
        try:
            yield stream
        finally:
            self._streams.discard(stream)

    def listen(self, listener: Callable[[Sequence[Numbered]], None]) -> None:
        """Call ``listener`` with every published batch; it must be quick and must not raise."""
        self._listeners.append(listener)

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        for stream in self._streams:
            stream.end()
