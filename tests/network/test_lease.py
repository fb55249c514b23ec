"""A lease through a silence: kept when that is shorter than the lease, given to another when it is longer, and never held by two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.client import HubClient
from ops.bench.sidecars import Site
from tests.network.conftest import HASTY
from tests.network.test_faults import far_agent
from tests.support.living_hub import LivingHub, living_hub

SHORT = HASTY | {"AGENTCOM_LEASE_TERM_S": "4", "AGENTCOM_LEASE_BEAT_S": "0.5", "AGENTCOM_LEASE_ACCEPT_S": "1.5"}
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivingHub]:
    with living_hub(tmp_path_factory.mktemp("lease"), SHORT) as hub:
        yield hub


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.link.OPEN_S", 1.0)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.02)


def work(seconds: float) -> Any:
    return {"title": "Hold on", "type": "research", "repo": None, "metadata": {"bench": {"s": seconds}}}


async def test_a_lease_that_outlasts_the_silence_is_kept(hub: LivingHub, tmp_path: Path) -> None:
    site = Site()
    async with (
        far_agent(hub, "patient", site, tmp_path) as (proxy, there),
        HubClient(hub.url, hub.tokens["operator"]) as client,
    ):
        task = (await client.submit(work(3.0) | {"assign_to": "patient"}))["id"]
        await until(lambda: site.starts.total() == 1)
        proxy.blacken()
        await until(lambda: not there.holder.connected)
        proxy.heal()
        async with asyncio.timeout(LIMIT_S):
            ended = await client.until_ended(task)
    assert (ended["state"], ended["lost"], site.starts.total()) == ("done", 0, 1)


async def test_a_silence_longer_than_the_lease_moves_the_task_and_no_two_agents_run_it_at_once(
    hub: LivingHub, tmp_path: Path
) -> None:
    site = Site()
    async with (
        far_agent(hub, "first", site, tmp_path) as (proxy, first),
        HubClient(hub.url, hub.tokens["operator"]) as client,
    ):
        task = (await client.submit(work(600.0)))["id"]
        n = int(task.removeprefix("t-"))
        await until(lambda: site.starts[n, 1] == 1)
        async with far_agent(hub, "second", site, tmp_path) as (_, second):
            proxy.blacken()
            await until(lambda: site.starts[n, 2] == 1)
            proxy.heal()
            await until(lambda: first.holder.connected and not first.holder.holds_anything)
            found = await client.task(task)
            assert (found["state"], found["agent"], found["lost"]) == ("working", "second", 1)
            assert [attempt["verdict"] for attempt in found["attempts"]].count("applied") == 0, (
                "late and lost: it changes nothing"
            )
            await client.cancel(task)
            await until(lambda: not second.holder.holds_anything)
        assert (await client.task(task))["state"] == "cancelled"
    assert site.overlaps == 0, "the first was stopped before the second was started"
    assert site.starts == {(n, 1): 1, (n, 2): 1}
