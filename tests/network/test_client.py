"""People and programs behind a bad network: the client, the command line and bodies by reference are bounded, clear, and lose nothing."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hub.cli.exits import Exit
from hub.cli.root import app
from hub.client import HubClient, HubUnreachable, Reset, Started, stream
from hub.client.transport import Transport
from ops.bench.sidecars import Site
from tests.network.test_faults import far_agent
from tests.support.living_hub import LivingHub
from tests.support.proxy import Flow, Pair, Proxy
from tests.support.tap import Point, Way

LOSSES = [(Way.UP, Point.BEFORE), (Way.UP, Point.AMID), (Way.UP, Point.AFTER), (Way.DOWN, Point.BEFORE), (Way.DOWN, Point.AMID)]
"""Where a request or its answer can get lost."""
RESEARCH: Any = {"title": "Look", "type": "research", "repo": None}


@pytest.fixture
async def proxy(hub: LivingHub) -> AsyncIterator[Proxy]:
    async with Proxy(hub.port) as proxy:
        yield proxy


def client_of(proxy: Proxy, hub: LivingHub, timeout_s: float = 30.0, token: str = "operator") -> HubClient:
    return HubClient(f"http://127.0.0.1:{proxy.port}", hub.tokens[token], timeout_s=timeout_s)


def starve(pair: Pair) -> None:
    pair.flows = dict.fromkeys(Way, Flow(bytes_per_s=1))


def drip(pair: Pair) -> None:
    """Always something, never enough: no silence is long enough to be noticed."""
    pair.flows = {Way.DOWN: Flow(bytes_per_s=20)}


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_submission_repeated_with_its_key_through_any_cut_is_one_task(hub: LivingHub, proxy: Proxy) -> None:
    async with client_of(proxy, hub) as client:
        for way, point in LOSSES:
            key = f"{way} {point}"
            trap = proxy.when(way, b"POST /api/v1/tasks" if way is Way.UP else b"HTTP/1.1 201", point, Pair.reset)
            with pytest.raises(HubUnreachable, match=r"the connection broke off|reset"):
                await client.submit(RESEARCH | {"title": key, "hold": True}, idempotency_key=key)
            assert trap.sprung
            again = await client.submit(RESEARCH | {"title": key, "hold": True}, idempotency_key=key)
            assert [task["id"] async for task in client.every_task(text=key)] == [again["id"]]


async def test_a_request_into_a_black_hole_or_to_a_drip_ends_and_says_why(hub: LivingHub, proxy: Proxy) -> None:
    async with client_of(proxy, hub, timeout_s=0.3) as client:
        proxy.blacken()
        with pytest.raises(HubUnreachable, match="nothing was heard in time") as silent:
            await client.status()
        assert "does not answer" in silent.value.hint
        proxy.heal()
        proxy.when(Way.UP, b"GET /api/v1/status", Point.AFTER, drip)
        with pytest.raises(HubUnreachable, match="nothing was heard in time"):
            await client.status()
    async with client_of(proxy, hub) as client:
        assert (await client.status())["ready"]


def test_a_command_into_a_black_hole_ends_with_words_and_its_code(hub: LivingHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Transport.__init__.__kwdefaults__, "timeout_s", 0.3)
    monkeypatch.setenv("AGENTCOM_TOKEN", hub.tokens["operator"])

    async def ask() -> Any:
        async with Proxy(hub.port) as proxy:
            proxy.blacken()
            argv = ["--url", f"http://127.0.0.1:{proxy.port}", "task", "list"]
            return await asyncio.to_thread(partial(CliRunner(env={"COLUMNS": "200"}).invoke, app, argv))

    done = asyncio.run(ask())
    assert done.exit_code == Exit.UNREACHABLE
    assert "nothing was heard in time" in done.stderr
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stream_of_events_has_no_gap_through_cuts_of_every_kind(
    hub: LivingHub, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BEATS_MISSED_S", 0.5)
    monkeypatch.setattr(stream, "LAST_RETRY_S", 0.3)
    chance, seen = random.Random(7), []

    async def disturb(client: HubClient) -> str:
        """Events for as long as it takes, and a cut between any two; the last event's task."""
        cuts = [Pair.reset, Pair.vanish, partial(Pair.half_open, gone=Way.UP), partial(Pair.half_open, gone=Way.DOWN), starve]
        for cut in cuts:
            point = chance.choice(list(Point))
            trap = proxy.when(Way.DOWN, b"\nid: ", point, cut)
            while not trap.done.is_set():
                await client.submit(RESEARCH | {"hold": True})
                await asyncio.sleep(0.02)
        return (await client.submit(RESEARCH | {"hold": True}))["id"]

    async with (
        HubClient(hub.url, hub.tokens["operator"]) as direct,
        client_of(proxy, hub) as far,
        asyncio.timeout(60),
        asyncio.TaskGroup() as group,
        aclosing(far.events()) as events,
    ):
        assert isinstance(started := await anext(events), Started)
        disturbing = group.create_task(disturb(direct))
        async for item in events:
            assert not isinstance(item, Reset)
            if isinstance(item, dict):
                seen.append(item["seq"])
                if disturbing.done() and item["task"] == disturbing.result():
                    break
    assert seen == list(range(started.seq + 1, started.seq + 1 + len(seen))), "each event once, in order"
    assert proxy.accepted > 5


@pytest.mark.parametrize("cut", [Pair.reset, Pair.vanish], ids=["reset", "swallowed"])
async def test_waiting_for_an_end_survives_the_loss_of_its_one_reading(hub: LivingHub, proxy: Proxy, cut: Any) -> None:
    """The stream stays, so nothing else would ever make it look again."""
    async with HubClient(hub.url, hub.tokens["operator"]) as direct, client_of(proxy, hub, timeout_s=0.5) as far:
        task = (await direct.submit(RESEARCH | {"hold": True}))["id"]
        await direct.cancel(task)
        trap = proxy.when(Way.UP, f"GET /api/v1/tasks/{task} ".encode(), Point.BEFORE, cut)
        async with asyncio.timeout(20):
            assert (await far.until_ended(task))["state"] == "cancelled"
        assert trap.sprung


async def test_watching_a_task_shows_every_event_through_cuts(hub: LivingHub, proxy: Proxy) -> None:
    async with HubClient(hub.url, hub.tokens["operator"]) as direct:
        task = (await direct.submit(RESEARCH | {"title": "Watch me", "hold": True}))["id"]
        watching = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hub.cli", "--url", f"http://127.0.0.1:{proxy.port}", "task", "watch", task, "--json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={"AGENTCOM_TOKEN": hub.tokens["operator"]},
        )  # fmt: skip
        async with asyncio.timeout(60):
            reading = proxy.when(Way.UP, f"GET /api/v1/tasks/{task} ".encode(), Point.AFTER, lambda _pair: None)
            await reading.done.wait()
            reading = proxy.when(Way.UP, f"GET /api/v1/tasks/{task} ".encode(), Point.BEFORE, Pair.reset)
            await reading.done.wait()
            since = (await direct.task(task))["history"]
            for point in Point:
                cut = proxy.when(Way.DOWN, b"data: {", point, Pair.reset)
                for steer in (direct.release, partial(direct.hold, reason="so")):
                    await steer(task)
                await cut.done.wait()
            await direct.cancel(task)
            said, errors = await watching.communicate()
        happened = {event["seq"] for event in (await direct.task(task))["history"]} - {event["seq"] for event in since}
    assert watching.returncode == Exit.NOT_DONE, errors.decode()
    assert [json.loads(line)["seq"] for line in said.splitlines()] == sorted(happened)


# ── bodies by reference ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_blob_cut_on_its_way_there_or_back_is_whole_or_not_at_all(hub: LivingHub, proxy: Proxy) -> None:
    body = random.Random(1).randbytes(300_000)
    async with client_of(proxy, hub, token="agent", timeout_s=5) as client:
        for n, (way, point) in enumerate(LOSSES):
            one = body + bytes([n])
            proxy.when(way, b"PUT /api/v1/blobs/" if way is Way.UP else b"HTTP/1.1 201", point, Pair.reset)
            with pytest.raises(HubUnreachable):
                await client.put_blob(one)
            sha256 = await client.put_blob(one)
            proxy.when(way, b"GET /api/v1/blobs/" if way is Way.UP else b"HTTP/1.1 200", point, Pair.reset)
            with pytest.raises(HubUnreachable):
                await client.get_blob(sha256)
            assert await client.get_blob(sha256) == one


@pytest.mark.parametrize("cut", [Pair.reset, Pair.vanish, drip], ids=["reset", "swallowed", "drip"])
async def test_a_spec_that_does_not_arrive_is_given_back_and_comes_again(
    hub: LivingHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Any
) -> None:
    """A drip of bytes held up the link for as long as it dripped, and the agent with it."""
    monkeypatch.setattr("sidecar.blobs.TIMEOUT_S", 0.5)
    site, name = Site(), f"blob-{cut.__name__}"
    async with far_agent(hub, name, site, tmp_path) as (proxy, there), HubClient(hub.url, hub.tokens["operator"]) as client:
        trap = proxy.when(Way.UP, b"GET /api/v1/blobs/", Point.AFTER, cut)
        large = {"success_criteria": ["ö" * 1000] * 60, "description": "ä" * 10_000, "assign_to": name}
        task = await client.submit(RESEARCH | large)
        async with asyncio.timeout(30):
            ended = await client.until_ended(task["id"])
        assert trap.sprung
        assert (ended["state"], ended["lost"], site.starts.total()) == ("done", 0, 1)
        assert there.holder.connected
