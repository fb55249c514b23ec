"""Bodies too large for a frame, read from the hub over HTTP under their SHA-256."""

from __future__ import annotations

import asyncio
import hashlib

import httpx2

from hub.wire.address import is_loopback
from sidecar.hub import http_url

TIMEOUT_S = 8.0
"""For all of a body, however slowly it comes: less than a beat may stay unanswered, for whoever waits for it holds up the frames behind."""


class BlobError(Exception):
    """The body could not be had, or is not what its name says."""

    code = "blob_unavailable"
    retryable = True


async def fetch(hub_url: str, token: str, sha256: str) -> bytes:
    """The body of that digest from the hub whose sidecars' socket is ``hub_url``; raises :class:`BlobError`."""
    hub = http_url(hub_url)
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx2.AsyncClient(
                timeout=TIMEOUT_S,
                verify=httpx2.create_ssl_context(),
                trust_env=not is_loopback(hub),  # no proxy is to see a token that does not leave this machine
            ) as http,
        ):
            answer = await http.get(f"{hub}/api/v1/blobs/{sha256}", headers={"Authorization": f"Bearer {token}"})
            answer.raise_for_status()
    except (httpx2.HTTPError, TimeoutError) as fault:
        raise BlobError(f"{type(fault).__name__}: {fault}") from fault
    if hashlib.sha256(answer.content).hexdigest() != sha256:
        raise BlobError("the body is not what its digest says")
    return answer.content
