"""What those who do not read, or take for ever to speak, cost the others: push latency with them and without, in one run.

    .venv/bin/python ops/bench/slow.py [--peers 10] [--samples 300] [--json] [--tiny]

For each kind of them samples are taken with as many peers that say the same and behave, then with those, then with the first again; the
ratio is of the medians. Memory is the hub's own at its highest, per peer. Ends with 1 if a task was not pushed or a bar is missed.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2
import orjson
import uvloop
from crew import Crew, until
from page import judged, machine, options, percentile, show
from server import Hub, allow_many_sockets, running_hub
from sidecars import Site

from hub.telemetry import log

RATIO, MEMORY_KIB, LIMIT_S = 1.5, 3072.0, 60.0
"""Bars: push latency with them to without them; memory for each (an outbox of 1 MiB, twice where it is copied, and what holds it)."""
HEALTHY = 10
REST_S = 0.05
"""Between two samples."""


@dataclass(frozen=True)
class Kind:
    """What such a peer says: an opening, then one word after the other; and how much it reads when it does not behave."""

    name: str
    opening: bytes
    words: Iterator[bytes]
    every_s: float
    bytes_per_s: int = 0


def upgrade(hub: Hub) -> bytes:
    """A sidecar's request for its socket."""
    lines = (
        "GET /ws HTTP/1.1", f"Host: {hub.host}:{hub.port}", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: agentcom.v1", f"Authorization: Bearer {hub.agent_token}",
    )  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


def message(frame: dict[str, Any]) -> bytes:
    """A frame as one masked WebSocket message; the mask is zero."""
    body = orjson.dumps(frame)
    return b"\x81\xfe" + len(body).to_bytes(2) + bytes(4) + body


def talk(name: str) -> Iterator[bytes]:
    """Hello, then beats that name sixteen leases nobody has, so that each is answered with a kilobyte."""
    hello = {
        "versions": ["agentcom.v1"],
        "agent_id": name,
        "install_id": f"i-{name}",
        "boot_id": "b",
        "quiet": True,
        "build": "x" * 100,
    }
    yield message({"t": "hello", "id": 1, **hello})
    leases = [{"task": 2**53 - i, "lease_epoch": 1, "phase": "woken"} for i in range(16)]
    i = 1
    while True:
        i += 1
        yield message({"t": "beat", "id": i, "sent_mono": i, "quiet": True, "leases": leases})


def repeat(word: bytes) -> Iterator[bytes]:
    while True:
        yield word


def kinds(hub: Hub, feed: str) -> dict[str, Any]:
    """How to make a peer of each kind, by name."""
    events = f"GET /api/v1/events?after={feed}:0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hub.token}\r\n\r\n".encode()
    head = b"GET /ws HTTP/1.1\r\nHost: x\r\nX-Long: "
    return {
        "sidecars that do not read": lambda name: Kind(name, upgrade(hub), talk(name), 0.01),
        "sidecars that read a byte a second": lambda name: Kind(name, upgrade(hub), talk(name), 0.01, 1),
        "subscribers that do not read": lambda name: Kind(name, events, repeat(b"\r\n"), 1.0),
        "heads that come byte by byte": lambda name: Kind(name, head, repeat(b"x"), 0.2),
    }


class Peers:
    """A number of peers of one kind, who come again when they are cut off."""

    def __init__(self, hub: Hub, *, behave: bool) -> None:
        self._hub, self._behave = hub, behave
        self.cut_off = 0

    async def live(self, make: Any, name: str) -> None:
        """One of them, for ever."""
        while True:
            with socket.socket() as one, suppress(OSError):
                await self._speak(one, make(name))
            self.cut_off += 1
            await asyncio.sleep(0.2)

    async def _speak(self, one: socket.socket, kind: Kind) -> None:
        loop = asyncio.get_running_loop()
        if not self._behave:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setblocking(False)
        await loop.sock_connect(one, (self._hub.host, self._hub.port))
        await loop.sock_sendall(one, kind.opening)
        async with asyncio.TaskGroup() as group:
            if self._behave or kind.bytes_per_s:
                group.create_task(self._read(one, kind))
            for word in kind.words:
                await asyncio.sleep(kind.every_s)
                await loop.sock_sendall(one, word)

    async def _read(self, one: socket.socket, kind: Kind) -> None:
        rest_s, at_once = (0.0, 65_536) if self._behave else (1.0, kind.bytes_per_s)
        while await asyncio.get_running_loop().sock_recv(one, at_once):  # noqa: ASYNC110  the rest is what makes it slow
            await asyncio.sleep(rest_s)
        raise ConnectionResetError


@asynccontextmanager
async def present(hub: Hub, make: Any, count: int, *, behave: bool) -> AsyncIterator[Peers]:
    """So many of them, until the block ends."""
    peers = Peers(hub, behave=behave)
    tasks = [asyncio.create_task(peers.live(make, f"peer-{i}")) for i in range(count)]
    try:
        await asyncio.sleep(0.5)
        yield peers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Meter:
    """Submits one task after the other and notes when it is offered."""

    def __init__(self, hub: Hub, http: httpx2.AsyncClient, site: Site) -> None:
        self._hub, self._http = hub, http
        self._offered: dict[int, int] = {}
        site.assigned = self._offered.setdefault
        self.peak_kib = 0

    async def samples(self, count: int) -> list[float]:
        """Milliseconds from submission to offer."""
        found = []
        for _ in range(count):
            began = time.monotonic_ns()
            answer = await self._http.post("/api/v1/tasks", json={"title": "Push", "type": "research", "repo": None})
            n = int(answer.raise_for_status().json()["id"].removeprefix("t-"))
            await until(partial(self._offered.__contains__, n), LIMIT_S)
            found.append((self._offered[n] - began) / 1e6)
            self.peak_kib = max(self.peak_kib, self._hub.memory_kib())
            await asyncio.sleep(REST_S)
        return found


async def measure(hub: Hub, count: int, samples: int, events: int) -> dict[str, Any]:
    """Every kind, one after the other."""
    site, found = Site(), {}
    headers = {"Authorization": f"Bearer {hub.token}"}
    async with (
        httpx2.AsyncClient(base_url=hub.url, headers=headers, trust_env=False, timeout=LIMIT_S) as http,
        Crew(hub.url, hub.agent_token, site) as crew,
    ):
        crew.grow(HEALTHY)
        await crew.all_connected(LIMIT_S)
        meter = Meter(hub, http, site)
        held = {"title": "An event", "type": "research", "repo": None, "hold": True}
        for _ in range(events // 1000):
            (await http.post("/api/v1/tasks/batch", json={"tasks": [held] * 1000})).raise_for_status()
        feed = (await http.get("/api/v1/status")).json()["feed_epoch"]
        for name, make in kinds(hub, feed).items():
            async with present(hub, make, count, behave=True):
                without = await meter.samples(samples)
            before_kib, meter.peak_kib = hub.memory_kib(), 0
            async with present(hub, make, count, behave=False) as peers:
                beside = await meter.samples(samples)
                peak_kib = meter.peak_kib
            async with present(hub, make, count, behave=True):
                without += await meter.samples(samples)
            found[name] = {
                "without_ms": {"p50": statistics.median(without), "p99": percentile(without, 0.99)},
                "beside_ms": {"p50": statistics.median(beside), "p99": percentile(beside, 0.99)},
                "ratio": statistics.median(beside) / statistics.median(without),
                "kib_each": max(0, peak_kib - before_kib) / count,
                "cut_off": peers.cut_off,
            }
    return found


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--peers", type=int, default=10, help="of each kind, at once")
    parser.add_argument("--samples", type=int, default=300, help="of each of the three times")
    chosen = parser.parse_args()
    log.configure(level="error")
    allow_many_sockets()
    count, samples, events = (3, 8, 1000) if chosen.tiny else (chosen.peers, chosen.samples, 5000)
    with running_hub() as hub:
        found = uvloop.run(measure(hub, count, samples, events))
    good = all(kind["ratio"] <= RATIO and kind["kib_each"] <= MEMORY_KIB for kind in found.values())
    settings = {"durability": "full", "peers": count, "healthy": HEALTHY, "samples": samples}
    rows = []
    for name, kind in found.items():
        rows += [
            (f"{name}: push without them", "p50 {p50:.1f} ms, p99 {p99:.1f} ms".format(**kind["without_ms"]), ""),
            ("… beside them", "p50 {p50:.1f} ms, p99 {p99:.1f} ms".format(**kind["beside_ms"]), ""),
            ("… ratio", f"{kind['ratio']:.2f}", judged(kind["ratio"], RATIO)),
            ("… memory for each", f"{kind['kib_each']:.0f} KiB", judged(kind["kib_each"], MEMORY_KIB)),
            ("… cut off", str(kind["cut_off"]), ""),
        ]
    show({"kinds": found, "good": good, "settings": settings, "machine": machine()}, rows, as_json=chosen.json)
    return 0 if good or chosen.tiny else 1


if __name__ == "__main__":
    sys.exit(main())
