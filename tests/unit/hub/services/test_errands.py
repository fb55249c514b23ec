"""Long work in short steps: one at a time, with rests, stopped between two steps, and a failure is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hub.core.errors import StoreFull
from hub.services.errands import Errand, Errands, Pace, Round
from hub.store.base import StoreBroken


@asynccontextmanager
async def running(*errands: Errand, rest: float = 0.0) -> Any:
    owner = Errands(errands, rest=rest)
    task = asyncio.create_task(owner.run())
    try:
        yield owner
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def over(found: Round) -> Round:
    async with asyncio.timeout(10):
        while found.running:
            await asyncio.sleep(0.001)
    return found


def counting(name: str, steps: int, seen: list[str]) -> Errand:
    async def work() -> AsyncGenerator[float, None]:
        for i in range(steps):
            seen.append(f"{name}{i}")
            yield i / 1000

    return Errand(name, work)


async def test_one_waits_for_the_other_and_asking_twice_is_once() -> None:
    seen: list[str] = []
    async with running(counting("a", 3, seen), counting("b", 2, seen)) as owner:
        a, b = owner.ask("a"), owner.ask("b")
        assert owner.ask("a") is a
        await over(b)
        assert seen == ["a0", "a1", "a2", "b0", "b1"]
        assert (a.steps, a.longest_s, a.error, a.stopped) == (3, 0.002, "", False)
        await over(owner.ask("a"))
        assert len(seen) == 8


async def test_it_stops_between_two_steps_and_cleans_up() -> None:
    cleaned = asyncio.Event()

    async def endless() -> AsyncGenerator[float, None]:
        try:
            while True:
                yield 1000.0  # with its rest: for hours
        finally:
            cleaned.set()

    async with running(Errand("a", endless), rest=1.0) as owner:
        found = owner.ask("a")
        async with asyncio.timeout(10):
            while not found.steps:
                await asyncio.sleep(0.001)
        assert owner.stop("a") is found
        await over(found)
        assert (found.steps, found.stopped, cleaned.is_set()) == (1, True, True)
        assert owner.stop("b") is None


async def test_one_that_is_asked_for_again_before_its_stop_took_effect_is_done_anew() -> None:
    begun: list[int] = []
    gate = asyncio.Event()

    async def steps() -> AsyncGenerator[float, None]:
        begun.append(1)
        await gate.wait()
        yield 0.0

    errands = Errands([Errand("a", steps)])
    owner = asyncio.create_task(errands.run())
    try:
        async with asyncio.timeout(10):
            first = errands.ask("a")
            while not begun:
                await asyncio.sleep(0)
            errands.stop("a")
            second = errands.ask("a")
            assert second is not first
            assert errands.ask("a") is second
            gate.set()
            while second.running:
                await asyncio.sleep(0.001)
    finally:
        owner.cancel()
    assert (len(begun), first.stopped, second.stopped) == (2, True, False)


async def test_a_failure_is_told_and_the_next_is_not_hindered() -> None:
    seen: list[str] = []

    async def full() -> AsyncGenerator[float, None]:
        yield 0.0
        raise StoreFull("the disk is full")

    async with running(Errand("bad", full), counting("good", 1, seen)) as owner:
        bad = owner.ask("bad")
        await over(owner.ask("good"))
        assert (bad.error, bad.steps, seen) == ("the disk is full", 1, ["good0"])


async def test_a_broken_store_ends_the_hub() -> None:
    async def broken() -> AsyncGenerator[float, None]:
        raise StoreBroken("I/O error")
        yield 0.0

    owner = Errands([Errand("a", broken)])
    owner.ask("a")
    with pytest.raises(StoreBroken):
        await owner.run()


def test_a_pace_finds_the_size_that_takes_as_long_as_a_group() -> None:
    pace = Pace(lambda: 0.010, least=4, most=64)
    for _ in range(20):
        pace.took(pace.size * 0.001)
    assert pace.size == 8, "8 ms: twice as many would be too long"
    for _ in range(20):
        pace.took(pace.size * 1.0)
    assert pace.size == 4
    for _ in range(20):
        pace.took(0.0)
    assert pace.size == 64
