"""Salvaged work end to end, with real processes: the next attempt is told of it and builds on it, and a person adopts it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.cli.demo.stage import BASE
from hub.client import HubClient, HubProblem
from tests.support.fleet import Fleet, merging_fleet, wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with merging_fleet(tmp_path) as fleet:
        yield fleet


async def submit(hub: HubClient, *steps: dict[str, Any], **fields: Any) -> str:
    done = await hub.submit({"title": "Work", "repo": "site", "metadata": {"mock": list(steps)}, **fields})  # type: ignore[typeddict-item]
    return done["id"]


def change(name: str, **when: Any) -> dict[str, Any]:
    return {"do": "change", "path": f"{name}.txt", "text": f"{name}\n", "message": f"feat: {name}", **when}


async def ended(hub: HubClient, task: str) -> dict[str, Any]:
    async with asyncio.timeout(90):
        return dict(await hub.until_ended(task))


async def kept(hub: HubClient, task: str) -> list[Any]:
    return list((await hub.salvage(task=task))["salvage"])


async def merge(fleet: Fleet, hub: HubClient, task: str) -> dict[str, Any]:
    """Wait for the task's end, approving its changes as the person who looks at them."""

    async def over() -> dict[str, Any] | None:
        found = await hub.task(task)
        if found["state"] in ("done", "dead"):
            return dict(found)
        for one in found["changes"]:
            if one["state"] == "waiting":
                async with HubClient(fleet.url, fleet.approver_token) as person:
                    await person.approve(one["id"], head_sha=one["head_sha"])
        return None

    return dict(await wait_until(over, limit_s=90, what=f"{task} is merged"))


async def test_the_next_attempt_is_told_of_the_commits_of_a_failed_one_and_builds_on_them(fleet: Fleet) -> None:
    first = (change("first", attempt=1), {"do": "fail", "message": "I lost my way", "attempt": 1})
    second = ({"do": "use_salvage", "attempt": 2}, change("second", attempt=2), {"do": "slow", "s": 1})
    async with fleet.client() as hub:
        task = await submit(hub, *first, *second)
        found = await ended(hub, task)
        [record] = await kept(hub, task)
        detail = await hub.salvaged(record["id"])
    assert found["state"] == "done"
    assert found["tries"] == 2
    assert {"first.txt", "second.txt"} <= set(fleet._git("ls-tree", "--name-only", BASE, cwd=fleet.remote).split())
    assert (record["reason"], record["branch"]) == ("its attempt ended: agent_failed", f"agentcom/{task}/1")
    assert detail["told"] == [2]
    assert detail["stat"] is not None and detail["stat"]["added"] == 1


async def test_a_person_adopts_what_a_cancelled_run_had_done_and_the_gate_merges_it(fleet: Fleet) -> None:
    async with fleet.client() as hub:
        task = await submit(hub, change("done-already"), {"do": "dirty_tree", "path": "half.txt"}, {"do": "slow", "s": 60})

        async def committed() -> bool:
            return bool(fleet.run_counts()) and any(fleet.root.glob("a-1/state/workspaces/work/*/tree/half.txt"))

        await wait_until(committed, limit_s=60, what="the agent has committed")
        await hub.cancel(task, "not now")
        assert (await ended(hub, task))["state"] == "cancelled"
        [record] = await kept(hub, task)
        assert (record["state"], record["branch"], record["salvage_ref"]) == (
            "open",
            f"agentcom/{task}/1",
            f"agentcom/salvage/{task}/1",
        )
        answers = await asyncio.gather(*(hub.apply_salvage(record["id"]) for _ in range(3)), return_exceptions=True)
        assert [answer["lease_epoch"] for answer in answers if isinstance(answer, dict)] == [3, 3, 3], answers
        found = await merge(fleet, hub, task)
        [change_] = found["changes"]
        proposed = await hub.change(change_["id"])
        assert (found["state"], found["generation"], change_["lease_epoch"]) == ("done", 2, 3)
        assert (proposed["origin_epoch"], proposed["branch"], proposed["state"]) == (1, record["branch"], "merged")
        assert "under lease 1, and adopted since" in proposed["body"]
        assert proposed["body"].endswith("AgentCom-Lease-Epoch: 3")
        assert (await hub.salvaged(record["id"]))["applied_epoch"] == 3
    assert "done-already.txt" in fleet._git("ls-tree", "--name-only", BASE, cwd=fleet.remote)


async def test_what_an_agent_left_uncommitted_is_adopted_and_gated_as_a_change(fleet: Fleet) -> None:
    async with fleet.client() as hub:
        task = await submit(hub, {"do": "dirty_tree", "path": "precious.txt"}, {"do": "fail", "retryable": False})
        assert (await ended(hub, task))["state"] == "dead"
        [record] = await kept(hub, task)
        assert (record["branch"], record["salvage_ref"]) == (None, f"agentcom/salvage/{task}/1")
        await hub.apply_salvage(record["id"])
        assert (await merge(fleet, hub, task))["state"] == "done"
        other = await submit(hub, {"do": "dirty_tree"}, {"do": "fail", "retryable": False})
        assert (await ended(hub, other))["state"] == "dead"
        fleet._git("update-ref", "-d", f"refs/heads/agentcom/salvage/{other}/1", cwd=fleet.remote)
        with pytest.raises(HubProblem) as gone:
            await hub.apply_salvage(f"{other}/1")
        assert gone.value.code == "work_gone"
        dropped = await hub.drop_salvage(f"{other}/1", "its branch is gone")
    assert "precious.txt" in fleet._git("ls-tree", "--name-only", BASE, cwd=fleet.remote)
    assert (dropped["state"], dropped["note"]) == ("dropped", "its branch is gone")


async def test_a_running_attempt_is_stopped_for_it_if_that_is_forced(fleet: Fleet) -> None:
    async with fleet.client() as hub:
        first = (change("good", attempt=1), {"do": "fail", "attempt": 1})
        task = await submit(hub, *first, {"do": "slow", "s": 60, "attempt": 2})

        async def again() -> bool:
            return fleet.run_counts()[int(task.removeprefix("t-"))] == 2

        await wait_until(again, limit_s=60, what="the second attempt runs")
        with pytest.raises(HubProblem) as held:
            await hub.apply_salvage(f"{task}/1")
        assert (held.value.status, held.value.code, held.value.hint) == (409, "leased", "--force stops it first")
        assert (await hub.apply_salvage(f"{task}/1", force=True))["pending"]
        assert (await merge(fleet, hub, task))["state"] == "done"
    await wait_until(lambda: _nothing_runs(fleet), limit_s=30, what="the stopped agent is gone")


async def _nothing_runs(fleet: Fleet) -> bool:
    return not fleet.shims() and not fleet.agent_processes()
