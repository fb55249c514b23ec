"""A hub whose certificate is from a CA of the operator's own: SSL_CERT_FILE is all that a machine needs to join it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.test_port import certificate
from tests.integration.test_tls import SecureFleet
from tests.support.newcomer import Newcomer, faults, open_directory

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def place() -> Iterator[Path]:
    with open_directory() as place:
        yield place


@pytest.fixture
async def fleet(place: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SecureFleet]:
    fleet = SecureFleet(place, agents=1)
    fleet.url = fleet.url.replace("http://", "https://")
    certificate(place, monkeypatch)
    (place / "hub.toml").write_text(
        f'data_dir = "hub"\n[listen]\nport = {fleet.port}\ntls_cert = "tls.pem"\ntls_key = "tls.key"\n[log]\nformat = "json"\n'
    )
    try:
        await fleet.start_hub()
        yield fleet
    finally:
        await fleet.close()


async def test_with_its_file_a_machine_joins_and_without_it_is_told_what_is_missing(fleet: SecureFleet, place: Path) -> None:
    async with fleet.client() as admin:
        code = (await admin.create_enrolment())["code"]
    failed, said, _ = await Newcomer(place, environ={"SSL_CERT_FILE": ""}).join(fleet.url, code)
    assert failed == 1
    assert "is not trusted" in faults(said)[0]["found"]
    assert "SSL_CERT_FILE" in faults(said)[0]["fix"]
    machine = Newcomer(place, environ={"SSL_CERT_FILE": str(place / "ca.pem")})
    joined, said, err = await machine.join(fleet.url, code)
    assert joined == 0, (said, err)
    assert f'hub_url = "wss://127.0.0.1:{fleet.port}/ws"' in machine.config.read_text()
