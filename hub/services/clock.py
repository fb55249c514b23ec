"""The hub's clocks: UTC for people, and a monotonic one that stands still while the hub could not have served anybody.

Leases run on the monotonic clock. If the event loop stalls, the process is stopped or the disk hangs, that time is not counted against
any sidecar: deadlines move by the length of the stall (protocol §4.7).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from hub.core.commands import Stamp

STALL_US = 1_000_000
"""A gap between two looks at the clock longer than this is a stall; the pulse looks twice in that time."""


class SteadyClock:
    """Monotonic microseconds without stalls. Ask often: the pulse task guarantees that it is asked twice a second."""

    def __init__(
        self,
        raw: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
        on_lag: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._raw = raw
        self._on_lag = on_lag
        self._last = raw()
        self._lost = 0
        self._waiting_since: int | None = None

    def mono(self) -> int:
        """Microseconds, never going back; frozen while a commit takes longer than the stall bound."""
        now = self._raw()
        gap, self._last = now - self._last, now
        if gap > STALL_US:
            self._lost += gap + self._hanging(now - gap)
            if self._waiting_since is not None:
                self._waiting_since = now
        return now - self._lost - self._hanging(now)

    def wait_begins(self) -> None:
        """A commit is under way."""
        self.mono()
        self._waiting_since = self._last

    def wait_ends(self) -> None:
        """The commit is over; what it took beyond the bound was a stall."""
        self.mono()
        self._lost += self._hanging(self._last)
        self._waiting_since = None

    def _hanging(self, now: int) -> int:
        return max(0, now - self._waiting_since - STALL_US) if self._waiting_since is not None else 0

    async def pulse(self) -> None:
        """Look at the clock twice a stall bound, for ever, and tell how late that was, in seconds."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + STALL_US / 2_000_000
            await asyncio.sleep(STALL_US / 2_000_000)
            self.mono()
            self._on_lag(loop.time() - due)

    def stamp(self) -> Stamp:
        """The moment and a jitter, for one command."""
        return Stamp(self.mono(), time.time_ns() // 1000, random.random())  # noqa: S311  spreads retries, protects nothing
