"""Real processes, real SQLite, real sockets: everything is killed with SIGKILL in series while agents work.

Exactly once each: every task ends done, an agent ran for it exactly once unless its shim was killed under it, and no process is left.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from tests.support.fleet import ENDED, Fleet, kill, states, wait_until

pytestmark = pytest.mark.timeout(170)

HUB_KILLS, SIDECAR_KILLS, SHIM_KILLS = 15, 10, 5
AGENTS = ("a-1", "a-2", "a-3")


def job(title: str, seconds: float, **more: Any) -> dict[str, Any]:
    steps = [{"do": "slow", "s": seconds}, {"do": "no_commit"}]
    return {"title": title, "type": "research", "metadata": {"mock": steps}, **more}


@pytest.fixture
async def fleet(tmp_path: Path):
    fleet = Fleet(tmp_path, agents=len(AGENTS))
    try:
        await fleet.start_hub()
        await fleet.start_agents(*AGENTS)
        yield fleet
    finally:
        await fleet.close()


async def _working(fleet: Fleet, at_least: int = 1) -> None:
    async def enough() -> bool:
        async with fleet.client() as hub:
            found = await states(hub) or {}
        return sum(1 for state in found.values() if state == "working") >= at_least and len(fleet.shims()) >= at_least

    await wait_until(enough, limit_s=30, what="agents at work")


async def _all_ended(fleet: Fleet, limit_s: float) -> dict[str, str]:
    async def ended() -> dict[str, str] | None:
        async with fleet.client() as hub:
            found = await states(hub)
        return found if found and ENDED.issuperset(found.values()) else None

    result: dict[str, str] = await wait_until(ended, limit_s=limit_s, what="every task has ended")
    return result


async def _no_process_is_left(fleet: Fleet) -> None:
    async def none() -> bool:
        return not fleet.shims() and not fleet.agent_processes()

    await wait_until(none, limit_s=15, what="no shim and no agent process is left")


async def _assert_applied_once(fleet: Fleet) -> None:
    async with fleet.client() as hub:
        async for task in hub.every_task():
            detail = await hub.task(task["id"])
            applied = [
                attempt
                for attempt in detail["attempts"]
                if attempt["verdict"] == "applied" and attempt["outcome"] == "succeeded"
            ]
            assert len(applied) == 1, f"{task['id']}: {detail['attempts']}"
            done = [event for event in detail["history"] if event["to_state"] == "done"]
            assert len(done) == 1, f"{task['id']} was done {len(done)} times"


async def test_hub_killed_in_series_loses_nothing_and_restarts_no_living_agent(fleet: Fleet) -> None:
    chance = random.Random(20)
    async with fleet.client() as hub:
        await hub.submit_batch([job(f"work {i}", chance.uniform(0.5, 6.0)) for i in range(24)], idempotency_key="hub-kills")  # type: ignore[list-item]
    for _ in range(HUB_KILLS):
        await asyncio.sleep(chance.uniform(0.0, 0.8))
        await fleet.kill_hub()
        await asyncio.sleep(chance.uniform(0.0, 0.6))
        await fleet.start_hub()
    ended = await _all_ended(fleet, 90)
    assert set(ended.values()) == {"done"}
    assert set(fleet.run_counts().values()) == {1}, "a living agent was restarted"
    assert len(fleet.run_counts()) == 24
    await _assert_applied_once(fleet)
    await _no_process_is_left(fleet)


async def test_sidecar_killed_in_series_reattaches_to_its_living_shims(fleet: Fleet) -> None:
    chance = random.Random(21)
    async with fleet.client() as hub:
        await hub.submit_batch([job(f"work {i}", chance.uniform(1.0, 5.0)) for i in range(12)], idempotency_key="sidecar-kills")  # type: ignore[list-item]
    await _working(fleet, 2)
    for _ in range(SIDECAR_KILLS):
        name = chance.choice(fleet.sidecar_names())
        await fleet.kill_sidecar(name)
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        await fleet.start_sidecar(name)
        await asyncio.sleep(chance.uniform(0.2, 0.8))
    ended = await _all_ended(fleet, 90)
    assert set(ended.values()) == {"done"}
    assert set(fleet.run_counts().values()) == {1}, "a run was started twice"
    await _assert_applied_once(fleet)
    await _no_process_is_left(fleet)


async def test_shim_killed_is_an_infrastructure_loss_and_the_task_runs_again(fleet: Fleet) -> None:
    async with fleet.client() as hub:
        tasks = [job(f"work {i}", 4.0) for i in range(SHIM_KILLS)]
        await hub.submit_batch(tasks, idempotency_key="shim-kills")  # type: ignore[arg-type]
    killed: set[int] = set()
    while len(killed) < SHIM_KILLS:
        await _working(fleet)
        for pid in fleet.shims():
            if pid not in killed and len(killed) < SHIM_KILLS:
                kill(pid)
                killed.add(pid)
        await asyncio.sleep(0.3)
    ended = await _all_ended(fleet, 90)
    assert set(ended.values()) == {"done"}
    async with fleet.client() as hub:
        lost = 0
        async for task in hub.every_task():
            lost += task["lost"]
    assert lost == SHIM_KILLS
    await _assert_applied_once(fleet)
    await _no_process_is_left(fleet)


async def test_sidecar_killed_between_the_agents_end_and_the_result_reports_it_later(fleet: Fleet) -> None:
    check = {"kind": "command_succeeds", "argv": ["sleep", "3"], "timeout_s": 30}
    async with fleet.client() as hub:
        task = await hub.submit(job("slowly verified", 0.2, verification=[check]))  # type: ignore[arg-type]

        async def agent_has_ended() -> bool:
            return bool(fleet.run_counts()) and not fleet.shims()

        await wait_until(agent_has_ended, limit_s=30, what="the agent ran and ended")
        holder = (await hub.task(task["id"]))["agent"]
        assert holder is not None
        await fleet.kill_sidecar(holder)
        await fleet.start_sidecar(holder)
    ended = await _all_ended(fleet, 60)
    assert set(ended.values()) == {"done"}
    assert set(fleet.run_counts().values()) == {1}
    await _assert_applied_once(fleet)


async def test_results_produced_while_the_hub_is_down_arrive_after(fleet: Fleet) -> None:
    async with fleet.client() as hub:
        await hub.submit_batch([job(f"work {i}", 2.0) for i in range(3)], idempotency_key="outage")  # type: ignore[list-item]
    await _working(fleet, 3)
    await fleet.kill_hub()

    async def all_finished_meanwhile() -> bool:
        return len(fleet.run_counts()) == 3 and not fleet.shims()

    await wait_until(all_finished_meanwhile, limit_s=30, what="the agents finish without the hub")
    await fleet.start_hub()
    ended = await _all_ended(fleet, 30)
    assert set(ended.values()) == {"done"}
    assert set(fleet.run_counts().values()) == {1}
    await _assert_applied_once(fleet)
