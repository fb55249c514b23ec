"""Long work on the store in short steps, on one task that owns it: it is asked for, rests between its steps, and can be stopped.

A step holds the writer no longer than a group of commands does; after it whoever waits is served for a multiple of that time. Errands
wait for one another. One that fails is told and over: whoever asked for it asks again, and it goes on where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from hub.core.errors import HubError
from hub.store.base import StoreBroken

REST = 3.0
"""After a step, this many times what it took: an errand has at most a quarter of the writer."""
REST_AT_LEAST_S = 0.002

log = structlog.get_logger("errands")


@dataclass(frozen=True, slots=True)
class Errand:
    """``steps`` does the work, a step each time it is asked for the next one, and says for how long (in seconds) that held the writer."""

    name: str
    steps: Callable[[], AsyncGenerator[float, None]]


@dataclass(slots=True)
class Round:
    """The last time an errand was run: moments in seconds since 1970, steps, and the longest hold of the writer in seconds."""

    asked_at: float
    started_at: float | None = None
    ended_at: float | None = None
    steps: int = 0
    longest_s: float = 0.0
    stopped: bool = False
    error: str = ""

    @property
    def running(self) -> bool:
        """Asked for, and not over."""
        return self.ended_at is None


class Errands:
    """Owns them. ``told`` hears of each step: (name, seconds)."""

    def __init__(
        self,
        errands: Sequence[Errand],
        told: Callable[[str, float], None] = lambda _name, _seconds: None,
        *,
        rest: float = REST,
    ) -> None:
        self._errands = {errand.name: errand for errand in errands}
        self._rounds: dict[str, Round] = {}
        self._asked: asyncio.Queue[tuple[str, Round]] = asyncio.Queue()
        self._told = told
        self._rest = rest
        self._stop = asyncio.Event()

    @property
    def rounds(self) -> Mapping[str, Round]:
        """The last round of each that was ever asked for."""
        return self._rounds

    def ask(self, name: str) -> Round:
        """Have it done; while it runs or waits for its turn, asking again is nothing, unless it was stopped: then it is done anew."""
        found = self._rounds.get(name)
        if found is None or not found.running or found.stopped:
            found = self._rounds[name] = Round(time.time())
            self._asked.put_nowait((name, found))
        return found

    def stop(self, name: str) -> Round | None:
        """End it after its present step, or before its first; None if it was never asked for."""
        found = self._rounds.get(name)
        if found is not None and found.running:
            found.stopped = True
            self._stop.set()
        return found

    async def run(self) -> None:
        """Run what is asked for, one at a time, until cancelled; raises StoreBroken, and whatever is a defect."""
        while True:
            name, asked = await self._asked.get()
            await self._run(self._errands[name], asked)

    async def _run(self, errand: Errand, now: Round) -> None:
        now.started_at = time.time()
        try:
            async with aclosing(errand.steps()) as steps:
                while not now.stopped and (held_s := await anext(steps, None)) is not None:
                    now.steps += 1
                    now.longest_s = max(now.longest_s, held_s)
                    self._told(errand.name, held_s)
                    await self._pause(max(REST_AT_LEAST_S, held_s * self._rest))
        except StoreBroken:
            raise
        except (HubError, OSError) as fault:
            now.error = str(fault)
            log.warning("errand_failed", errand=errand.name, code=getattr(fault, "code", "os_error"), said=now.error)
        finally:
            now.ended_at = time.time()

    async def _pause(self, seconds: float) -> None:
        """Rest, unless somebody stops it."""
        self._stop.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return


class Pace:
    """How much one step takes on: so much that it holds the writer about as long as a group of commands does, found by trying."""

    def __init__(self, typical_s: Callable[[], float], *, least: int, most: int) -> None:
        self.size = least
        self._typical_s = typical_s
        self._least = least
        self._most = most

    def took(self, seconds: float) -> None:
        """A full step of the present size took so long."""
        allowed = self._typical_s()
        if seconds > allowed:
            self.size = max(self._least, self.size // 2)
        elif seconds < allowed / 2:
            self.size = min(self._most, self.size * 2)
