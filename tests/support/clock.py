"""A clock that stands still until it is told otherwise."""

from __future__ import annotations

from hub.core.commands import Stamp
from hub.ids import SECOND

WALL = 1_800_000_000 * SECOND
"""2027-01-15T08:00:00Z in microseconds."""


class Clock:
    """Monotonic and UTC microseconds; ``jitter`` is what every stamp carries."""

    def __init__(self, mono: int = 1_000 * SECOND, wall: int = WALL, jitter: float = 0.5) -> None:
        self.mono = mono
        self.wall = wall
        self.jitter = jitter

    def advance(self, seconds: float) -> None:
        """Time passes on both clocks."""
        self.mono += int(seconds * SECOND)
        self.wall += int(seconds * SECOND)

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.wall += int(seconds * SECOND)

    def stamp(self) -> Stamp:
        return Stamp(self.mono, self.wall, self.jitter)
