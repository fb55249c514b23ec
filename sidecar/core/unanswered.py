"""Frames that wait for their answer and are sent again until it comes. Pure.

A frame is known by its slot, what it is about, so that a new one for the same slot replaces the old. Each sending gets
an id of its own and remembers when it happened: an answer extends a lease only from the sending it answers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

from hub.ids import SessionEpoch
from hub.wire.frames import FromSidecar
from sidecar.core.records import Key

RESULT_CEILING_US = 60_000_000
"""Results are sent again for ever, at most this far apart."""
_IDS = 512  # sendings whose answer may still come; older ones are answered by a later sending's answer


class Slot(NamedTuple):
    """What a frame is about; unique among the unanswered."""

    kind: str
    key: Key | None = None
    qid: str = ""


@dataclass(slots=True)
class _Waiting:
    frame: FromSidecar
    due_us: int
    every_us: int
    ceiling_us: int


class Unanswered:
    """The frames in flight of one agent."""

    def __init__(self) -> None:
        self._waiting: dict[Slot, _Waiting] = {}
        self._sendings: OrderedDict[int, tuple[Slot, int]] = OrderedDict()
        self._last_id = 0

    def __contains__(self, slot: Slot) -> bool:
        return slot in self._waiting

    @property
    def due_us(self) -> int | None:
        """When the next frame is to be sent (again)."""
        return min((waiting.due_us for waiting in self._waiting.values()), default=None)

    def put(self, slot: Slot, frame: FromSidecar, *, every_us: int, ceiling_us: int | None = None) -> None:
        """Send this until :meth:`settle`; due at once. The interval doubles up to the ceiling, by default it does not."""
        self._waiting[slot] = _Waiting(frame, 0, every_us, ceiling_us or every_us)

    def postpone(self, slot: Slot, now_us: int) -> None:
        """The answer is on its way: wait a whole interval before sending again."""
        if (waiting := self._waiting.get(slot)) is not None:
            waiting.due_us = now_us + waiting.every_us

    def hurry(self, slot: Slot) -> None:
        """The other side asks for it: send it now."""
        if (waiting := self._waiting.get(slot)) is not None:
            waiting.due_us = 0

    def settle(self, slot: Slot) -> None:
        """Answered, or pointless now."""
        self._waiting.pop(slot, None)

    def settle_all(self, key: Key) -> None:
        """Nothing about this assignment is sent any more."""
        for slot in [slot for slot in self._waiting if slot.key == key]:
            del self._waiting[slot]

    def take_due(self, now_us: int, session: SessionEpoch | None) -> list[FromSidecar]:
        """What is to be sent now, each stamped with a fresh id and the session."""
        frames = []
        for slot, waiting in self._waiting.items():
            if waiting.due_us <= now_us:
                frames.append(self.stamp(slot, waiting.frame, now_us, session))
                waiting.due_us = now_us + waiting.every_us
                waiting.every_us = min(waiting.ceiling_us, waiting.every_us * 2)
        return frames

    def stamp(self, slot: Slot, frame: FromSidecar, now_us: int, session: SessionEpoch | None) -> FromSidecar:
        """The frame with a fresh id; the sending is remembered."""
        self._last_id += 1
        self._sendings[self._last_id] = (slot, now_us)
        if len(self._sendings) > _IDS:
            self._sendings.popitem(last=False)
        return replace(frame, id=self._last_id, e=session)

    def sending(self, re: int | None) -> tuple[Slot, int] | None:
        """Which sending the id names, and when it happened; None for one of an earlier connection."""
        return None if re is None else self._sendings.get(re)

    def restart(self) -> None:
        """A new session: no answer to an earlier sending can come, and everything is due again."""
        self._sendings.clear()
        for waiting in self._waiting.values():
            waiting.due_us = 0
