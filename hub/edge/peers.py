"""Whose connections are taken: decided by the address of the peer, before a byte of it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Peers:
    """Those in ``networks``, and always this machine; None takes everybody."""

    networks: Sequence[Network] | None = None

    def admits(self, host: str) -> bool:
        """Whether a peer at this IP address may connect. An IPv4 address that arrives on an IPv6 socket is judged as what it is."""
        if self.networks is None:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address.is_loopback or any(address in network for network in self.networks)
