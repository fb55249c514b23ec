"""What must not grow with a hub: the cost of a claim, the memory of an idle agent, the time to rebuild a long queue."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from agents import running_fleet
from page import median
from rows import Script, fresh_store, group_of, now, pushed
from server import running_hub

from hub.core.lease import Terms
from hub.services.clock import SteadyClock
from hub.services.conductor import Conductor
from hub.services.facts import FactReader
from hub.store.recovery import load_snapshot

CHUNK = 1000
FIRST_AGENTS = 100
"""Connected before memory is looked at, so that what is allocated once is not counted per agent."""


def claim(short: int, long: int, samples: int) -> float:
    """Median time to decide a result with the claim of the next task, ``long`` tasks queued to ``short``, sample by sample in turn."""
    queues = [_Queue(short), _Queue(long)]
    took: list[list[float]] = [[], []]
    for _ in range(samples):
        for queue, times in zip(queues, took, strict=True):
            times.append(queue.claim())
    return median(took[1]) / median(took[0])


class _Queue:
    """One agent before a queue that keeps its length."""

    def __init__(self, length: int) -> None:
        self._script = Script(1)
        for _ in range(0, length, CHUNK):
            self._offers = pushed([self._script.submit(min(length, CHUNK))]) or self._offers

    def claim(self) -> float:
        self._script.submit(1)
        ((agent, push),) = self._offers.items()
        self._script.accept(agent, push)
        began = time.perf_counter()
        decided = self._script.report(agent, push)
        took = time.perf_counter() - began
        self._offers = pushed([decided])
        return took


def memory_per_agent(agents: int) -> float:
    """KiB of the hub's own memory for each connected idle agent beyond the first hundred."""
    first = min(FIRST_AGENTS, agents)
    with running_hub() as hub, running_fleet() as fleet:
        fleet.grow(hub, first)
        before = _settled_kib(hub)
        fleet.grow(hub, first + agents)
        return (_settled_kib(hub) - before) / agents


def _settled_kib(hub: Any) -> int:
    time.sleep(0.5)
    kib: int = hub.memory_kib()
    return kib


def rebuild(tasks: int) -> dict[str, float]:
    """Seconds until a scheduler with ``tasks`` queued tasks takes commands again, per 100 000, and its ratio to a bare read.

    The bare read is SQLite alone, out of the page cache (nothing waits for the disk): every column of the same rows as tuples.
    """
    return asyncio.run(_rebuild(tasks))


async def _rebuild(tasks: int) -> dict[str, float]:
    async with fresh_store() as store:
        script = Script(0)
        for _ in range(0, tasks, CHUNK):
            await store.commit(group_of([script.submit(min(tasks, CHUNK))]), now())
        del script
        read, rebuilt = [], []
        for _ in range(3):
            read.append(await _timed(store.reader.run(_read_all)))
            conductor = Conductor(
                store, FactReader(store.reader), None, SteadyClock(), Terms(), 2, partial(load_snapshot, store.reader)
            )  # type: ignore[arg-type]  # nothing is published while it opens
            rebuilt.append(await _timed(conductor.open()))
            assert conductor.scheduler_ is not None
            assert conductor.scheduler_.cluster.live == tasks
            await conductor.close()
    return {"rebuild_s_per_100k": median(rebuilt) * 100_000 / tasks, "rebuild_ratio": median(rebuilt) / median(read)}


def _read_all(connection: Any) -> None:
    factory, connection.row_factory = connection.row_factory, None
    connection.execute("SELECT * FROM task WHERE state NOT IN ('done', 'dead', 'cancelled') ORDER BY n").fetchall()
    connection.row_factory = factory


async def _timed(work: Any) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began
