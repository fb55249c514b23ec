"""What passes through a proxy in one direction, as frames, and what is to happen at one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, TypeVar

P = TypeVar("P")


class Way(Enum):
    """A direction, seen from who connected."""

    UP = auto()
    DOWN = auto()


class Point(Enum):
    """When something happens to a frame."""

    BEFORE = auto()
    """It is lost."""
    AMID = auto()
    """Half of its bytes arrive."""
    AFTER = auto()
    """It arrived."""

    def of(self, length: int) -> int:
        """How many of a frame's bytes are let through."""
        return {Point.BEFORE: 0, Point.AMID: max(1, length // 2), Point.AFTER: length}[self]


@dataclass(eq=False)
class Trap(Generic[P]):
    """Something that happens once, at a frame. ``done`` is set when it has."""

    way: Way
    pattern: bytes
    point: Point
    action: Callable[[P], None]
    sprung: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def matches(self, way: Way, frame: bytes) -> bool:
        """Whether this is the frame."""
        return self.way is way and not self.sprung and self.pattern in frame


class Messages:
    """One direction's bytes as frames: (raw bytes, payload). Until it is upgraded, each piece that arrives is one."""

    def __init__(self) -> None:
        self.upgraded = False
        self._rest = b""

    def frames(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Every whole frame, now that these bytes are here; what is left is kept for the next."""
        if not self.upgraded:
            yield data, data
            return
        self._rest += data
        while (found := self._first()) is not None:
            raw, payload = found
            self._rest = self._rest[len(raw) :]
            yield raw, payload

    def _first(self) -> tuple[bytes, bytes] | None:
        """RFC 6455 §5.2."""
        rest = self._rest
        if len(rest) < 2:
            return None
        length, at = rest[1] & 0x7F, 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(rest[2 : 2 + size]), 2 + size
        mask = rest[at : at + 4] if rest[1] & 0x80 else b""
        at += len(mask)
        if len(rest) < at + length or (rest[1] & 0x80 and len(mask) < 4):
            return None
        payload = rest[at : at + length]
        if mask:
            key = (mask * (length // 4 + 1))[:length]
            payload = (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(length)
        return rest[: at + length], payload
