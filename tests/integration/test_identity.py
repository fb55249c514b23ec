"""Who comes in, on a real hub: tokens that survive a kill, revocation that closes what is open, a machine that joins and is probed."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from hub.cli.demo.stage import StageError
from hub.client import HubClient, HubProblem
from hub.core.errors import HubError
from hub.first_start import recover_admin
from hub.wire.codec import encode
from tests.support.door import hello
from tests.support.fleet import Fleet, wait_until

pytestmark = pytest.mark.timeout(60)

INSTALL = "1" * 32


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path, agents=1)
    try:
        await fleet.start_hub()
        yield fleet
    finally:
        await fleet.close()


async def join(fleet: Fleet, *agents: str) -> str:
    """A machine's token, from a code and a secret that stays here."""
    secret = secrets.token_urlsafe(32)
    async with fleet.client() as admin:
        code = (await admin.create_enrolment())["code"]
    async with HubClient(fleet.url, code) as stranger:
        sha256 = hashlib.sha256(secret.encode()).hexdigest()
        known = await stranger.enrol(install_id=INSTALL, secret_sha256=sha256, agents=agents, hostname="m1")
    return f"ac_{known['token_id']}_{secret}"


def socket(fleet: Fleet, token: str):
    headers = {"Authorization": f"Bearer {token}"}
    return connect(f"ws://127.0.0.1:{fleet.port}/ws", additional_headers=headers, subprotocols=[Subprotocol("agentcom.v1")])


async def test_revoking_a_machines_token_closes_its_socket_and_keeps_it_out_also_after_a_kill(fleet: Fleet) -> None:
    token = await join(fleet, "w1")
    async with socket(fleet, token) as link, fleet.client() as admin:
        await link.send(encode(hello("w1", install_id=INSTALL)).decode())
        assert orjson.loads(await link.recv())["t"] == "welcome"
        await admin.revoke_token(token.split("_")[1])
        with pytest.raises(ConnectionClosed) as closed:
            await link.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4504
    await fleet.kill_hub()
    await fleet.start_hub()
    with pytest.raises(InvalidStatus) as refused:
        await socket(fleet, token).__aenter__()
    assert refused.value.response.status_code == 401


async def test_what_was_issued_is_good_after_a_kill(fleet: Fleet) -> None:
    async with fleet.client() as admin:
        issued = await admin.issue_token("ann", ["observer"])
    await fleet.kill_hub()
    await fleet.start_hub()
    async with HubClient(fleet.url, issued["token"]) as ann:
        assert (await ann.whoami())["name"] == "ann"
        with pytest.raises(HubProblem, match="scope submitter"):
            await ann.submit({"title": "no"})


async def test_a_stream_ends_with_the_token_it_was_opened_with(fleet: Fleet) -> None:
    async with fleet.client() as admin:
        issued = await admin.issue_token("ann", ["observer"])
        async with HubClient(fleet.url, issued["token"]) as ann, asyncio.timeout(20):
            response = ann.http.stream("GET", "/api/v1/events")
            async with response as stream:
                lines = stream.aiter_lines()
                assert await anext(lines) == "event: start"
                await admin.revoke_token(issued["id"])
                heard = [line async for line in lines]
        assert not any("token.revoked" in line for line in heard), "nothing that happened after it was revoked"


async def test_a_probe_shows_that_a_machine_works_and_wakes_no_agent(fleet: Fleet) -> None:
    await fleet.start_agents("a-1")
    async with fleet.client() as admin:

        async def known() -> bool:
            return bool((await admin.agents())["agents"])

        await wait_until(known, limit_s=20, what="the agent connects")
        task = (await admin.start_probe("a-1"))["task"]

        async def ended() -> bool:
            return (await admin.probe("a-1", task))["state"] in {"done", "dead", "cancelled"}

        await wait_until(ended, limit_s=20, what="the probe ends")
        assert (await admin.probe("a-1", task))["state"] == "done"
        assert (await admin.tasks())["tasks"] == [], "probes are internal: lists leave them out"
    assert fleet.agent_runs() == []


async def test_a_lost_administrator_is_recovered_on_the_hubs_own_machine(fleet: Fleet) -> None:
    with pytest.raises(HubError, match="another hub has"):
        await asyncio.to_thread(recover_admin, fleet.data_dir)
    await fleet.kill_hub()
    file = await asyncio.to_thread(recover_admin, fleet.data_dir)
    await fleet.start_hub()
    async with HubClient(fleet.url, file.read_text().strip()) as again, fleet.client() as before:
        assert (await again.whoami())["scopes"] == ["admin"]
        assert (await before.whoami())["scopes"] == ["admin"], "those that were not lost stay good"


async def test_a_lost_key_is_said_at_the_start_and_recovered_by_hand(fleet: Fleet) -> None:
    await fleet.kill_hub()
    (fleet.data_dir / "hub.key").unlink()
    with pytest.raises(StageError, match="the hub ended with 1"):
        await fleet.start_hub()
    assert "hub.key is gone" in (fleet.root / "hub.log").read_text()
    file = await asyncio.to_thread(recover_admin, fleet.data_dir)
    await fleet.start_hub()
    async with HubClient(fleet.url, file.read_text().strip()) as again, fleet.client() as before:
        live = [token["name"] for token in (await again.tokens())["tokens"] if token["live"]]
        assert live == ["admin", "sidecar"], "whatever was made with the old key has ended; start-dev makes its agents' anew"
        with pytest.raises(HubProblem, match="a valid token is needed"):
            await before.whoami()


async def test_a_token_for_this_machine_passes_no_proxy(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with fleet.client() as admin:
        assert (await admin.whoami())["name"] == "admin"
