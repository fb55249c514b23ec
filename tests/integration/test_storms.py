"""A hub in a storm: attempts to connect, floods of frames, connections that say nothing. Whoever is at work is served all the while."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from hub.edge.http.connection import MAX_WAITING
from hub.ids import LeaseEpoch, TaskId
from hub.wire import frames
from hub.wire.codec import decode_from_hub, encode
from tests.support.living_hub import LivingHub, living_hub

AT_WORK = 8
ROUNDS = 15
ATTEMPTS = 1000
PATIENCE_S = 60.0
GROWTH_KIB = 64 * 1024
WRONG = "ac_00000000_" + "x" * 43


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivingHub]:
    with living_hub(tmp_path_factory.mktemp("storm")) as running:
        yield running


@contextlib.asynccontextmanager
async def link(hub: LivingHub, agent: str) -> AsyncIterator[ClientConnection]:
    token = hub.tokens["agent"]
    async with connect(
        f"ws://127.0.0.1:{hub.port}/ws",
        subprotocols=[Subprotocol("agentcom.v1")],
        additional_headers={"Authorization": f"Bearer {token}"},
        compression=None,
        ping_interval=None,
        proxy=None,
    ) as opened:
        hello = frames.Hello(id=1, versions=("agentcom.v1",), agent_id=agent, install_id=agent, boot_id="b")
        await opened.send(encode(hello).decode())
        assert decode_from_hub(await opened.recv()).t == "welcome"
        yield opened


async def beat(socket: ClientConnection, number: int) -> float:
    """Say a beat, and how long its answer took."""
    began = time.monotonic()
    await socket.send(encode(frames.Beat(id=number, sent_mono=number)).decode())
    async with asyncio.timeout(PATIENCE_S):
        while (heard := decode_from_hub(await socket.recv())).t != "beaten":
            pass
    assert heard.re == number
    return time.monotonic() - began


async def all_beat(sockets: list[ClientConnection], numbers: Iterator[int]) -> list[float]:
    """Everybody at work beats, several times; each beat is answered."""
    took: list[float] = []
    for _ in range(ROUNDS):
        took += await asyncio.gather(*(beat(socket, next(numbers)) for socket in sockets))
    return took


def memory_kib(hub: LivingHub) -> int:
    assert hub._process is not None
    status = Path(f"/proc/{hub._process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def knock(hub: LivingHub, token: str, seen: Counter[str]) -> None:
    """One attempt to open a link, given up as soon as it is answered."""
    with socket_to(hub) as knocking:
        knocking.sendall(
            b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: agentcom.v1\r\n"
            b"Authorization: Bearer " + token.encode() + b"\r\n\r\n"
        )
        seen[knocking.recv(64).decode()[9:12]] += 1


async def test_a_storm_of_attempts_to_connect_delays_no_established_link(hub: LivingHub) -> None:
    numbers, seen = itertools.count(2), Counter[str]()
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(link(hub, f"work-{n}")) for n in range(AT_WORK)]
        before = memory_kib(hub)
        over = threading.Event()
        storm = [asyncio.to_thread(_storm, hub, (WRONG, hub.tokens["agent"])[n % 2], seen, over) for n in range(8)]
        storming = asyncio.gather(*storm)
        try:
            while sum(seen.values()) < ATTEMPTS:
                assert len(await all_beat(sockets, numbers)) == AT_WORK * ROUNDS
        finally:
            over.set()
            await storming
        assert memory_kib(hub) - before < GROWTH_KIB
    assert seen["401"] <= 130 and seen["429"] and not [code for code in seen if code.startswith("5")], seen


def socket_to(hub: LivingHub) -> socket.socket:
    return socket.create_connection(("127.0.0.1", hub.port), timeout=PATIENCE_S)


def _storm(hub: LivingHub, token: str, seen: Counter[str], over: threading.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(OSError):
            knock(hub, token, seen)


async def test_connections_that_say_nothing_make_room_for_those_that_do(hub: LivingHub) -> None:
    async with link(hub, "steady") as steady:
        before = memory_kib(hub)
        silent = [await asyncio.to_thread(socket_to, hub) for _ in range(MAX_WAITING + 200)]
        assert await beat(steady, 2) >= 0
        seen = Counter[str]()
        await asyncio.to_thread(knock, hub, WRONG, seen)
        assert set(seen) <= {"401", "429"} and seen
        assert await asyncio.to_thread(silent[0].recv, 1) == b"", "the one that waited longest was cut off"
        assert memory_kib(hub) - before < GROWTH_KIB
        for quiet in silent:
            quiet.close()


async def test_one_agent_that_shouts_never_delays_the_others(hub: LivingHub) -> None:
    numbers = itertools.count(2)
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(link(hub, f"calm-{n}")) for n in range(AT_WORK)]
        quiet = await all_beat(sockets, numbers)
        shouting = asyncio.create_task(_shout(hub), name="shouting")
        loud: list[float] = []
        try:
            while not shouting.done():
                loud += await all_beat(sockets, numbers)
        finally:
            code = await shouting
    assert code == 4009
    assert statistics.median(loud) < 20 * statistics.median(quiet) + 0.05


async def _shout(hub: LivingHub) -> int | None:
    """Say progress as fast as it goes; how the hub ended it."""
    async with link(hub, "shouts") as socket:
        with contextlib.suppress(ConnectionClosed):
            for n in range(100_000):
                await socket.send(encode(frames.Progress(id=n, task=TaskId(1), lease_epoch=LeaseEpoch(1), n=n)).decode())
                if n % 100 == 0:
                    await asyncio.sleep(0)  # what the hub says is heard, too
        await socket.wait_closed()
        return socket.close_code
