"""One cluster of real processes, real SQLite and real sockets: its parts are killed with SIGKILL in series while agents work.

Exactly once each: every task ends done by exactly one applied result, an agent ran for it exactly once unless its shim was killed under
it, results produced while the hub is down arrive after, and no process is left.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import ENDED, Fleet, kill, states, wait_until

pytestmark = pytest.mark.timeout(240)

HUB_KILLS, SIDECAR_KILLS, SHIM_KILLS = 15, 10, 5
AGENTS = ("a-1", "a-2", "a-3")


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path, agents=len(AGENTS))
    try:
        await fleet.start_hub()
        await fleet.start_agents(*AGENTS)
        yield fleet
    finally:
        await fleet.close()


async def test_a_cluster_killed_part_by_part_loses_nothing_and_runs_nothing_twice(fleet: Fleet) -> None:
    chance = random.Random(20)
    await _kill_the_hub(fleet, chance)
    await _kill_sidecars(fleet, chance)
    await _kill_shims(fleet)
    await _kill_between_the_agents_end_and_the_result(fleet)
    await _finish_without_the_hub(fleet)
    await wait_until(lambda: _nothing_runs(fleet), limit_s=15, what="no shim and no agent process is left")
    await _assert_applied_once(fleet)


async def _kill_the_hub(fleet: Fleet, chance: random.Random) -> None:
    tasks = await _submit(fleet, "hub", [_job(chance.uniform(0.5, 5.0)) for _ in range(18)])
    for _ in range(HUB_KILLS):
        await asyncio.sleep(chance.uniform(0.0, 0.6))
        await fleet.kill_hub()
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        await fleet.start_hub()
    await _all_done(fleet, tasks)
    assert _runs(fleet, tasks) == [1] * len(tasks), "a living agent was restarted"


async def _kill_sidecars(fleet: Fleet, chance: random.Random) -> None:
    tasks = await _submit(fleet, "sidecar", [_job(chance.uniform(1.0, 4.0)) for _ in range(9)])
    await _working(fleet, 2)
    for _ in range(SIDECAR_KILLS):
        name = chance.choice(AGENTS)
        await fleet.kill_sidecar(name)
        await asyncio.sleep(chance.uniform(0.0, 0.3))
        await fleet.start_sidecar(name)
        await asyncio.sleep(chance.uniform(0.1, 0.6))
    await _all_done(fleet, tasks)
    assert _runs(fleet, tasks) == [1] * len(tasks), "a sidecar started again what its shim was still running"


async def _kill_shims(fleet: Fleet) -> None:
    tasks = await _submit(fleet, "shim", [_job(3.0) for _ in range(SHIM_KILLS)])
    killed: set[int] = set()
    while len(killed) < SHIM_KILLS:
        await _working(fleet, 1)
        for pid in sorted(set(fleet.shims()) - killed)[: SHIM_KILLS - len(killed)]:
            kill(pid)
            killed.add(pid)
        await asyncio.sleep(0.2)
    await _all_done(fleet, tasks)
    async with fleet.client() as hub:
        assert sum([(await hub.task(task))["lost"] for task in tasks]) == SHIM_KILLS, (
            "each killed shim is one infrastructure loss"
        )


async def _kill_between_the_agents_end_and_the_result(fleet: Fleet) -> None:
    slow_check = {"kind": "command_succeeds", "argv": ["sleep", "3"], "timeout_s": 30}
    (task,) = await _submit(fleet, "exit", [_job(0.2, verification=[slow_check])])

    async def agent_has_ended() -> bool:
        return _runs(fleet, [task]) == [1] and not fleet.shims()

    await wait_until(agent_has_ended, limit_s=30, what="the agent ran and ended")
    async with fleet.client() as hub:
        holder = (await hub.task(task))["agent"]
    assert holder is not None, "the result was already there: the check is too quick for this test"
    await fleet.kill_sidecar(holder)
    await fleet.start_sidecar(holder)
    await _all_done(fleet, [task])
    assert _runs(fleet, [task]) == [1]


async def _finish_without_the_hub(fleet: Fleet) -> None:
    tasks = await _submit(fleet, "outage", [_job(2.0) for _ in AGENTS])
    await _working(fleet, len(AGENTS))
    await fleet.kill_hub()

    async def all_have_ended() -> bool:
        return _runs(fleet, tasks) == [1] * len(tasks) and not fleet.shims()

    await wait_until(all_have_ended, limit_s=30, what="the agents finish without the hub")
    await fleet.start_hub()
    await _all_done(fleet, tasks)
    assert _runs(fleet, tasks) == [1] * len(tasks)


def _job(seconds: float, **more: Any) -> dict[str, Any]:
    steps = [{"do": "slow", "s": seconds}, {"do": "no_commit"}]
    return {"title": "Work", "type": "research", "metadata": {"mock": steps}, **more}


async def _submit(fleet: Fleet, key: str, jobs: list[dict[str, Any]]) -> list[str]:
    async with fleet.client() as hub:
        batch = await hub.submit_batch(jobs, idempotency_key=key)  # type: ignore[arg-type]
    return [task["id"] for task in batch["tasks"]]


def _runs(fleet: Fleet, tasks: list[str]) -> list[int]:
    """How often an agent really ran for each of these tasks, by the agents' own account."""
    counts = fleet.run_counts()
    return [counts[int(task.removeprefix("t-"))] for task in tasks]


async def _working(fleet: Fleet, at_least: int) -> None:
    async def enough() -> bool:
        async with fleet.client() as hub:
            found = await states(hub) or {}
        return list(found.values()).count("working") >= at_least and len(fleet.shims()) >= at_least

    await wait_until(enough, limit_s=30, what=f"{at_least} agents at work")


async def _all_done(fleet: Fleet, tasks: list[str]) -> None:
    async def ended() -> dict[str, str] | None:
        async with fleet.client() as hub:
            found = {task: state for task, state in (await states(hub) or {}).items() if task in tasks}
        return found if len(found) == len(tasks) and ENDED.issuperset(found.values()) else None

    found = await wait_until(ended, limit_s=90, what="every task has ended")
    assert set(found.values()) == {"done"}, found


async def _nothing_runs(fleet: Fleet) -> bool:
    return not fleet.shims() and not fleet.agent_processes()


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
