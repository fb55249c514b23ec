"""One request and its answer, and nothing about nouns: addresses, the token, errors as exceptions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from urllib.parse import quote

import httpx2

from hub.client.errors import HubProblem, HubUnreachable
from hub.wire.address import is_loopback

T = TypeVar("T")

TIMEOUT_S = 30.0
"""How long nothing at all may be heard."""
DRIPS = 4
"""How many times as long a whole exchange may take, however slowly it goes on."""
RATE_LIMITED = "rate_limited"
PATIENCE_S = 60.0
"""How long one call waits in all for its turn."""
LEAST_WAIT_S = 0.1
API = "/api/v1"


class Transport:
    """An HTTP connection to one hub with one token. Use it as an async context manager."""

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        headers = {"Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.http = httpx2.AsyncClient(
            base_url=self.base_url,
            headers=headers,
            timeout=timeout_s,
            transport=transport,
            verify=httpx2.create_ssl_context(),  # with SSL_CERT_FILE, also where the next line closes the environment
            trust_env=not is_loopback(self.base_url),  # no proxy is between this machine and itself, or it would see the token
        )

    async def __aenter__(self) -> Self:
        """Open."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        await self.http.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> httpx2.Response:
        """Send under ``/api/v1``; raises :class:`HubProblem` for every refusal, :class:`HubUnreachable` without answer.

        ``timeout_s`` is for what takes longer than the client's own. A request that came too soon is sent again when the hub said, for
        at most :data:`PATIENCE_S`: nothing of it was done.
        """
        wanted = {key: value for key, value in (params or {}).items() if value is not None}
        extra = {key: value for key, value in (headers or {}).items() if value}
        patience_s = PATIENCE_S
        while True:
            answer = await self.exchange(
                method,
                API + path,
                timeout_s=timeout_s,
                json=body,
                content=content,
                params=wanted or None,
                headers=extra or None,
            )
            if answer.status_code < 300:
                return answer
            problem = refusal(answer)
            wait_s = problem.retry_after_s
            if problem.code != RATE_LIMITED or wait_s is None or wait_s > patience_s:
                raise problem
            patience_s -= max(wait_s, LEAST_WAIT_S)
            await asyncio.sleep(max(wait_s, LEAST_WAIT_S))

    async def exchange(self, method: str, path: str, *, timeout_s: float | None = None, **request: Any) -> httpx2.Response:
        """One request and its whole answer, whatever it is; raises :class:`HubUnreachable` without one."""
        silent_s = timeout_s or self._timeout_s
        try:
            async with asyncio.timeout(DRIPS * silent_s):
                return await self.http.request(method, path, timeout=silent_s, **request)
        except (httpx2.TransportError, httpx2.InvalidURL, TimeoutError) as fault:
            raise HubUnreachable(self.base_url, fault) from fault

    async def ask(self, _kind: type[T], method: str, path: str, **rest: Any) -> T:
        """Send, and the JSON document of the answer, which the hub promises to be a ``_kind``."""
        return cast("T", (await self.send(method, path, **rest)).json())


def refusal(answer: httpx2.Response) -> HubProblem:
    """The problem in an answer; also for what a proxy between may have said without one."""
    try:
        body = answer.json()
    except ValueError:
        body = {}
    try:
        retry_after_s = float(answer.headers["retry-after"])
    except (KeyError, ValueError):
        retry_after_s = None
    return HubProblem(answer.status_code, body if isinstance(body, dict) else {}, retry_after_s)


def part(name: str) -> str:
    """A name as one segment of a path: whatever it holds, it leads nowhere else."""
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")


def given(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
