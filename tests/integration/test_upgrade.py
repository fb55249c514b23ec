"""Hub and sidecars are replaced one after the other while agents work: nothing is lost, nothing runs twice, nobody waits for long."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.client.errors import HubProblem, HubUnreachable
from tests.support.failpoints import points
from tests.support.fleet import wait_until
from tests.support.rolling import RollingFleet

pytestmark = pytest.mark.timeout(240)

AGENTS = ("a-1", "a-2")
DRAIN_S = 5.0
"""Protocol §10: how long a hub takes to go."""
SLACK_S = 10.0
"""What a loaded machine may add to that."""


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[RollingFleet]:
    fleet = RollingFleet(tmp_path, agents=len(AGENTS))
    try:
        await fleet.start_hub()
        await fleet.start_agents(*AGENTS)
        yield fleet
    finally:
        await fleet.close()


async def test_a_rolling_restart_under_load_loses_nothing_and_runs_nothing_twice(fleet: RollingFleet) -> None:
    await fleet.submit(*[1.5, 0.3] * 3)
    await fleet.working(len(AGENTS))
    deaf = fleet.sidecar_pids()[0]
    os.kill(deaf, signal.SIGSTOP)
    assert await fleet.stop_hub(DRAIN_S + SLACK_S) < DRAIN_S + SLACK_S, "it waits for nobody who does not listen"
    os.kill(deaf, signal.SIGCONT)
    fleet.version = "0.2.0.dev1"
    await fleet.start_hub()
    await fleet.submit(0.5, 0.5)
    await fleet.working(1)
    for name in AGENTS:
        await fleet.stop_sidecar(name)
        await fleet.start_sidecar(name)
    await fleet.all_done_exactly_once()


async def test_a_hub_goes_in_time_though_its_disk_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that never ends, and a stream that nobody reads: what was not durable had not left the hub."""
    token = tmp_path / "hang now"
    monkeypatch.setenv(points.TOKEN, str(token))
    fleet = RollingFleet(tmp_path, agents=2)
    fleet.failpoints["hub"] = "hub.commit.before:delay(120000)"
    try:
        await fleet.start_hub()
        await fleet.start_agents(AGENTS[0])
        await fleet.submit(1.0)
        await fleet.working(1)
        reader, writer = await asyncio.open_connection("127.0.0.1", fleet.port)
        writer.write(f"GET /api/v1/events HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {fleet.admin_token}\r\n\r\n".encode())
        await reader.readline()
        token.touch()
        async with fleet.client() as hub:
            lost = asyncio.create_task(hub.submit({"title": "Never acknowledged"}), name="lost")

            async def hangs() -> bool:
                return not token.exists()

            await wait_until(hangs, limit_s=30, what="a commit hangs")
            assert await fleet.stop_hub(DRAIN_S + SLACK_S, code=74) < DRAIN_S + SLACK_S
            with pytest.raises((HubUnreachable, HubProblem)) as untold:
                await lost
            assert isinstance(untold.value, HubUnreachable) or untold.value.code == "stopping"
        writer.close()
        await fleet.start_hub()
        await fleet.all_done_exactly_once()
    finally:
        await fleet.close()


async def test_a_second_signal_is_immediate(fleet: RollingFleet) -> None:
    assert fleet._hub is not None
    os.kill(fleet._hub.pid, signal.SIGSTOP)  # both signals are there before it can begin to drain
    fleet._hub.send_signal(signal.SIGTERM)
    fleet._hub.send_signal(signal.SIGINT)
    os.kill(fleet._hub.pid, signal.SIGCONT)
    assert await asyncio.wait_for(fleet._hub.wait(), DRAIN_S + SLACK_S) == 130


async def test_an_agent_is_drained_and_one_is_told_when_it_is_empty(fleet: RollingFleet) -> None:
    await fleet.submit(4.0, 4.0, 0.2, 0.2)
    await fleet.working(len(AGENTS))
    code, said = await _drain(fleet, AGENTS[0], "--timeout", "0")
    assert code == 6 and "holding t-" in said, said
    code, said = await _drain(fleet, AGENTS[0])
    assert code == 0 and f"{AGENTS[0]} is empty, and paused" in said, said
    async with fleet.client() as hub:
        assert (await hub.agent(AGENTS[0]))["task"] is None
    await fleet.all_done_exactly_once()
    async with fleet.client() as hub:
        assert (await hub.agent(AGENTS[0]))["flags"] == ["paused"], "it stays so until somebody resumes it"


async def _drain(fleet: RollingFleet, *argv: str) -> tuple[int | None, str]:
    drain = await asyncio.create_subprocess_exec(
        *(fleet.python, "-m", "hub.cli", "--url", fleet.url, "agent", "drain", *argv),
        env={**os.environ, "AGENTCOM_TOKEN": fleet.admin_token},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(drain.communicate(), 60)
    return drain.returncode, said.decode()
