"""The one port: a listening socket, TLS, who may connect, and uvicorn behind it for HTTP and the sidecars' upgrades."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from hub.core.errors import HubError
from hub.edge.http.connection import Connection
from hub.edge.peers import Network, Peers
from hub.edge.ws import Acceptor

BACKLOG = 4096
STOP_S = 2
TELL_AGAIN_S = 60.0
TOLD_PEERS = 256
"""Refused addresses that are remembered, so that each fills the log only once in :data:`TELL_AGAIN_S`."""

log = structlog.get_logger("hub.edge.port")


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """How the port is served: ``tls`` or plain, whose connections are taken, and which ``proxies`` may speak for others."""

    tls: ssl.SSLContext | None = None
    peers: Peers = Peers()
    proxies: Sequence[Network] = ()


class Server(uvicorn.Server):
    """Uvicorn without its signal handling: it re-raises SIGTERM before our own clean-up could run."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the hub."""
        yield


def server(http: ASGIApp, acceptor: Acceptor, port: Port) -> Server:
    """The server of a port, ready to be given a listening socket."""
    context = port.tls
    return Server(
        uvicorn.Config(
            http,
            http=_guarded(port.peers) if port.peers.networks is not None else Connection,
            ws=acceptor.factory,  # type: ignore[arg-type]  # uvicorn's hook takes any factory; its annotation is narrower
            ssl_context_factory=None if context is None else lambda _config, _default: context,
            proxy_headers=bool(port.proxies),
            forwarded_allow_ips=[str(proxy) for proxy in port.proxies],
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=STOP_S,
        )
    )


def _guarded(peers: Peers) -> type[asyncio.Protocol]:
    """The protocol for connections of ``peers``; others are cut off before they are read."""
    told: dict[str, float] = {}

    class Guarded(Connection):
        _refused = False

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            peer = transport.get_extra_info("peername")  # none: whoever came has gone again
            if peer is not None and peers.admits(str(peer[0])):
                super().connection_made(transport)
                return
            self._refused = True
            if peer is not None:
                _tell(told, str(peer[0]))
            cast("asyncio.Transport", transport).abort()

        def connection_lost(self, exc: Exception | None) -> None:
            if not self._refused:
                super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if not self._refused:  # what came with the end of a TLS handshake is handed over even so
                super().data_received(data)

    return Guarded


def _tell(told: dict[str, float], host: str) -> None:
    now = time.monotonic()
    if now - told.get(host, -TELL_AGAIN_S) < TELL_AGAIN_S:
        return
    if len(told) >= TOLD_PEERS:
        told.clear()
    told[host] = now
    log.warning("peer_refused", peer=host, cure="if it may come, add its network to listen.trusted_networks")


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket at an IP address or ``localhost``; raises HubError with the cure when the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as fault:
        raise HubError(f"cannot listen on {authority(host, port)}: {fault.strerror}") from fault
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # :: means every address, whatever the machine's default is
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        try:
            listener.bind(cast("Any", address))
        except OSError as fault:
            raise HubError(
                f"cannot listen on {authority(host, port)}: {fault.strerror}; choose another --port, or stop what uses it"
            ) from fault
        listener.listen(BACKLOG)
        yield listener


def authority(host: str, port: int) -> str:
    """``host:port`` as URLs write it: IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address(host: str, port: int, *, tls: bool) -> str:
    """The base URL of a hub that listens there. A wildcard is no address: this machine's name stands for it."""
    name = socket.gethostname() if host in {"0.0.0.0", "::"} else host  # noqa: S104  compared, not bound
    return f"{'https' if tls else 'http'}://{authority(name, port)}"
