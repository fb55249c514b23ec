"""Real processes under the launcher: they die, fail or wait where they were told to, and are untouched without it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.app import EXIT_STORE
from hub.client.errors import HubProblem, HubUnreachable
from tests.support.failpoints import points
from tests.support.fleet import LAUNCHER, ROOT, Fleet, states, wait_until

pytestmark = pytest.mark.timeout(120)

WORK: Any = {"title": "Work", "type": "research", "metadata": {"mock": [{"do": "no_commit"}]}}


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path, agents=1)
    try:
        yield fleet
    finally:
        await fleet.close()


def test_the_variable_alone_changes_nothing() -> None:
    looks = (
        "import sys, hub.app, hub.store.writer as w, sidecar.app, sidecar.link as l\n"
        "assert not hasattr(w.commit_group, '__wrapped__') and not hasattr(l._transmit, '__wrapped__')\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'tests']\n"
    )
    asked = {**os.environ, points.POINTS: "hub.commit.before:kill,sidecar.send.hello.before:kill"}
    subprocess.run([sys.executable, "-c", looks], env=asked, cwd=ROOT, check=True, timeout=60)


def test_what_is_no_point_is_told_before_anything_starts() -> None:
    asked = {**os.environ, points.POINTS: "hub.nowhere.before:kill"}
    argv = [sys.executable, "-m", LAUNCHER, "hub.cli", "server", "start-dev"]
    done = subprocess.run(argv, check=False, env=asked, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode
    assert "hub.nowhere.before:kill" in done.stderr


async def test_each_side_dies_at_its_point_and_the_task_is_done_all_the_same(fleet: Fleet) -> None:
    fleet.failpoints["hub"] = "hub.answer.head.before:kill@2"  # the first answer is the approver's token
    await fleet.start_hub()
    with pytest.raises(HubUnreachable):
        await _submit(fleet)
    assert await fleet.died("hub") == -signal.SIGKILL

    fleet.failpoints["hub"] = "hub.send.result_ack.before:kill"
    await fleet.start_hub()
    task = await _submit(fleet)
    assert task == "t-1", "the answer was lost, not what it told"

    fleet.configure_sidecar("a-1", [])
    fleet.failpoints["a-1"] = "sidecar.append.accepted.after:kill"
    await fleet.start_sidecar("a-1")
    assert await fleet.died("a-1") == -signal.SIGKILL
    fleet.failpoints["a-1"] = "shim.close.before:kill"
    await fleet.start_sidecar("a-1")

    await wait_until(lambda: _hit(fleet, "shim.close.before"), limit_s=30, what="the shim was killed")
    await fleet.kill_sidecar("a-1")
    await fleet.start_sidecar("a-1")
    assert await fleet.died("hub") == -signal.SIGKILL
    await fleet.start_hub()
    await wait_until(lambda: _is_done(fleet, task), limit_s=60, what="the task is done")
    assert fleet.points_hit() == [
        *("hub.answer.head.before", "sidecar.append.accepted.after", "shim.close.before", "hub.send.result_ack.before")
    ]


async def test_an_error_is_the_natural_one_of_its_seam(fleet: Fleet, tmp_path: Path) -> None:
    fleet.token = tmp_path / "token"
    fleet.failpoints["hub"] = "hub.commit.after:error"
    await fleet.start_hub()
    fleet.token.touch()
    with pytest.raises((HubUnreachable, HubProblem)):
        await _submit(fleet)
    assert await fleet.died("hub") == EXIT_STORE, "a sync that failed is never tried again"
    await fleet.start_hub()
    assert await _submit(fleet) == "t-1"


async def test_no_answer_leaves_before_its_commit(fleet: Fleet, tmp_path: Path) -> None:
    fleet.token = tmp_path / "token"
    fleet.failpoints["hub"] = "hub.commit.before:delay(30000)"
    await fleet.start_hub()
    fleet.token.touch()
    submit = asyncio.create_task(_submit(fleet))
    await wait_until(lambda: _hit(fleet, "hub.commit.before"), limit_s=30, what="the commit was held up")
    await asyncio.sleep(0.5)  # ample time for an answer that does not wait
    await fleet.kill_hub()
    with pytest.raises(HubUnreachable):
        await submit


async def _submit(fleet: Fleet) -> str:
    async with fleet.client() as hub:
        return (await hub.submit(WORK, idempotency_key="k"))["id"]


async def _hit(fleet: Fleet, point: str) -> bool:
    return point in fleet.points_hit()


async def _is_done(fleet: Fleet, task: str) -> bool:
    async with fleet.client() as hub:
        return (await states(hub) or {}).get(task) == "done"
