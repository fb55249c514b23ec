"""Every fault of a network at every step of an assignment's life, between real links on either side.

Whatever happens to a connection, the task is done by one applied result, its agent was started once, its lease was kept, and nobody had to
help: only the fault was taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hub.client import HubClient
from ops.bench.sidecars import BenchAgent, Site, agent
from sidecar.journal import Journal
from tests.support.living_hub import LivingHub
from tests.support.proxy import Flow, Pair, Proxy
from tests.support.tap import Point, Way

LIMIT_S = 240.0
pytestmark = pytest.mark.timeout(300)
AT_ONCE = 24
"""Cases at once: a herd of more on a busy machine would wait for itself, and not for the hub."""


@dataclass(frozen=True)
class Step:
    """A step is known by the frame it begins with. ``fresh``: of a new connection."""

    name: str
    way: Way
    pattern: bytes
    fresh: bool = False
    work_s: float = 0.1


STEPS = (
    Step("upgrade", Way.UP, b"GET /ws ", fresh=True),
    Step("upgraded", Way.DOWN, b"HTTP/1.1 101 ", fresh=True),
    Step("hello", Way.UP, b'"t":"hello"', fresh=True),
    Step("welcome", Way.DOWN, b'"t":"welcome"', fresh=True),
    Step("assign", Way.DOWN, b'"t":"assign"'),
    Step("accept", Way.UP, b'"t":"accept"'),
    Step("accepted", Way.DOWN, b'"t":"accepted"'),
    Step("beat", Way.UP, b'"t":"beat"', work_s=2.5),
    Step("beaten", Way.DOWN, b'"t":"beaten"', work_s=2.5),
    Step("result", Way.UP, b'"t":"result"'),
    Step("result_ack", Way.DOWN, b'"t":"result_ack"'),
)


@dataclass(frozen=True)
class Fault:
    """What happens at a step, and after how long the network is as it should be again."""

    name: str
    point: Point
    strike: Callable[[Proxy, Pair], None]
    heals_s: float = 0.0


def flow(proxy: Proxy, _pair: Pair, **how: float) -> None:
    proxy.flow(**how)


def end_slowly(proxy: Proxy, pair: Pair) -> None:
    """The hub believes in this connection for a while after the sidecar has left it."""
    proxy.flow(closing_s=1.0)
    pair.end()


def hold(_proxy: Proxy, pair: Pair) -> None:
    """This connection alone stands still; a new one works."""
    pair.flows = dict.fromkeys(Way, Flow(bytes_per_s=0))


BREAKS = [Fault(f"reset {point.name.lower()}", point, lambda _proxy, pair: pair.reset()) for point in Point] + [
    Fault("refused for a while", Point.AFTER, lambda proxy, _pair: proxy.refuse(), 1.5),
    Fault("closed slowly", Point.AFTER, end_slowly, 1.5),
]
SILENCES = [
    Fault("swallowed", Point.AFTER, lambda _proxy, pair: pair.vanish()),
    Fault("swallowed amid", Point.AMID, lambda _proxy, pair: pair.vanish()),
    Fault("black hole", Point.AFTER, lambda proxy, _pair: proxy.blacken(), 2.0),
    Fault("only the hub is told", Point.AFTER, lambda _proxy, pair: pair.half_open(Way.UP)),
    Fault("only the sidecar is told", Point.AFTER, lambda _proxy, pair: pair.half_open(Way.DOWN)),
]
SLOWNESS = [
    Fault("late", Point.AFTER, partial(flow, delay_s=0.15, jitter_s=0.1), 2.0),
    Fault("a byte a second", Point.AFTER, partial(flow, bytes_per_s=1), 2.0),
    Fault("a thin line", Point.AFTER, partial(flow, bytes_per_s=2000), 2.0),
    Fault("at a stand", Point.AFTER, hold),
]
TWICE = [Fault("said twice", Point.AFTER, lambda _proxy, pair: pair.repeat())]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a sidecar waits for without asking the hub how long."""
    monkeypatch.setattr("sidecar.link.OPEN_S", 4.0)
    monkeypatch.setattr("sidecar.backoff.SUPERSEDED_S", 0.5)


@asynccontextmanager
async def far_agent(hub: LivingHub, name: str, site: Site, home: Path) -> AsyncIterator[tuple[Proxy, BenchAgent]]:
    """An agent behind a proxy of its own, welcome at the hub."""
    async with Proxy(hub.port) as proxy:
        journal = Journal(home / name)
        there = agent(name, f"http://127.0.0.1:{proxy.port}", hub.tokens["agent"], site, first_s=0.1, journal=journal)
        running = asyncio.create_task(there.run(), name=name)
        try:
            async with asyncio.timeout(LIMIT_S):
                while not there.holder.connected:
                    await asyncio.sleep(0.02)
            yield proxy, there
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def live_through(hub: LivingHub, client: HubClient, home: Path, fault: Fault, step: Step) -> list[str]:
    """One task of one agent, with this fault at this step; what was wrong in the end."""
    site, name = Site(prepare_s=0.3), f"{fault.name} {step.name}".replace(" ", "-")
    async with far_agent(hub, name, site, home) as (proxy, there):
        trap = proxy.when(step.way, step.pattern, fault.point, partial(fault.strike, proxy))
        if step.fresh:
            proxy.reset()
        submitted = await client.submit(
            {"title": name, "type": "research", "repo": None, "assign_to": name, "metadata": {"bench": {"s": step.work_s}}}
        )
        await trap.done.wait()
        await asyncio.sleep(fault.heals_s)
        proxy.heal()
        ended = await client.until_ended(submitted["id"])
        while there.holder.holds_anything:  # until its journal is empty, too
            await asyncio.sleep(0.02)
    found = {
        "state": (ended["state"], "done"),
        "results applied": ([attempt["verdict"] for attempt in ended["attempts"] if attempt["outcome"]].count("applied"), 1),
        "starts of its agent": (site.starts.total(), 1),
        "losses": (ended["lost"], 0),
    }
    return [
        f"{fault.name} at {step.name}: {what} is {is_}, not {ought}" for what, (is_, ought) in found.items() if is_ != ought
    ]


@pytest.mark.parametrize("faults", [BREAKS, SILENCES, SLOWNESS, TWICE], ids=["broken", "silent", "slow", "twice"])
async def test_no_fault_at_any_step_loses_or_repeats_work(hub: LivingHub, tmp_path: Path, faults: list[Fault]) -> None:
    wrong: list[Any] = []
    waiting = {(fault.name, step.name) for fault in faults for step in STEPS}

    room = asyncio.Semaphore(AT_ONCE)

    async def one(fault: Fault, step: Step) -> None:
        async with room:
            wrong.extend(await live_through(hub, client, tmp_path, fault, step))
        waiting.discard((fault.name, step.name))

    async with HubClient(hub.url, hub.tokens["operator"]) as client:
        try:
            async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
                for fault in faults:
                    for step in STEPS:
                        group.create_task(one(fault, step), name=f"{fault.name} at {step.name}")
        except TimeoutError:
            wrong.append(f"never ended: {sorted(waiting)}")
    assert wrong == []
