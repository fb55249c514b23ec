"""Who may be listened to without TLS. Pure: addresses in, words out.

A token travels with every request, so plain HTTP is for loopback, for networks that encrypt or isolate by themselves, and for
the way from a proxy that does TLS. Nothing else is ever assumed to be private.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

PRIVATE = tuple(
    ip_network(text)
    for text in (
        *("127.0.0.0/8", "::1/128"),  # loopback
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
        "100.64.0.0/10",  # RFC 6598, which meshes such as Tailscale use
        "169.254.0.0/16",  # RFC 3927
        *("fc00::/7", "fe80::/10"),  # RFC 4193, RFC 4291
    )
)
"""Every network that is never routed globally."""
LOCALHOST = "localhost"


def _network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value)
    except ValueError as fault:
        try:
            meant = ip_network(value, strict=False)
        except ValueError:
            raise ValueError(f"{value!r} is no address or network; write it like 100.64.0.0/10 or fd00::/8") from fault
        raise ValueError(f"{value!r} has bits set behind its prefix; the network is {meant}") from fault


def _private(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if not any(isinstance(network, type(known)) and network.subnet_of(known) for known in PRIVATE):  # type: ignore[arg-type]  # same version
        raise ValueError(
            f"{network} is not private: whoever is routed there may listen. Use TLS, or name the part of "
            f"{', '.join(str(known) for known in PRIVATE[2:])} that is yours"
        )
    return network


def _host(value: str) -> str:
    if value != LOCALHOST:
        try:
            ip_address(value)
        except ValueError:
            raise ValueError(
                f"{value!r} is no IP address; write one of this machine's, 0.0.0.0 or :: for all of them"
            ) from None
    return value


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
TrustedNetwork = Annotated[Network, AfterValidator(_private)]
Host = Annotated[str, AfterValidator(_host)]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``, an IP address or ``localhost``."""
    return host == LOCALHOST or ip_address(host).is_loopback


def refusal(host: str, networks: Sequence[Network], proxies: Sequence[Network]) -> str | None:
    """Why the hub will not serve plain HTTP at ``host``, with every cure; None when it will.

    A wildcard is inside no network, but every connection is checked against them, so having some is enough.
    """
    if is_loopback(host) or proxies:
        return None
    address = ip_address(host)
    if networks and (address.is_unspecified or any(address in network for network in networks)):
        return None
    if networks:
        return (
            f"{host} is outside listen.trusted_networks ({', '.join(map(str, networks))}): listen on this machine's address "
            "within them, on 0.0.0.0 or :: (every connection is checked), or set listen.tls_cert and listen.tls_key"
        )
    return (
        f"{host} is not loopback, and plain HTTP would show every token to whoever listens on the way. Do one of these:\n"
        "  TLS: set listen.tls_cert and listen.tls_key\n"
        "  a proxy that does TLS: name its address in listen.trusted_proxies\n"
        "  a private mesh: name its network in listen.trusted_networks, such as 100.64.0.0/10"
    )
