"""The sidecars' socket for real: uvicorn, the acceptor, websockets' client. Refusals before the upgrade, frames, limits, closes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.protocol import State
from websockets.typing import Subprotocol

from hub.edge import links as links_module
from hub.edge import ws as module
from hub.edge.auth import Authenticator, digest, mint
from hub.edge.ratelimit import Limiter, Rates
from hub.edge.ws import Acceptor
from hub.store.tokens import TokenRecord
from hub.wire import frames
from hub.wire.codec import decode_from_hub, encode
from tests.support.door import Door, door, hello

KEY = b"k" * 32
MINTED = {name: mint() for name in ("agent:*", "operator")}
AGENT, OPERATOR = (minted.text for minted in MINTED.values())
AUTH = Authenticator(
    KEY,
    [
        TokenRecord(
            id=minted.id,
            digest=digest(KEY, minted.secret),
            name="x",
            person=False,
            scopes=(scope,),
            created_by="hub",
            created_at=0,
        )
        for scope, minted in MINTED.items()
    ],
    lambda: 0,
)
V1 = Subprotocol("agentcom.v1")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """What answers ordinary requests on the same port."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


class Port:
    """A listening hub."""

    def __init__(self, here: Door, acceptor: Acceptor, port: int) -> None:
        self.door = here
        self.acceptor = acceptor
        self.port = port

    @asynccontextmanager
    async def socket(self, path: str = "/ws", token: str | None = AGENT, **options: Any) -> AsyncIterator[ClientConnection]:
        options.setdefault("subprotocols", [V1])
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        address = f"ws://127.0.0.1:{self.port}{path}"
        async with connect(address, additional_headers=headers, compression=None, **options) as connection:
            yield connection

    async def refused(self, **options: Any) -> tuple[int, dict[str, Any], Any]:
        with pytest.raises(InvalidStatus) as caught:
            async with self.socket(**options):
                pass
        response = caught.value.response
        return response.status_code, json.loads(response.body or b"{}"), response.headers


@asynccontextmanager
async def listening(rates: Rates | None = None) -> AsyncIterator[Port]:
    async with door() as here:
        acceptor = Acceptor(here.links, AUTH, Limiter(rates or Rates()))
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            config = uvicorn.Config(
                app, ws=acceptor.factory, ws_per_message_deflate=False, lifespan="off", log_config=None, loop="asyncio"
            )  # type: ignore[arg-type]
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server._serve([listener]), name="uvicorn")
            async with asyncio.timeout(10):
                while not server.started:
                    await asyncio.sleep(0.01)
            try:
                yield Port(here, acceptor, listener.getsockname()[1])
            finally:
                for link in list(here.links._all):
                    link.close(4000, "shutdown")
                server.should_exit = True
                async with asyncio.timeout(15):
                    await serving
                    while acceptor.handler_tasks:
                        await asyncio.sleep(0.01)


async def said(connection: ClientConnection, frame: frames.Frame) -> Any:
    """Say a frame and hear the next."""
    await connection.send(encode(frame).decode())
    return await heard(connection)


async def heard(connection: ClientConnection) -> Any:
    async with asyncio.timeout(5):
        return decode_from_hub(await connection.recv())


async def closed(connection: ClientConnection) -> tuple[int | None, str]:
    """How the hub closed it."""
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.recv()
    return connection.close_code, connection.close_reason or ""


async def test_a_sidecar_says_hello_works_and_goes() -> None:
    async with listening() as port:
        async with port.socket() as connection:
            assert connection.subprotocol == V1
            assert connection.protocol.extensions == [], "compression is off"
            welcome = await said(connection, hello())
            assert isinstance(welcome, frames.Welcome)
            await port.door.stage.submit()
            assign = await heard(connection)
            accepted = await said(connection, frames.Accept(task=assign.task, lease_epoch=assign.lease_epoch))
            assert accepted.spec.description == "do it"
            assert port.door.links.connected == 1
        async with asyncio.timeout(5):
            while port.door.links.connected:
                await asyncio.sleep(0.01)
        assert not port.door.knows("w1").connected
        assert port.door.links._all == set()


async def test_http_lives_on_the_same_port() -> None:
    async with listening() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"token": None}, 401, "unauthenticated"),
        ({"token": mint().text}, 401, "unauthenticated"),
        ({"token": OPERATOR}, 403, "forbidden"),
        ({"path": "/elsewhere"}, 404, "not_found"),
        ({"path": "/elsewhere", "token": None}, 404, "not_found"),
        ({"subprotocols": [Subprotocol("agentcom.v2")]}, 426, "version"),
        ({"subprotocols": None}, 426, "version"),
    ],
)
async def test_refusals_come_before_the_upgrade(options: dict[str, Any], status: int, code: str) -> None:
    async with listening() as port:
        found, body, headers = await port.refused(**options)
        assert (found, body["code"], body["status"]) == (status, code, status)
        assert headers["Content-Type"] == "application/problem+json"
        assert AGENT not in json.dumps(body)
        assert port.door.links._all == set()


async def test_too_many_links_are_told_when_to_come_back() -> None:
    async with listening() as port, port.socket():
        port.door.links._max_links = 1
        status, body, headers = await port.refused()
        assert (status, body["code"], headers["Retry-After"]) == (429, "too_many_links", "30")


async def test_links_that_are_opened_too_often_are_told_when_to_come_back_before_the_upgrade() -> None:
    async with listening(Rates(connect=2)) as port:
        async with port.socket(), port.socket():
            status, body, headers = await port.refused()
        assert (status, body["code"], headers["Retry-After"]) == (429, "rate_limited", "30")


async def test_wrong_tokens_are_answered_only_so_often_and_good_ones_always() -> None:
    async with listening(Rates(denied=2)) as port:
        answers = [(await port.refused(token="ac_00000000_" + "x" * 43))[0] for _ in range(4)]
        assert answers == [401, 401, 429, 429]
        async with port.socket():
            pass


async def test_a_storm_of_openings_is_worked_off_a_group_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "MAX_OPENING", 2)
    async with listening() as port, port.socket() as first, port.socket():
        status, body, headers = await port.refused()
        assert (status, body["code"], headers["Retry-After"]) == (429, "opening", "1")
        await said(first, hello())
        async with port.socket():
            pass


async def test_a_stopping_hub_takes_nobody() -> None:
    async with listening() as port:
        port.acceptor.serving = False
        with pytest.raises(InvalidStatus) as caught:
            async with port.socket():
                pass
        assert caught.value.response.status_code == 503


@pytest.mark.parametrize("message", [b"binary", ["in ", "pieces"]])
async def test_only_whole_text_frames_are_spoken(message: Any) -> None:
    async with listening() as port, port.socket() as connection:
        await said(connection, hello())
        await connection.send(message)
        assert (await closed(connection))[0] == 4501


async def test_a_frame_over_the_limit_is_refused_and_the_link_lives() -> None:
    async with listening() as port, port.socket() as connection:
        await connection.send("x" * 300_000)
        told = await heard(connection)
        assert "larger than 262144" in told.message
        assert isinstance(await said(connection, hello()), frames.Welcome)


async def test_a_message_over_the_transports_limit_closes_without_being_terminal() -> None:
    async with listening() as port, port.socket(max_size=None) as connection:
        await said(connection, hello())
        with suppress(ConnectionClosed):
            await connection.send("x" * (module.MAX_MESSAGE_BYTES + 1))
        assert (await closed(connection))[0] == 1009
        async with asyncio.timeout(5):
            while port.door.links._all:
                await asyncio.sleep(0.01)


async def test_the_hubs_close_carries_code_and_reason() -> None:
    async with listening() as port, port.socket() as connection:
        await said(connection, hello())
        [link] = port.door.links._all
        link.close(4010, "resync")
        assert await closed(connection) == (4010, "resync")


async def test_a_peer_that_ends_amid_the_handshake_is_let_go_without_a_word() -> None:
    aborted: list[bool] = []

    class Gone:
        class protocol:
            state = State.CLOSED

        class transport:
            abort = staticmethod(lambda: aborted.append(True))
            close = staticmethod(lambda: None)

        async def handshake(self, *_: Any) -> None:
            raise ConnectionClosedError(None, None)

    async with door() as here:
        await Acceptor(here.links, AUTH, Limiter(Rates())).handler(Gone())  # type: ignore[arg-type]
    assert aborted == [True]


async def test_a_lost_socket_is_noticed() -> None:
    async with listening() as port, port.socket() as connection:
        await said(connection, hello())
        connection.transport.abort()
        async with asyncio.timeout(5):
            while port.door.links._all:
                await asyncio.sleep(0.01)
        assert not port.door.knows("w1").connected


async def test_a_peer_that_does_not_read_is_closed_and_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """I19: its outbox is bounded; the others are served meanwhile."""
    monkeypatch.setattr(module, "OUTBOX_BYTES", 256 * 1024)
    async with listening() as port, port.socket() as quick:
        await said(quick, hello("w2"))
        async with port.socket(max_queue=1) as slow:
            await said(slow, hello("w1"))
            slow.transport.pause_reading()  # type: ignore[attr-defined]
            [link] = [link for link in port.door.links._all if link.agent == "w1"]
            note = frames.Error(code="x", message="y" * 1000)
            async with asyncio.timeout(20):
                while link.open:
                    for _ in range(500):
                        link.send(note)
                    await asyncio.sleep(0)
                    told = await said(quick, frames.Beat(sent_mono=1))
                    assert isinstance(told, frames.Beaten)
            slow.transport.abort()


async def test_a_peer_that_takes_nothing_for_long_is_closed_however_little_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "OUTBOX_BYTES", 1 << 30)
    monkeypatch.setattr(module, "WRITE_DEADLINE_S", 0.3)
    async with listening() as port, port.socket(max_queue=1) as slow:
        await said(slow, hello("w1"))
        slow.transport.pause_reading()  # type: ignore[attr-defined]
        [link] = port.door.links._all
        wire: Any = link._wire
        note = frames.Error(code="x", message="y" * 1000)
        async with asyncio.timeout(20):
            while link.open:
                if wire.write.__self__.transport.get_write_buffer_size() < 200_000:  # until the buffers of the system are full
                    for _ in range(500):
                        link.send(note)
                await asyncio.sleep(0.01)
        assert port.door.links._all == set()
        slow.transport.abort()
