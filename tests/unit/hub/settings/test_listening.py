"""Who may be served without TLS, and the refusal with its three cures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hub.edge.peers import Peers
from hub.settings.keys import KEYS
from hub.settings.tree import Listen

MESH, V6 = "100.64.0.0/10", "fd00::/8"


def listen(host: str, **keys: Any) -> Listen:
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in keys.items()}
    return Listen(host=host, **lists)


def refusal(host: str, **keys: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        listen(host, **keys)
    return caught.value.errors()[0]["msg"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    assert listen(host).admitted == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "100.64.0.1", "203.0.113.5", "fd00::1"])
def test_anything_else_is_refused_with_the_three_cures(host: str) -> None:
    said = refusal(host)
    assert host in said
    for cure in ("listen.tls_cert and listen.tls_key", "listen.trusted_proxies", "listen.trusted_networks"):
        assert cure in said


@pytest.mark.parametrize(
    ("host", "networks"),
    [("100.64.3.4", [MESH]), ("fd00::5", [V6]), ("0.0.0.0", [MESH]), ("::", [MESH, V6]), ("10.1.2.3", ["10.1.2.3"])],
)
def test_a_private_network_is_enough_for_an_address_within_and_for_a_wildcard(host: str, networks: list[str]) -> None:
    assert [str(network).partition("/32")[0] for network in listen(host, trusted_networks=networks).admitted or ()] == networks


@pytest.mark.parametrize(("host", "networks"), [("192.168.1.5", [MESH]), ("203.0.113.5", [MESH]), ("fd00::1", [MESH])])
def test_an_address_outside_the_networks_is_refused(host: str, networks: list[str]) -> None:
    assert "is outside listen.trusted_networks (100.64.0.0/10)" in refusal(host, trusted_networks=networks)


@pytest.mark.parametrize(
    "network",
    [
        "0.0.0.0/0",
        "::/0",
        "8.8.8.0/24",
        "172.0.0.0/8",
        "192.0.0.0/8",
        "0.0.0.0/1",
        "2001:db8::/32",
        "100.0.0.0/8",
        "10.0.0.0/7",
    ],
)
def test_a_network_that_is_routed_globally_is_never_trusted(network: str) -> None:
    assert "is not private" in refusal("0.0.0.0", trusted_networks=[network])


def test_a_proxy_or_tls_is_enough() -> None:
    assert [str(network) for network in listen("203.0.113.5", trusted_proxies=["203.0.113.1"]).admitted or ()] == [
        "203.0.113.1/32"
    ]
    tls = {"tls_cert": Path("c"), "tls_key": Path("k")}
    assert listen("0.0.0.0", **tls).admitted is None
    assert listen("0.0.0.0", **tls, trusted_proxies=["203.0.113.1"]).admitted is None
    only = listen("0.0.0.0", **tls, trusted_networks=[MESH]).admitted
    assert [str(network) for network in only or ()] == [MESH], "named networks are the only ones, also with TLS"


def test_half_of_tls_is_no_tls() -> None:
    assert "belong together" in refusal("0.0.0.0", tls_cert=Path("c"))
    assert "belong together" in refusal("127.0.0.1", tls_key=Path("k"))


@pytest.mark.parametrize(
    ("host", "admitted"),
    [
        ("100.64.0.1", True),
        ("100.127.255.255", True),
        ("100.128.0.0", False),
        ("8.8.8.8", False),
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:100.64.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("::ffff:127.0.0.1", True),
        ("fd00::1", True),
        ("fe80::1%eth0", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_a_peer_is_judged_by_its_address(host: str, admitted: bool) -> None:
    networks = KEYS["listen.trusted_networks"].adapter.validate_python((MESH, V6))
    assert Peers(networks).admits(host) is admitted
    assert Peers(None).admits(host)
