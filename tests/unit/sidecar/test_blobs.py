"""Where a body is asked for, and who sees the token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest

from sidecar.blobs import BlobError, fetch

BODY = b"a spec"
DIGEST = sha256(BODY).hexdigest()


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[tuple[int, list[str]]]:
    """An HTTP server with one answer: its port, and the first lines of the requests it got."""
    heard: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        heard.append(request.decode().splitlines()[0])
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), answer))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], heard


async def test_a_body_is_asked_for_below_the_hubs_own_path() -> None:
    async with listening(BODY) as (port, heard):
        assert await fetch(f"ws://127.0.0.1:{port}/agentcom/ws", "ac_x", DIGEST) == BODY
    assert heard == [f"GET /agentcom/api/v1/blobs/{DIGEST} HTTP/1.1"]


async def test_no_proxy_sees_a_token_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(b"from the proxy") as (proxy, seen), listening(BODY) as (port, _):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert await fetch(f"ws://127.0.0.1:{port}/ws", "ac_x", DIGEST) == BODY
    assert seen == []


async def test_a_body_that_is_not_what_its_digest_says_is_refused() -> None:
    async with listening(b"another") as (port, _):
        with pytest.raises(BlobError, match="not what its digest says"):
            await fetch(f"ws://127.0.0.1:{port}/ws", "ac_x", DIGEST)
