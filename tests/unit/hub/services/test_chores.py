"""Periodic work: each in its turn, one at a time, and one that fails stops nothing but itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hub.core.errors import StoreFull
from hub.services.chores import Chore, Chores
from hub.store.base import StoreBroken


class Hours:
    """A clock that moves only when somebody sleeps; at ``end`` the sleeper is cancelled, as at a drain."""

    def __init__(self, end: float) -> None:
        self.now = 0.0
        self._end = end

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if self.now + seconds > self._end:
            raise asyncio.CancelledError
        self.now += seconds


async def pass_time(chores: Callable[[Hours], Chores], until: float) -> Chores:
    hours = Hours(until)
    made = chores(hours)
    with pytest.raises(asyncio.CancelledError):
        await made.run()
    return made


def noting(seen: list[tuple[str, float]], name: str, hours: Hours, takes: float = 0.0) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        seen.append((name, hours.now))
        hours.now += takes

    return run


async def test_each_runs_first_after_its_period_and_again_a_period_after_its_end() -> None:
    seen: list[tuple[str, float]] = []

    def make(hours: Hours) -> Chores:
        rare, often = noting(seen, "rare", hours, takes=7), noting(seen, "often", hours)
        return Chores([Chore("rare", 20, rare), Chore("often", 10, often)], clock=hours.clock, sleep=hours.sleep)

    await pass_time(make, until=50)
    assert seen == [("often", 10), ("rare", 20), ("often", 27), ("often", 37), ("rare", 47), ("often", 54)]


async def test_a_failing_chore_is_told_and_tried_again_and_hinders_no_other() -> None:
    seen: list[tuple[str, float]] = []
    told: list[tuple[str, bool]] = []

    async def fail() -> None:
        seen.append(("bad", 0))
        raise StoreFull("the disk is full")

    def make(hours: Hours) -> Chores:
        good = noting(seen, "good", hours)
        return Chores(
            [Chore("bad", 10, fail), Chore("good", 10, good)],
            lambda name, _seconds, done: told.append((name, done)),
            clock=hours.clock,
            sleep=hours.sleep,
        )

    chores = await pass_time(make, until=25)
    assert [name for name, _ in seen] == ["bad", "good", "bad", "good"]
    assert told == [("bad", False), ("good", True)] * 2
    assert chores.accounts["bad"].failing == 2
    assert chores.accounts["good"].failing == 0
    (finding,) = await chores.examine()
    assert (finding.check, finding.state) == ("chore bad", "warn")
    assert "2 times in a row: the disk is full" in finding.found


async def test_one_success_ends_a_row_of_failures() -> None:
    turns = iter([OSError(13, "Permission denied"), None])

    async def run() -> None:
        if (fault := next(turns)) is not None:
            raise fault

    chores = await pass_time(lambda hours: Chores([Chore("c", 10, run)], clock=hours.clock, sleep=hours.sleep), until=20)
    assert (chores.accounts["c"].runs, chores.accounts["c"].failing, chores.accounts["c"].error) == (2, 0, "")
    assert [(one.check, one.state) for one in await chores.examine()] == [("chores", "ok")]


async def test_a_lengthy_chore_keeps_no_other_waiting() -> None:
    seen: list[str] = []

    async def endless() -> None:
        seen.append("endless")
        await asyncio.Event().wait()

    async def often() -> None:
        seen.append("often")
        if len(seen) > 4:
            raise ZeroDivisionError

    hours = Hours(1000)

    async def sleep(seconds: float) -> None:
        await hours.sleep(seconds)
        await asyncio.sleep(0)

    chores = [Chore("endless", 1, endless, lengthy=True), Chore("often", 10, often)]
    async with asyncio.timeout(10):
        with pytest.raises(ZeroDivisionError):
            await Chores(chores, clock=hours.clock, sleep=sleep).run()
    assert seen.count("endless") == 1


@pytest.mark.parametrize("fault", [StoreBroken("I/O error"), ZeroDivisionError()])
async def test_a_broken_store_and_a_defect_end_the_hub(fault: Exception) -> None:
    async def run() -> None:
        raise fault

    hours = Hours(100)
    with pytest.raises(type(fault)):
        await Chores([Chore("c", 10, run)], clock=hours.clock, sleep=hours.sleep).run()


def test_names_are_unique() -> None:
    async def nothing() -> None: ...

    with pytest.raises(ValueError, match="one name"):
        Chores([Chore("c", 1, nothing), Chore("c", 2, nothing)])
