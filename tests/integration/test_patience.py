"""Half requests for real: a head or a body that stops or comes byte by byte holds nothing for ever, one that is cut off fails nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from hub.edge.http import connection as connection_module
from hub.edge.http import middleware
from hub.edge.http.connection import Connection
from hub.ids import Scope
from tests.support.doors import TOKENS, House

BEARER = f"Authorization: Bearer {TOKENS[Scope.SUBMITTER]}\r\n"
POST = f"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{BEARER}"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "HEAD_S", 0.2)
    monkeypatch.setattr(middleware, "BODY_S", 0.2)
    monkeypatch.setattr(connection_module, "WRITE_S", 0.4)


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[House, int]]:
    house = House()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(house.app, http=Connection, lifespan="off", log_config=None, loop="asyncio"))
        serving = asyncio.create_task(server._serve([listener]), name="uvicorn")
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.01)
        try:
            yield house, listener.getsockname()[1]
        finally:
            server.should_exit = True
            async with asyncio.timeout(15):
                await serving
            house.close()


@asynccontextmanager
async def said(port: int, *pieces: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        yield reader, writer
    finally:
        writer.close()


async def answered(reader: asyncio.StreamReader) -> tuple[int, Any]:
    """Everything up to the end of the connection: status and document of the last answer."""
    everything = b""
    # whoever still talks while the hub hangs up is reset: what was said before counts
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(10):
            while piece := await reader.read(65_536):
                everything += piece
    head, _, body = everything[everything.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("before", [b"", HEALTH], ids=["first", "second"])
async def test_a_head_that_never_ends_is_answered_and_ended(before: bytes) -> None:
    async with listening() as (_, port), said(port, before, b"GET /healthz HT") as (reader, _writer):
        status, problem = await answered(reader)
        assert (status, problem["code"]) == (408, "request_timeout")


async def test_a_head_that_comes_byte_by_byte_gets_no_more_time() -> None:
    async with listening() as (_, port), said(port, b"G") as (reader, writer):

        async def drip() -> None:
            while True:
                writer.write(b"X")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        try:
            assert (await answered(reader))[0] == 408
        finally:
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)


async def test_a_connection_opened_in_advance_is_closed_without_a_word() -> None:
    async with listening() as (_, port), said(port) as (reader, _writer):
        async with asyncio.timeout(10):
            assert await reader.read() == b""


async def test_a_body_that_stops_is_answered_and_changes_nothing() -> None:
    half = f'{POST}Content-Length: 100\r\nConnection: close\r\n\r\n{{"title'.encode()
    async with listening() as (house, port), said(port, half) as (reader, _writer):
        status, problem = await answered(reader)
        assert (status, problem["code"]) == (408, "request_timeout")
        assert house.conductor.commands == []


async def test_a_slow_request_that_arrives_is_served_and_the_connection_lives_on() -> None:
    async with listening() as (house, port), said(port, HEALTH[:10]) as (reader, writer):
        await asyncio.sleep(0.05)
        writer.write(HEALTH[10:])
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"true}")).startswith(b"HTTP/1.1 200")
            body = b'{"title": "x"}'
            writer.write(f"{POST}Content-Length: {len(body)}\r\n\r\n".encode() + body[:5])
            await asyncio.sleep(0.05)
            writer.write(body[5:])
            assert (await reader.readuntil(b"true}")).startswith(b"HTTP/1.1 201")
        assert len(house.conductor.commands) == 1


async def test_a_stream_is_no_slow_request() -> None:
    request = f"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n{BEARER}\r\n".encode()
    async with listening() as (house, port):
        house.feed.hold = asyncio.Event()
        async with said(port, request) as (reader, _writer):
            async with asyncio.timeout(5):
                await reader.readuntil(b"event: start")
                await asyncio.sleep(0.5)
                house.feed.hold.set()
                assert await reader.read(), "it ended when the feed did"


@pytest.mark.parametrize(
    "half",
    [
        b"GET /hea",
        f"{POST}Content-Length: 100\r\n\r\n{{".encode(),
        f"PUT /api/v1/blobs/{'0' * 64} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n{BEARER}\r\nx".encode(),
    ],
    ids=["head", "body", "blob"],
)
async def test_a_request_that_is_cut_off_is_no_failure_of_the_hub(half: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    async with listening() as (house, port):
        async with said(port, half):
            await asyncio.sleep(0.05)
        async with said(port, HEALTH[:-2] + b"Connection: close\r\n\r\n") as (reader, _writer):
            assert (await answered(reader))[0] == 200
        assert house.conductor.commands == []
    printed = capsys.readouterr()
    assert "request_failed" not in printed.out + printed.err


DOCS = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_client_that_does_not_read_its_answers_is_cut_off() -> None:
    async with listening() as (_, port):
        _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.transport.pause_reading()

        async def ask_on() -> None:
            async with asyncio.timeout(30):
                while True:
                    writer.write(DOCS)
                    await asyncio.wait_for(writer.drain(), 10)
                    await asyncio.sleep(0.01)

        try:
            with pytest.raises(ConnectionError):
                await ask_on()
        finally:
            writer.transport.abort()


async def test_a_client_that_does_not_read_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uvicorn waited for it, and then failed what it had waited for."""
    monkeypatch.setattr(connection_module, "WRITE_S", 60.0)
    async with listening() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(DOCS * 500)
        await reader.readline()  # the answers have begun, and are more than any buffer takes
        await asyncio.sleep(0.5)
    writer.transport.abort()
