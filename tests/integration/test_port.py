"""The one port for real: who may connect, who may speak for others, addresses in URLs, and certificates judged before listening."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme

from hub.core.errors import HubError
from hub.edge import port as module
from hub.edge.doctor import examine_certificate
from hub.edge.peers import Peers
from hub.edge.port import Port, address, listen, server
from hub.edge.ratelimit import Limiter, Rates
from hub.edge.tls import TlsUnusable, ends_at, server_context
from hub.edge.ws import Acceptor
from tests.support.door import door


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what the server believes about the caller."""
    body = json.dumps({"client": scope["client"][0], "scheme": scope["scheme"]}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(port: Port, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """A server; its base URL."""
    async with door() as here:
        with listen(host, 0) as listener:
            running = server(echo, Acceptor(here.links, None, Limiter(Rates())), port)  # type: ignore[arg-type]  # nobody authenticates here
            task = asyncio.create_task(running._serve([listener]))
            async with asyncio.timeout(10):
                while not running.started:
                    await asyncio.sleep(0.01)
            try:
                yield address(host, listener.getsockname()[1], tls=port.tls is not None)
            finally:
                running.should_exit = True
                await task


async def ask(url: str, *, source: str | None = None, **headers: str) -> dict[str, Any]:
    transport = httpx2.AsyncHTTPTransport(local_address=source)
    async with httpx2.AsyncClient(transport=transport) as http:
        answer = await http.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return answer.json()


# ── who may connect ──────────────────────────────────────────────────────────────────────────────────────────────────


class AllButTwo(Peers):
    """Loopback is always admitted, and a test has no other address: this one stands for a stranger's."""

    def admits(self, host: str) -> bool:
        return host != "127.0.0.2"


@pytest.mark.parametrize("tls", [False, True])
async def test_a_stranger_is_cut_off_before_it_is_heard_and_others_are_served(
    tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = server_context(*certificate(tmp_path, monkeypatch)) if tls else None
    async with serving(Port(tls=context, peers=AllButTwo(()))) as url:
        for _ in range(3):
            with pytest.raises(httpx2.TransportError):
                await ask(url, source="127.0.0.2")
        assert (await ask(url))["client"] == "127.0.0.1"
    said = capsys.readouterr().out
    assert said.count("peer_refused") == 1, "told once, not for each attempt"
    assert "listen.trusted_networks" in said


def test_the_memory_of_refused_peers_is_bounded() -> None:
    told: dict[str, float] = {}
    for n in range(3 * module.TOLD_PEERS):
        module._tell(told, str(n))
    assert len(told) <= module.TOLD_PEERS


# ── who may speak for others ─────────────────────────────────────────────────────────────────────────────────────────


async def test_forwarded_headers_are_believed_from_a_trusted_proxy_alone() -> None:
    forged = {"x_forwarded_for": "203.0.113.9", "x_forwarded_proto": "https"}
    async with serving(Port(proxies=[ip_network("127.0.0.2")])) as url:
        assert await ask(url, source="127.0.0.2", **forged) == {"client": "203.0.113.9", "scheme": "https"}
        assert await ask(url, **forged) == {"client": "127.0.0.1", "scheme": "http"}
    async with serving(Port()) as url:
        assert await ask(url, **forged) == {"client": "127.0.0.1", "scheme": "http"}, "nobody is trusted by default"


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_an_ipv6_address_is_served_and_written_as_urls_want_it() -> None:
    async with serving(Port(), host="::1") as url:
        assert url.startswith("http://[::1]:")
        assert (await ask(url))["client"] == "::1"


@pytest.mark.parametrize(
    ("host", "tls", "url"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:1"),
        ("fd00::5", True, "https://[fd00::5]:1"),
        ("0.0.0.0", True, "https://here:1"),
        ("::", False, "http://here:1"),
    ],
)
def test_an_address_is_one_that_can_be_used(monkeypatch: pytest.MonkeyPatch, host: str, tls: bool, url: str) -> None:
    monkeypatch.setattr(module.socket, "gethostname", lambda: "here")
    assert address(host, 1, tls=tls) == url


def test_a_port_that_is_taken_says_what_to_do() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with (
            pytest.raises(HubError, match=f"127.0.0.1:{port}: Address already in use; choose another --port"),
            listen("127.0.0.1", port),
        ):
            pass


# ── certificates ─────────────────────────────────────────────────────────────────────────────────────────────────────


def certificate(
    directory: Path, monkeypatch: pytest.MonkeyPatch | None = None, name: str = "tls", *, until: datetime | None = None
) -> tuple[Path, Path]:
    """A certificate for loopback and its key; clients of this process trust its issuer."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost", not_after=until)
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(cert, append=True)
    issued.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    authority.cert_pem.write_to_path(directory / "ca.pem")
    if monkeypatch is not None:
        monkeypatch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))
    return cert, key


def faults(cert: Path, key: Path) -> list[str]:
    with pytest.raises(TlsUnusable) as caught:
        server_context(cert, key)
    return caught.value.faults


async def test_a_good_certificate_serves_and_an_unknown_issuer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = server_context(*certificate(tmp_path, monkeypatch))
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    async with serving(Port(tls=context)) as url:
        assert (await ask(url))["scheme"] == "https"
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(url)


def test_both_files_are_judged_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path / "no.pem", tmp_path / "no.key")
    assert [fault.partition(":")[0] for fault in found] == ["tls_cert", "tls_key"]
    assert all("No such file" in fault for fault in found)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o660])
def test_a_key_that_others_can_read_is_refused_with_the_command(tmp_path: Path, mode: int) -> None:
    cert, key = certificate(tmp_path)
    key.chmod(mode)
    (fault,) = faults(cert, key)
    assert f"others can read {key}; run: chmod 6" in fault


def test_a_group_may_read_a_key_of_root_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate(tmp_path)
    key.chmod(0o640)
    found = key.stat()
    for owner, allowed in ((0, True), (1000, False)):
        owned = type(found)((*found[:4], owner, *found[5:]))
        monkeypatch.setattr(Path, "stat", lambda _path, owned=owned: owned)
        if allowed:
            server_context(cert, key)
        else:
            assert "chmod 600" in faults(cert, key)[0]


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    cert, _ = certificate(tmp_path)
    _, other = certificate(tmp_path, name="other")
    (fault,) = faults(cert, other)
    assert "is not the key of the certificate" in fault


def test_what_is_no_pem_is_refused(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    cert.write_bytes(b"\x30\x82 not text")
    assert "PEM" in faults(cert, key)[0]


def test_an_encrypted_key_asks_nobody(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form

    cert, key = certificate(tmp_path)
    loaded = form.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(loaded.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"secret")))
    (fault,) = faults(cert, key)
    assert "is encrypted" in fault


@pytest.mark.parametrize(
    ("days", "state", "words"),
    [
        (90, "ok", "until 20"),
        (10, "warn", "until 20"),
        (-1, "fail", "certificate has expired; renew it, and start the hub again"),
    ],
)
def test_the_end_of_a_certificate_is_known_before_it_hurts(tmp_path: Path, days: int, state: str, words: str) -> None:
    now = datetime.now(UTC)
    cert, key = certificate(tmp_path, until=now + timedelta(days=days))
    (found,) = examine_certificate(cert, key, now)
    assert found.state == state
    assert words in found.found
    if days > 0:
        assert ends_at(server_context(cert, key), cert) == (now + timedelta(days=days)).replace(microsecond=0)


def test_a_certificate_that_cannot_be_served_is_found(tmp_path: Path) -> None:
    found = examine_certificate(tmp_path / "no.pem", tmp_path / "no.key", datetime.now(UTC))
    assert [one.state for one in found] == ["fail", "fail"]
