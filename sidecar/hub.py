"""Requests to a hub, as joining, leaving and ``doctor`` make them; when one fails the words say why and what to do."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import httpx2

from hub.wire.address import is_loopback

TIMEOUT_S = 10.0


class Unreachable(Exception):
    """No hub answered. ``cure`` says what to do."""

    code = "hub_unreachable"
    retryable = True

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


class Refusal(Exception):
    """The hub answered and refused: its problem document, read (RFC 9457)."""

    retryable = False

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(str(body.get("detail") or body.get("title") or f"HTTP {status}")[:2000])
        self.status = status
        self.code = str(body.get("code") or f"http_{status}")[:64]
        self.errors = [error for error in body.get("errors") or [] if isinstance(error, dict)][:64]


def http_url(url: str) -> str:
    """The hub's address for requests, from either of its two forms: ``ws://h:1/ws`` and ``http://h:1`` name the same hub."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    path = parts.path.rstrip("/").removesuffix("/ws")
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def socket_url(url: str) -> str:
    """The address for sidecars of the hub that answers requests at ``url``."""
    parts = urlsplit(http_url(url))
    return urlunsplit(({"http": "ws", "https": "wss"}[parts.scheme], parts.netloc, f"{parts.path}/ws", "", ""))


class Hub:
    """Requests to one hub with one credential. A context manager."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = http_url(url)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.Client(
            timeout=TIMEOUT_S,
            headers=headers,
            verify=httpx2.create_ssl_context(),  # with SSL_CERT_FILE, also where the next line closes the environment
            trust_env=not is_loopback(self.url),  # its proxies are for the world outside, as for the sidecar's socket
        )

    def __enter__(self) -> Self:
        """Open."""
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connection."""
        self._http.close()

    def greet(self) -> datetime | None:
        """Make sure that a hub answers; the time on its clock, if it tells. Raises :class:`Unreachable`."""
        answer = self._send("GET", "/healthz")
        if answer.status_code >= 500:
            raise Unreachable(
                f"{self.url} answers with HTTP {answer.status_code}", "the hub, or a proxy before it, is not ready: wait"
            )
        if answer.status_code != 200 or not isinstance(_json(answer), dict) or "ok" not in _json(answer):
            cure = "check address and port: the hub prints its own when it starts"
            raise Unreachable(f"something answers at {self.url}, but it is no AgentCom hub (HTTP {answer.status_code})", cure)
        return _moment(answer.headers.get("date"))

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Send under ``/api/v1`` and read the JSON object of the answer; raises :class:`Unreachable` or :class:`Refusal`."""
        answer = self._send(method, f"/api/v1{path}", body)
        said = _json(answer)
        if answer.status_code >= 300:
            raise Refusal(answer.status_code, said)
        return said

    def _send(self, method: str, path: str, body: object = None) -> httpx2.Response:
        try:
            return self._http.request(method, self.url + path, json=body)
        except (httpx2.TransportError, httpx2.InvalidURL, ssl.SSLError, OSError) as fault:
            raise explain(self.url, fault) from fault


def explain(url: str, fault: BaseException) -> Unreachable:
    """Why there was no answer, as precisely as the system says, with what to do about just that."""
    parts = urlsplit(url)
    host, where = parts.hostname or "", f"{parts.hostname}:{parts.port or {'https': 443}.get(parts.scheme, 80)}"
    for cause in _causes(fault):
        match cause:
            case socket.gaierror():
                return Unreachable(
                    f"the name {host} has no address ({cause.strerror})",
                    "check the spelling of the host, and this machine's DNS",
                )
            case ssl.SSLCertVerificationError():
                cure = "for a CA of your own name its file in SSL_CERT_FILE; the address must be one the certificate is for"
                return Unreachable(f"the certificate of {where} is not trusted: {cause.verify_message}", cure)
            case ssl.SSLError():
                cure = "if the hub does not speak TLS write http:// instead (on a network you trust)"
                return Unreachable(f"{where} does not speak TLS as expected ({cause.strerror})", cure)
            case ConnectionRefusedError():
                return Unreachable(f"nothing listens at {where} (connection refused)", "start the hub, or correct the port")
            case ConnectionResetError():
                return Unreachable(f"{where} closed the connection", "check the port, and whether it wants https://")
            case httpx2.ConnectTimeout() | TimeoutError():
                cure = "a firewall may drop what is sent there: open the hub's port to this machine, or use the address of a shared network"
                return Unreachable(f"no answer from {where} within {TIMEOUT_S:g} s", cure)
            case OSError() if cause.errno is not None and not isinstance(cause, ssl.SSLError):
                return Unreachable(f"{where} cannot be reached: {cause.strerror}", "check the network between here and the hub")
    return Unreachable(f"{where} does not answer: {type(fault).__name__}: {fault}"[:500], "check address and port")


def _causes(fault: BaseException | None) -> list[BaseException]:
    """The fault and what it came from, innermost first: libraries wrap the one that says it all."""
    found: list[BaseException] = []
    while fault is not None and fault not in found:
        found.append(fault)
        fault = fault.__cause__ or fault.__context__
    return found[::-1]


def _json(answer: httpx2.Response) -> dict[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _moment(date: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(date) if date else None
    except ValueError:
        return None
