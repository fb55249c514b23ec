"""A hub with a certificate: HTTPS and WSS on one port, a private authority, and a real sidecar that works through it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.client import HubClient, HubUnreachable
from tests.integration.test_port import certificate
from tests.support.fleet import Fleet, wait_until

pytestmark = pytest.mark.timeout(90)


class SecureFleet(Fleet):
    """A fleet whose hub reads a file and speaks TLS."""

    def hub_arguments(self) -> list[str]:
        return ["start", "--config", str(self.root / "hub.toml")]


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SecureFleet]:
    fleet = SecureFleet(tmp_path, agents=1)
    fleet.url = fleet.url.replace("http://", "https://")
    certificate(tmp_path, monkeypatch)
    (tmp_path / "hub.toml").write_text(
        f'data_dir = "hub"\n[listen]\nport = {fleet.port}\ntls_cert = "tls.pem"\ntls_key = "tls.key"\n[log]\nformat = "json"\n'
    )
    try:
        await fleet.start_hub()
        yield fleet
    finally:
        await fleet.close()


async def test_a_sidecar_works_over_wss_and_a_client_over_https(fleet: SecureFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet.client() as hub:
        fleet.agent_token_file.write_text((await hub.issue_token("machine", ["agent:a-1"]))["token"])
        fleet.agent_token_file.chmod(0o600)
        await fleet.start_agents("a-1")
        # larger than a frame: its spec is read over https, too
        large = {"description": "ä" * 10_000, "success_criteria": ["ö" * 1000] * 60}
        task = await hub.submit({"title": "Read", "type": "research", "metadata": {"mock": [{"do": "no_commit"}]}, **large})

        async def ended() -> bool:
            return (await hub.task(task["id"]))["state"] in {"done", "dead", "cancelled"}

        await wait_until(ended, limit_s=60, what="the task ends")
        detail = await hub.task(task["id"])
    assert detail["state"] == "done", detail["explanation"]
    assert f'"wss://127.0.0.1:{fleet.port}/ws"' in (fleet.root / "a-1.log").read_text()
    assert f"hub ready at https://127.0.0.1:{fleet.port}" in (fleet.root / "hub.log").read_text()
    monkeypatch.delenv("SSL_CERT_FILE")
    async with HubClient(fleet.url, fleet.admin_token) as stranger:
        with pytest.raises(HubUnreachable) as caught:
            await stranger.status()
    assert "SSL_CERT_FILE" in caught.value.hint
    async with HubClient(fleet.url.replace("https://", "http://"), fleet.admin_token) as plain:
        with pytest.raises(HubUnreachable):
            await plain.status()
