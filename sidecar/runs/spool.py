"""What an agent printed: on disk within a bound, and live to whoever follows. Standard library only: the shim uses it.

Every line has a number ``n``. The file holds the lines in order until it is full; from then on only the agent's words (its
questions, usage and outcome) are added, within a reserve, and at the end the newest lines and the terminal event. So the
end of the file may be out of order, and a reader sorts by ``n``. A follower gets every line as it happens, full or not.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

CHUNK_BYTES = 65_536
LINE_BYTES = 65_536
"""A longer line of output is spooled in pieces of this size …"""
OBJECT_BYTES = 1 << 20
"""… and one that may be a JSON object, of which a piece is worth nothing, in pieces of this size."""
TAIL_BYTES = 131_072
"""How much of the newest output is kept once the spool is full: the words that end a run are always there."""
RESERVE_BYTES = 1 << 20
"""Room for the agent's words once the spool is full: they survive whatever is printed around them."""
FOLLOWER_BYTES = 4 << 20
"""How far a follower may lag behind a full spool before it loses the oldest lines."""
_WORDS = frozenset({"question", "usage", "outcome"})


class Spool:
    """The event file of one run; raises FileExistsError: a run directory serves one run."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path
        self._file = path.open("xb", buffering=0)
        self._room = limit_bytes
        self._count = 0
        self._full_at: int | None = None
        """How many bytes of the file are in order, once it is full. What follows, followers get from memory."""
        self._recent = Window(TAIL_BYTES)
        self._followers: set[Window] = set()
        self._closed = False
        self._grown = asyncio.Event()

    def add(self, event: dict[str, Any]) -> None:
        """Spool one event; when the file is full, as a word or as the newest of the tail."""
        self._count += 1
        line = _encode({"n": self._count, **event})
        if self._full_at is None:
            if len(line) <= self._room and self._write(line):
                self._room -= len(line)
                self._wake()
                return
            self._full_at = self._file.tell()  # everything after this comes from memory, or lines would swap
        word = _is_word(event)
        if self._recent.add(self._count, line, word=word):
            self._write(line)
        for follower in self._followers:
            follower.add(self._count, line, word=word)
        self._wake()

    def close(self, terminal: dict[str, Any]) -> None:
        """Write the tail and the terminal event, and make the file durable."""
        dropped = self._recent.dropped
        line = _encode({"n": self._count + 1, **terminal, "dropped": dropped})
        if dropped:
            self._write(_encode({"n": self._recent.dropped_to, "dropped": dropped}))
        for tail in self._recent.plain():
            self._write(tail)
        self._write(line)
        for window in (self._recent, *self._followers):
            window.add(self._count + 1, line)
        os.fsync(self._file.fileno())
        self._file.close()
        self._closed = True
        self._wake()

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """Everything from the first line on, then what comes, in chunks that may end inside a line; ends with the spool."""
        window = self._recent.copy(FOLLOWER_BYTES)
        self._followers.add(window)
        try:
            with self._path.open("rb") as file:
                while True:
                    grown, closed, full_at = self._grown, self._closed, self._full_at
                    room = CHUNK_BYTES if full_at is None else min(CHUNK_BYTES, full_at - file.tell())
                    if data := file.read(room):
                        yield data
                    elif full_at is not None:
                        break
                    elif closed:
                        return
                    else:
                        await grown.wait()
            while True:
                grown, closed = self._grown, self._closed
                if data := window.take(CHUNK_BYTES):
                    yield data
                elif closed:
                    return
                else:
                    await grown.wait()
        finally:
            self._followers.discard(window)

    def _write(self, line: bytes) -> bool:
        """Append a whole line or nothing: a full disk costs output, never the agent's life or the line before."""
        at = self._file.tell()
        try:
            if self._file.write(line) == len(line):
                return True
        except OSError:
            pass
        os.ftruncate(self._file.fileno(), at)
        self._file.seek(at)
        return False

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


class Window:
    """The newest lines within a bound, and the agent's words within one of their own, so that no flood pushes them out."""

    def __init__(self, limit_bytes: int) -> None:
        self.dropped = 0
        self.dropped_to = 0
        self._limit_bytes = limit_bytes
        self._lines: deque[tuple[int, bytes]] = deque()
        self._lines_bytes = 0
        self._words: deque[tuple[int, bytes]] = deque()
        self._words_bytes = 0

    def copy(self, limit_bytes: int) -> Window:
        """The same lines in a window of another size."""
        copy = Window(limit_bytes)
        copy.dropped, copy.dropped_to = self.dropped, self.dropped_to
        copy._lines, copy._lines_bytes = self._lines.copy(), self._lines_bytes
        copy._words, copy._words_bytes = self._words.copy(), self._words_bytes
        return copy

    def add(self, n: int, line: bytes, *, word: bool = False) -> bool:
        """Keep a line, at the cost of the oldest but never of the newest; says whether it was kept as a word."""
        if word and self._words_bytes + len(line) <= RESERVE_BYTES:
            self._words.append((n, line))
            self._words_bytes += len(line)
            return True
        self._lines.append((n, line))
        self._lines_bytes += len(line)
        while self._lines_bytes > self._limit_bytes and len(self._lines) > 1:
            self.dropped_to, oldest = self._lines.popleft()
            self._lines_bytes -= len(oldest)
            self.dropped += 1
        return False

    def plain(self) -> list[bytes]:
        """The lines that are not words, oldest first."""
        return [line for _, line in self._lines]

    def take(self, about_bytes: int) -> bytes:
        """Remove the oldest lines, at least one and until they are this long; what was dropped before is told first."""
        taken = bytearray()
        while (self._lines or self._words) and len(taken) < about_bytes:
            if not self._lines or (self._words and self._words[0][0] < self._lines[0][0]):
                line = self._words.popleft()[1]
                self._words_bytes -= len(line)
            else:
                if self.dropped:
                    taken += _encode({"n": self.dropped_to, "dropped": self.dropped})
                    self.dropped = 0
                line = self._lines.popleft()[1]
                self._lines_bytes -= len(line)
            taken += line
        return bytes(taken)


class Lines(asyncio.Protocol):
    """Cuts a pipe's bytes into lines and hands each on; ``ended`` is set at end of file."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Hand on every whole line, and pieces of one that grows too long."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._emit(line)
        while len(self._rest) > (size := _piece_bytes(self._rest)):
            self._emit(self._rest[:size])
            self._rest = self._rest[size:]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """Hand on what came without a newline."""
        if self._rest:
            self._emit(self._rest)
            self._rest = b""
        self.ended.set()

    def _emit(self, line: bytes) -> None:
        size = _piece_bytes(line)
        for at in range(0, len(line) or 1, size):
            self._take(line[at : at + size].decode(errors="replace"))


def _piece_bytes(line: bytes) -> int:
    return OBJECT_BYTES if line[:64].lstrip().startswith(b"{") else LINE_BYTES


def _is_word(event: dict[str, Any]) -> bool:
    """Whether the event must outlive a flood: what the agent was given, asks, used, or says about its outcome."""
    text = event.get("out", "")
    if not text.lstrip().startswith("{"):
        return "sent" in event
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and not _WORDS.isdisjoint(said)


def _encode(event: dict[str, Any]) -> bytes:
    # Not escaped to ASCII: a bound in bytes is then one of what the agent printed.
    return json.dumps(event, ensure_ascii=False).encode(errors="replace") + b"\n"
