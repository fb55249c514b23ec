"""A hub whose store breaks under work, with real processes: refused in every way it can break, restored, and nobody works twice.

The client's side keeps its own history: every lease it saw granted, every acknowledged task. After the restore nothing that was
acknowledged before the backup is missing, no lease comes back, and what an agent finished meanwhile lands once.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.cli.demo import stage
from hub.client import HubClient
from hub.ids import RESTORE_JUMP
from tests.support import broken_stores
from tests.support.fleet import Fleet, environment_of, states, wait_until

LIMIT_S = 90.0

pytestmark = pytest.mark.timeout(180)


class Clinic(Fleet):
    """A fleet whose hub breaks and is restored."""

    async def agentcom(self, *argv: str) -> tuple[int, str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("AGENTCOM_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "hub.cli"),
            *argv,
            env=env | {"AGENTCOM_DATA_DIR": str(self.data_dir)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clinic]:
    made = Clinic(tmp_path, 2)
    try:
        made.make_repository(None)
        yield made
    finally:
        await made.close()


def research(title: str, seconds: float) -> dict[str, Any]:
    """A task that takes so long and changes nothing."""
    return {"title": title, "type": "research", "metadata": {"mock": [{"do": "slow", "s": seconds}, {"do": "no_commit"}]}}


async def is_state(fleet: Clinic, task: str, *wanted: str) -> bool:
    async with fleet.client() as hub:
        known = await states(hub)
    return known is not None and known.get(task) in wanted


async def until(fleet: Clinic, task: str, *wanted: str) -> None:
    await wait_until(lambda: is_state(fleet, task, *wanted), limit_s=LIMIT_S, what=f"{task} is {wanted}")


async def test_a_hub_whose_store_broke_under_work_goes_on_from_its_backup(
    fleet: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "LEASE_S", 15)
    monkeypatch.setattr(stage, "BEAT_S", 1)
    await fleet.start_hub()
    for name in ("agent-1", "agent-2"):
        fleet.configure_sidecar(name, [])
        await fleet.start_sidecar(name)
    async with fleet.client() as hub:
        before = (await hub.submit(research("done before", 0)))["id"]
        await until(fleet, before, "done")
        long = (await hub.submit(research("at work all the time", 20)))["id"]
        short = (await hub.submit(research("ends between backup and loss", 4)))["id"]
        await until(fleet, long, "working")
        await until(fleet, short, "working")
        waiting = (await hub.submit(research("begins after the backup, ends without a hub", 5)))["id"]
        seen = await hub.status()
        made = await hub.create_backup()
        assert made["tasks"] == {"done": 1, "working": 2, "queued": 1}
        newer = (await hub.submit(research("newer than the backup", 0) | {"capabilities": ["nobody-has-it"]}))["id"]
        eve = await hub.issue_token("eve", ["observer"])
        await until(fleet, short, "done")
        await until(fleet, waiting, "working")
    await fleet.kill_hub()

    await wait_until(lambda: is_over(fleet), limit_s=LIMIT_S, what="its agent is done")

    broken_stores.header_broken(fleet.data_dir / "hub.db")
    code, _, err = await fleet.agentcom("server", "start-dev", "--port", "0", "--data-dir", str(fleet.data_dir))
    assert code == 1
    assert made["name"] in err
    assert f"agentcom backup restore --newest --data-dir {fleet.data_dir}" in err
    code, out, err = await fleet.agentcom("backup", "restore", "--newest", "--data-dir", str(fleet.data_dir), "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["backup"], told["held"]) == (made["name"], 2)
    await fleet.start_hub()
    async with fleet.client() as hub:
        for task in (before, long, short, waiting):
            await until(fleet, task, "done")
        known = await states(hub)
        assert known is not None and newer not in known
        again = (await hub.submit(research("after", 0)))["id"]
        await until(fleet, again, "done")
        assert (await first_event(hub, f"{seen['feed_epoch']}:{seen['seq']}"))["recovered"] is False
        assert eve["id"] not in {token["id"] for token in (await hub.tokens())["tokens"]}
        (account,) = [one for one in (await hub.examine())["findings"] if one["check"] == "restored"]
    assert "agents went on with 0 tasks" in account["found"]
    assert "1 were applied late and 0 salvaged" in account["found"]

    runs = [(task, epoch) for task, epoch, *_ in fleet.agent_runs()]
    assert max(Counter(runs).values()) == 1, "no lease was carried out twice"
    per_task = {task: [epoch for n, epoch in runs if n == task] for task, _ in runs}
    assert all(epochs == sorted(set(epochs)) for epochs in per_task.values()), "no lease comes back"
    number = {
        name: int(task.removeprefix("t-")) for name, task in locals().items() if name in ("long", "short", "waiting", "again")
    }
    first, *ahead = per_task[number["long"]]  # on a slow machine the outage outlasts its lease, and another does it
    assert first == 1 and all(epoch > RESTORE_JUMP for epoch in ahead)
    assert per_task[number["waiting"]] == [1]
    first, second = per_task[number["short"]]
    assert (first, second > RESTORE_JUMP) == (1, True), "its end was forgotten with the store"
    assert number["again"] > RESTORE_JUMP


async def first_event(hub: HubClient, position: str) -> Any:
    """What a stream that goes on from this position begins with."""
    async with hub.http.stream("GET", "/api/v1/events", headers={"Last-Event-ID": position}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                return json.loads(line.removeprefix("data:"))
    raise AssertionError("the stream ended")


async def is_over(fleet: Clinic) -> bool:
    """Whether nobody works any more but the one who works all the time."""
    return len({pid for pid in fleet.agent_processes() if "AGENTCOM_MOCK" in environment_of(pid)}) <= 1
