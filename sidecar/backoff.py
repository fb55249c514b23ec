"""When to connect again, and when never to (protocol §6, §9). Pure: time and randomness come in.

A window opens for each attempt, twice as long as the one before; the attempt falls somewhere in it, and the next window
opens when it is over. So after a hub restart the attempts of a large fleet are spread evenly, however fast each fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hub.wire.codes import Close, is_terminal

FIRST_S = 5.0
DOUBLINGS = 6
HOLDING_WINDOW_S = 8.0
"""Longest window while the hub waits for something from here: a lease must not run out because of politeness."""
STABLE_S = 60.0
"""A connection that lasted this long proves that nothing is wrong."""
DENIED_S = 600.0
"""How long a token may be refused before this is final: rotation and a restored hub take their time."""
SUPERSEDED_S = 30.0
SUPERSEDED_SPAN_S = 300.0
SUPERSEDED_LIMIT = 3


class Refused(Exception):
    """The hub does not want this agent: connecting again is pointless until a person acts. ``code`` is a close code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt or a connection ended; ``after_s`` is a wait the hub asked for."""

    code: int | None = None
    http_status: int | None = None
    reason: str = ""
    after_s: float | None = None


class Reconnect:
    """The attempts of one agent. Times are seconds on any clock that does not jump."""

    def __init__(self, random: Random, *, first_s: float = FIRST_S) -> None:
        self._random = random
        self._first_s = first_s
        self._failures = 0
        self._window_end_s = 0.0
        self._welcomed_s: float | None = None
        self._denied_since_s: float | None = None
        self._superseded_s: list[float] = []

    def welcomed(self, now_s: float) -> None:
        """The hub said welcome: the token is good."""
        self._welcomed_s, self._denied_since_s = now_s, None

    def ended(self, ending: Ending, now_s: float, *, holding: bool) -> float:
        """Seconds to wait before the next attempt; raises :class:`Refused`. ``holding``: the hub waits for us."""
        code = _close_code(ending)
        if code == Close.UNAUTHENTICATED:
            self._denied(ending, now_s)
        elif is_terminal(code):
            raise Refused(code or 0, f"the hub closed with {code}: {ending.reason}")
        least_s = ending.after_s or 0.0
        if code == Close.SUPERSEDED:
            self._superseded(now_s)
            least_s = max(least_s, SUPERSEDED_S)
        stable = self._welcomed_s is not None and now_s - self._welcomed_s >= STABLE_S
        first = stable or (self._failures == 0)
        self._welcomed_s = None
        self._failures = 1 if stable else self._failures + 1
        if first:
            window_s = self._first_s
            self._window_end_s = now_s
        else:
            window_s = float(1 << min(self._failures - 2, DOUBLINGS))
        if holding:
            window_s = min(window_s, HOLDING_WINDOW_S)
        opens_s = max(now_s + least_s, self._window_end_s)
        self._window_end_s = opens_s + window_s
        return opens_s + self._random.uniform(0, window_s) - now_s

    def _denied(self, ending: Ending, now_s: float) -> None:
        if self._denied_since_s is None:
            self._denied_since_s = now_s
        if now_s - self._denied_since_s >= DENIED_S:
            raise Refused(Close.UNAUTHENTICATED, f"the hub has refused the token for 10 minutes: {ending.reason}")

    def _superseded(self, now_s: float) -> None:
        recent = [at for at in self._superseded_s if now_s - at < SUPERSEDED_SPAN_S]
        self._superseded_s = [*recent, now_s]
        if len(self._superseded_s) >= SUPERSEDED_LIMIT:
            raise Refused(
                Close.FLAPPING,
                "another process connects under this agent's name again and again: stop that, or give one of them an id of its own",
            )


def _close_code(ending: Ending) -> int | None:
    match ending.http_status:
        case 401 | 403:
            # a proxy may say 403, too: like a refused token it is final only when it lasts
            return Close.UNAUTHENTICATED
        case 426:
            return Close.VERSION
        case _:
            return ending.code
