"""The rhythm of one connection after another: hello, welcome, beats, and when silence means that it is dead. Pure."""

from __future__ import annotations

from collections import deque

from hub.ids import SessionEpoch
from hub.wire.frames import Limits, Welcome

_MS = 1000  # microseconds
_BEATS = 256  # beats without an answer; the connection is dropped long before


class Session:
    """What is true of the current connection. ``epoch`` is None until the hub said ``welcome``.

    ``hello_us`` is when the current hello was sent: every verdict and every spontaneous ``accepted`` answers a state the
    hub knew after that, so leases may be counted from it.
    """

    def __init__(self) -> None:
        self.epoch: SessionEpoch | None = None
        self.limits = Limits()
        self.lease_ms = 0
        self.hello_us = 0
        self.beat_due_us = 0
        self._beat_us = 0
        self._connected = False
        self._beats: deque[int] = deque(maxlen=_BEATS)

    @property
    def ready(self) -> bool:
        """Whether frames other than hello may be sent."""
        return self.epoch is not None

    @property
    def answer_us(self) -> int:
        """How long an answer may take."""
        return self.limits.resend_ms * _MS

    @property
    def silence_us(self) -> int | None:
        """When the connection is to be given up; None when nothing is awaited."""
        if not self._connected:
            return None
        if not self.ready:
            return self.hello_us + self.answer_us
        return self._beats[0] + self.answer_us if self._beats else None

    @property
    def due_us(self) -> int | None:
        """When something is due on this connection."""
        if not self.ready:
            return self.silence_us
        return min(self.beat_due_us, self.silence_us or self.beat_due_us)

    def greet(self, now_us: int) -> None:
        """A new connection, on which hello is being sent."""
        self.close()
        self._connected, self.hello_us = True, now_us

    def welcome(self, frame: Welcome, now_us: int) -> bool:
        """The hub's numbers; False if this is not the answer to our hello."""
        if not self._connected or self.ready:
            return False
        self.epoch = frame.session_epoch
        self.limits = frame.limits
        self.lease_ms = frame.lease_ms
        self._beat_us = max(frame.beat_ms, 1) * _MS
        self.beat_due_us = now_us + self._beat_us
        return True

    def close(self) -> None:
        """The connection is gone."""
        self.epoch = None
        self._connected = False
        self._beats.clear()

    def beat(self, now_us: int) -> None:
        """A beat is being sent."""
        self._beats.append(now_us)
        self.beat_due_us = now_us + self._beat_us

    def beaten(self, sent_us: int) -> bool:
        """The beat sent at ``sent_us`` is answered, and with it all earlier ones; False if no such answer is awaited."""
        if sent_us not in self._beats:
            return False
        while self._beats and self._beats[0] <= sent_us:
            self._beats.popleft()
        return True
