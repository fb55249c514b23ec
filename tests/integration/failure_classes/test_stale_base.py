"""Failure class 5, *stale base*: work that began from an old main, all green and worthless, or worse, a clean change that reverts
what others merged meanwhile.

Others branch from whatever a worktree last saw: 77 commits behind (claude-code#88967), no fetch (agent-orchestrator#3860), and in the
worst case a silent revert (phoenix#3621). Here a workspace begins with a fetch, the base it was made from is recorded, the merge is
made from what the base is *then*, and when that is not what was verified, the registered checks run on exactly the candidate.

Proven elsewhere: workspaces from the current base, also of a rework (``tests/integration/test_workspace.py``); a merge from before
the recorded base, a conflict with the base, a base that moves during the merge (``tests/integration/test_gatekeeper.py``).
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hub.cli.demo.stage import BASE
from tests.support.fleet import Fleet, wait_until

pytestmark = [pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


def push(fleet: Fleet, name: str, text: str) -> str:
    """A colleague pushes to the base branch."""
    work = fleet.root / "colleague"
    if not work.exists():
        fleet._git("clone", "--quiet", "--", str(fleet.remote), str(work), cwd=fleet.root)
    fleet._git("pull", "--quiet", cwd=work)
    (work / name).write_text(text)
    fleet._git("add", "--all", cwd=work)
    fleet._git("commit", "--quiet", "--message", f"Write {name}", cwd=work)
    fleet._git("push", "--quiet", "origin", f"HEAD:{BASE}", cwd=work)
    return fleet._git("rev-parse", "HEAD", cwd=work).strip()


def change(name: str, text: str) -> dict[str, Any]:
    return {"do": "change", "path": name, "text": text, "message": f"feat: {name}"}


async def test_a_base_that_moved_under_the_work_is_merged_with_and_the_candidate_checked(fleet: Fleet) -> None:
    async with fleet.client() as hub:
        begun = push(fleet, "before.txt", "known to the agent\n")
        slow = [{"do": "slow", "s": 1.5}, change("mine.txt", "by the agent\n")]
        task = (await hub.submit({"title": "Slow", "repo": "site", "metadata": {"mock": slow}}))["id"]  # type: ignore[typeddict-item]

        async def begins() -> bool:
            return bool(list(fleet.root.glob("a-1/state/workspaces/work/*/tree/before.txt"))) and bool(fleet.shims())

        await wait_until(begins, limit_s=60, what="the agent works, from the base as it is now")
        newer = push(fleet, "newer.txt", "pushed while the agent worked\n")
        async with asyncio.timeout(90):
            found = await hub.until_ended(task)
        [proposed] = found["changes"]
        detail = await hub.change(proposed["id"])
    assert found["state"] == "done"
    assert detail["base_sha"] == begun, "what it was made from is on record"
    assert detail["check_task"] is not None, "what was verified is not what is merged: the candidate itself was checked"
    tree = fleet._git("ls-tree", "--name-only", BASE, cwd=fleet.remote).split()
    assert {"before.txt", "newer.txt", "mine.txt"} <= set(tree), "nothing of anybody is reverted"
    fleet._git("merge-base", "--is-ancestor", newer, BASE, cwd=fleet.remote)


async def test_the_next_workspace_has_what_was_merged_a_moment_ago(fleet: Fleet) -> None:
    async with fleet.client() as hub:
        known = push(fleet, "just-now.txt", "a moment ago\n")
        done = [change("after.txt", "x\n")]
        task = (await hub.submit({"title": "Next", "repo": "site", "metadata": {"mock": done}}))["id"]  # type: ignore[typeddict-item]
        async with asyncio.timeout(90):
            found = await hub.until_ended(task)
        detail = await hub.change(found["changes"][0]["id"])
    assert (found["state"], detail["base_sha"], detail["check_task"]) == ("done", known, None), "verified as it is merged"
