"""What an address tells of the way to a hub."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Whether an address names this machine and no network is on the way, so that no proxy has a part in it either."""
    with suppress(ValueError):  # no address at all
        host = urlsplit(url).hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return True
        return ipaddress.ip_address(host).is_loopback
    return False
