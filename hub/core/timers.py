"""Deadlines as data: one heap per clock, lazily cleaned. The scheduler's own next deadline is what wakes the hub; nothing polls.

Leases and grace periods run on the monotonic clock, what people write (``not_before``, ``deadline``) on UTC. A handler re-checks its
condition when it fires and re-arms itself if the deadline has moved, so extending a lease costs no heap operation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heapify, heappop, heappush

from hub.core.commands import Stamp


class Timer(StrEnum):
    """What is due. Each kind has one handler and runs on one clock."""

    ACCEPT = "accept"
    LEASE = "lease"
    AVOID = "avoid"
    REST = "rest"
    TOMBSTONE = "tombstone"
    OFFLINE = "offline"
    DECLINE = "decline"
    NOT_BEFORE = "not_before"
    DEADLINE = "deadline"
    QUEUE_TTL = "queue_ttl"
    QUARANTINE = "quarantine"
    SETTLED = "settled"


WALL = frozenset({Timer.NOT_BEFORE, Timer.DEADLINE, Timer.QUEUE_TTL, Timer.QUARANTINE})
SLACK = 1024
"""Dead entries the heaps may hold beyond as many as the living ones."""
Key = int | str
Entry = tuple[int, Timer, str, Key]
"""(due, kind, key as text, key); the text is there only to order equal deadlines of tasks and agents deterministically."""


@dataclass(slots=True)
class Timers:
    """At most one live entry per (kind, key); arming earlier replaces, arming later is left to the handler."""

    mono: list[Entry] = field(default_factory=list)
    wall: list[Entry] = field(default_factory=list)
    armed: dict[tuple[Timer, Key], int] = field(default_factory=dict)

    def arm(self, kind: Timer, key: Key, due: int) -> None:
        """Make ``kind`` fire for ``key`` no later than ``due`` on its clock."""
        present = self.armed.get((kind, key))
        if present is not None and present <= due:
            return
        self.armed[kind, key] = due
        heappush(self.wall if kind in WALL else self.mono, (due, kind, str(key), key))

    def disarm(self, kind: Timer, key: Key) -> None:
        """Forget it; the heap entry dies when it surfaces, or when the dead ones outnumber the living."""
        if self.armed.pop((kind, key), None) is None:
            return
        if len(self.mono) + len(self.wall) > 2 * len(self.armed) + SLACK:
            for heap in (self.mono, self.wall):
                heap[:] = [entry for entry in heap if self._living(entry)]
                heapify(heap)

    def pop_due(self, stamp: Stamp) -> tuple[Timer, Key] | None:
        """The next due timer, or None."""
        for heap, now in ((self.mono, stamp.mono), (self.wall, stamp.wall)):
            while heap and heap[0][0] <= now:
                entry = heappop(heap)
                if self._living(entry):
                    kind, key = entry[1], entry[3]
                    del self.armed[kind, key]
                    return kind, key
        return None

    def next_mono(self, stamp: Stamp) -> int | None:
        """When, on the monotonic clock, something is due next; None if nothing is armed."""
        dues: list[int] = []
        for heap in (self.mono, self.wall):
            while heap and not self._living(heap[0]):
                heappop(heap)
        if self.mono:
            dues.append(self.mono[0][0])
        if self.wall:
            dues.append(stamp.mono + max(0, self.wall[0][0] - stamp.wall))
        return min(dues) if dues else None

    def _living(self, entry: Entry) -> bool:
        return self.armed.get((entry[1], entry[3])) == entry[0]
