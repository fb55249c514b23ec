"""Failure class 7, *tokens on nothing*: a fleet that spends while nothing is to be done, or the same again and again.

Others wake idle agents by a heartbeat (16 cents each, paperclip#3401, #2313), patrol and poll with a model (400 000 tokens a cycle,
app#185), and retry without bound ($100 in a quarter of an hour, claude-code#44968). Here only an accepted assignment wakes an agent,
and every way to be given another one has a budget. What counts below is the agents' own account: a line that each process writes as
it starts.

Proven elsewhere: budgets of tries, losses, reworks and claims (``tests/unit/hub/core/test_results.py``, ``test_assignments.py``,
``test_review*``); quarantine of agents that fail at once, tasks that take their agents with them, offers that nobody takes
(``tests/unit/hub/core/test_quarantine.py``, ``test_blame.py``).
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.fleet import Fleet, wait_until

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


def wakes(fleet: Fleet, task: str | None = None) -> int:
    """How often an agent was really started, for anything or for this task."""
    counts = fleet.run_counts()
    return sum(counts.values()) if task is None else counts[int(task.removeprefix("t-"))]


async def submit(fleet: Fleet, *steps: dict[str, Any], **fields: Any) -> str:
    async with fleet.client() as hub:
        new = {"title": "Work", "type": "research", "metadata": {"mock": list(steps)}, **fields}
        return (await hub.submit(new))["id"]  # type: ignore[typeddict-item]


async def test_an_idle_fleet_and_a_task_nobody_can_do_wake_no_agent(fleet: Fleet) -> None:
    task = await submit(fleet, capabilities=["something-nobody-has"])
    before = wakes(fleet)
    await asyncio.sleep(3)  # longer than a beat: whatever wakes an agent without work would have
    async with fleet.client() as hub:
        assert (await hub.task(task))["state"] == "queued"
        assert (await hub.task(task))["attempts"] == []
        await hub.cancel(task)
    assert wakes(fleet) == before == 0


async def test_an_agent_that_fails_at_once_is_woken_as_often_as_the_task_may_be_tried(fleet: Fleet) -> None:
    task = await submit(fleet, {"do": "exit", "code": 1}, max_tries=2)
    async with fleet.client() as hub:
        async with asyncio.timeout(90):
            found = await hub.until_ended(task)
    assert (found["state"], found["tries"]) == ("dead", 2)
    assert wakes(fleet, task) == 2


async def test_a_task_that_kills_its_agent_is_not_tried_for_ever(fleet: Fleet) -> None:
    task = await submit(fleet, {"do": "crash"}, max_tries=2)
    async with fleet.client() as hub:
        await hub.resume_agent("a-1")  # whatever the last test left against it
        async with asyncio.timeout(90):
            found = await hub.until_ended(task)
    assert found["state"] == "dead"
    assert wakes(fleet, task) == 2


async def test_a_restart_of_hub_and_sidecar_wakes_nobody_twice(fleet: Fleet) -> None:
    async with fleet.client() as hub:
        await hub.resume_agent("a-1")
    task = await submit(fleet, {"do": "slow", "s": 3})
    await wait_until(lambda: _runs(fleet, task), limit_s=60, what="it runs")
    await fleet.kill_hub()
    await fleet.kill_sidecar("a-1")
    await fleet.start_hub()
    await fleet.start_sidecar("a-1")
    async with fleet.client() as hub:
        async with asyncio.timeout(90):
            assert (await hub.until_ended(task))["state"] == "done"
    assert wakes(fleet, task) == 1


async def _runs(fleet: Fleet, task: str) -> bool:
    return wakes(fleet, task) == 1
