"""Failure class 6, *done is not merged*: an item is closed, and the patch is not on main.

Others close on a branch deleted before its merge, on a push that failed in silence, on a gate that could not run and counted as
passed (gastown#2028, #1349, #4469; gascity-packs#172). Here a task that brings a change is done by one sentence alone: the merge is
on the base branch, looked up there, also after a crash at any step.

Proven elsewhere: crashes between all steps of a merge, a base that moves, an answer that is lost, a check that gives no answer
(``tests/integration/test_gatekeeper.py``); a check that could not run is an error, never a pass
(``tests/unit/sidecar/checks/test_verify.py``).
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hub.cli.demo.stage import BASE
from hub.client import HubClient
from tests.support.fleet import Fleet, wait_until

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


def hook(fleet: Fleet, name: str, script: str | None) -> None:
    path = fleet.remote / "hooks" / name
    path.unlink(missing_ok=True)
    if script is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


async def submit(hub: HubClient, name: str) -> str:
    step = {"do": "change", "path": f"{name}.txt", "text": "x\n", "message": f"feat: {name}"}
    return (await hub.submit({"title": name, "repo": "site", "metadata": {"mock": [step]}}))["id"]  # type: ignore[typeddict-item]


def on_base(fleet: Fleet, name: str) -> bool:
    return f"{name}.txt" in fleet._git("ls-tree", "--name-only", BASE, cwd=fleet.remote).split()


async def ended(hub: HubClient, task: str) -> dict[str, Any]:
    async with asyncio.timeout(90):
        return dict(await hub.until_ended(task))


async def test_a_merge_that_the_remote_refuses_leaves_the_task_undone(fleet: Fleet) -> None:
    hook(fleet, "update", f'test "$1" != refs/heads/{BASE}')
    async with fleet.client() as hub:
        task = await submit(hub, "refused")

        async def waits() -> bool:
            changes = (await hub.task(task))["changes"]
            return bool(changes) and (changes[0]["cause"] or "").startswith("push_rejected")

        await wait_until(waits, limit_s=60, what="its change waits for a person")
        found = await hub.task(task)
        assert (found["state"], on_base(fleet, "refused")) == ("in_review", False)
        hook(fleet, "update", None)
        change = await hub.change(found["changes"][0]["id"])
        async with HubClient(fleet.url, fleet.approver_token) as person:
            await person.approve(change["id"], head_sha=change["head_sha"])
        assert (await ended(hub, task))["state"] == "done"
    assert on_base(fleet, "refused")


async def test_a_hub_that_dies_between_the_push_and_the_record_looks_and_records_it_once(fleet: Fleet) -> None:
    assert fleet._hub is not None
    once = fleet.root / "killed"
    kill = f"test -e {once} || {{ : > {once}; kill -KILL {fleet._hub.pid}; }}"
    hook(fleet, "post-update", f'case "$*" in *refs/heads/{BASE}*) {kill};; esac')
    async with fleet.client() as hub:
        task = await submit(hub, "crashed")
    await fleet.died("hub", limit_s=90)
    assert on_base(fleet, "crashed"), "the push had arrived"
    hook(fleet, "post-update", None)
    await fleet.start_hub()
    async with fleet.client() as hub:
        found = await ended(hub, task)
        [change] = found["changes"]
    assert (found["state"], change["state"]) == ("done", "merged")
    assert sum(event["to_state"] == "done" for event in found["history"]) == 1
    merges = fleet._git("log", "--format=%B", BASE, cwd=fleet.remote).count(f"AgentCom-Task: {task}\n")
    assert merges == 1, "and merged it once"


async def test_done_names_a_commit_that_is_on_the_base(fleet: Fleet) -> None:
    async with fleet.client() as hub:
        found = await ended(hub, await submit(hub, "proof"))
        [change] = found["changes"]
    assert found["state"] == "done"
    fleet._git("merge-base", "--is-ancestor", str(change["merged_sha"]), BASE, cwd=fleet.remote)
