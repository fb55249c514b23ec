"""The periodic work of a living hub, on one task that owns it: nothing here is ever on the way of a command.

A chore says how often it runs, and keeps its own account of anything that is rarer than a hub lives: a first run comes one period after
the start. They run one at a time, but for the lengthy ones, which run one at a time beside the others: a look at the whole store takes
minutes, and its disk and its log are minded meanwhile. One that fails is counted, told and tried again in its turn; a broken store ends
the hub, as ever.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from hub.core.errors import HubError
from hub.store.base import StoreBroken
from hub.wire.finding import Finding, ok, warn

log = structlog.get_logger("chores")


@dataclass(frozen=True, slots=True)
class Chore:
    """``run`` every ``every_s`` seconds, counted from the end of the run before. It raises HubError or OSError to fail.

    A ``lengthy`` one may take its time: no other waits for it but the lengthy ones.
    """

    name: str
    every_s: float
    run: Callable[[], Awaitable[None]]
    lengthy: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """How a chore fared in this process: runs that ended, when the last did (seconds since 1970), how long it took, and its error.

    ``failing`` counts the failures in a row up to now; ``error`` is empty when that is 0.
    """

    runs: int = 0
    ended_at: float | None = None
    took_s: float = 0.0
    failing: int = 0
    error: str = ""


class Chores:
    """Owns the periodic work. ``told`` hears each run: (name, seconds, whether it succeeded)."""

    def __init__(
        self,
        chores: Sequence[Chore],
        told: Callable[[str, float, bool], None] = lambda _name, _seconds, _done: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Raises ValueError for two chores of one name."""
        self._chores = {chore.name: chore for chore in chores}
        if len(self._chores) != len(chores):
            raise ValueError("two chores have one name")
        self._accounts = dict.fromkeys(self._chores, Account())
        self._told = told
        self._clock = clock
        self._sleep = sleep

    @property
    def accounts(self) -> Mapping[str, Account]:
        """How each fared so far, by name."""
        return self._accounts

    async def run(self) -> None:
        """Run what is due until cancelled; raises StoreBroken, and whatever is a defect."""
        lanes = [[chore for chore in self._chores.values() if chore.lengthy is lengthy] for lengthy in (False, True)]
        running = [asyncio.create_task(self._in_turn(lane)) for lane in lanes if lane]
        try:
            await asyncio.gather(*running)
        finally:
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _in_turn(self, chores: Sequence[Chore]) -> None:
        began = self._clock()
        due = [(began + chore.every_s, i, chore) for i, chore in enumerate(chores)]
        heapq.heapify(due)
        while due:
            at, i, chore = due[0]
            if (wait := at - self._clock()) > 0:
                await self._sleep(wait)
                continue
            await self._run(chore)
            heapq.heapreplace(due, (self._clock() + chore.every_s, i, chore))

    async def _run(self, chore: Chore) -> None:
        before, began = self._accounts[chore.name], self._clock()
        failing, error = 0, ""
        try:
            await chore.run()
        except StoreBroken:
            raise
        except (HubError, OSError) as fault:
            failing, error = before.failing + 1, str(fault)
            code = getattr(fault, "code", "os_error")
            log.warning("chore_failed", chore=chore.name, code=code, said=error, in_a_row=failing, again_in_s=chore.every_s)
        took = self._clock() - began
        self._accounts[chore.name] = replace(
            before, runs=before.runs + 1, ended_at=time.time(), took_s=took, failing=failing, error=error
        )
        self._told(chore.name, took, not failing)

    async def examine(self) -> list[Finding]:
        """What the doctor says of them: one finding, or one for each that fails."""
        failing = [(name, account) for name, account in self._accounts.items() if account.failing]
        if not failing:
            return [ok("chores", f"{len(self._accounts)} of them, none failing: {', '.join(self._accounts)}")]
        return [
            warn(
                f"chore {name}",
                f"failed {account.failing} times in a row: {account.error}",
                "see the hub's log; it goes on trying",
            )
            for name, account in failing
        ]
