"""What a soak does to connections, sidecars and the hub's doors: a fault now and then, of every kind, and people who send nonsense."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import httpx2
from crew import Crew
from server import Hub

from tests.support.proxy import Flow, Pair, Proxy
from tests.support.tap import Way

HELD_S = 5.0
"""How long a fault that is taken back lasts."""
CONNECTION_FAULTS: dict[str, Callable[[Pair], None]] = {
    "reset": Pair.reset,
    "swallowed": Pair.vanish,
    "only the hub is told": lambda pair: pair.half_open(Way.UP),
    "only the sidecar is told": lambda pair: pair.half_open(Way.DOWN),
    "closed": Pair.end,
    "said twice": Pair.repeat,
    "starved": lambda pair: pair.flows.update(dict.fromkeys(Way, Flow(bytes_per_s=1))),
}
NONSENSE = (
    ("GET", "/api/v1/tasks/t-999999999", {}),
    ("POST", "/api/v1/tasks", {"json": {"title": "", "lane": "express"}}),
    ("POST", "/api/v1/tasks", {"content": b"{", "headers": {"content-type": "application/json"}}),
    ("POST", "/api/v1/tasks/batch", {"content": b"x" * 1_100_000}),
    ("GET", "/api/v1/events?after=nowhere", {}),
    ("GET", "/api/v1/status", {"headers": {"Authorization": "Bearer ac_00000000_0000000000000000000000"}}),
    ("PUT", f"/api/v1/blobs/{'0' * 64}", {"content": b"x" * 100_000}),
)


class Turmoil:
    """Owned by a soak. ``done`` counts what happened."""

    def __init__(self, hub: Hub, proxy: Proxy, crew: Crew, chance: random.Random) -> None:
        self._hub, self._proxy, self._crew, self._chance = hub, proxy, crew, chance
        self.done: Counter[str] = Counter()

    async def run(self, every_s: float) -> None:
        """A fault every so often, for ever."""
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / every_s))
            kind = self._chance.choice([*CONNECTION_FAULTS, "crashed", "late"])
            self.done[kind] += 1
            if kind == "crashed":
                await self._crew.crash(self._chance.choice(list(self._crew.agents)))
            elif kind == "late":
                self._proxy.flow(delay_s=0.05, jitter_s=0.2)
                await asyncio.sleep(min(every_s, HELD_S))
                self._proxy.flow()
            elif self._proxy.pairs:
                CONNECTION_FAULTS[kind](self._chance.choice(self._proxy.pairs))

    async def nonsense(self, every_s: float, statuses: dict[str, int]) -> None:
        """Requests that must be refused; what they were answered is counted."""
        headers = {"Authorization": f"Bearer {self._hub.token}"}
        async with httpx2.AsyncClient(base_url=self._hub.url, headers=headers, trust_env=False, timeout=30) as http:
            while True:
                await asyncio.sleep(every_s)
                method, path, request = self._chance.choice(NONSENSE)
                try:
                    answer = str((await http.request(method, path, **request)).status_code)  # type: ignore[arg-type]
                except httpx2.TransportError:
                    answer = "unreachable"
                statuses[answer] = statuses.get(answer, 0) + 1

    async def deaf_subscriber(self) -> None:
        """Asks for all events since the beginning and reads none of them; asks again when it is cut off."""
        request = f"GET /api/v1/events?after={await self._feed()}:0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._hub.token}\r\n\r\n"
        loop = asyncio.get_running_loop()
        while True:
            with socket.socket() as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                deaf.setblocking(False)
                with suppress(OSError):
                    await loop.sock_connect(deaf, (self._hub.host, self._hub.port))
                    await loop.sock_sendall(deaf, request.encode())
                    self.done["deaf subscriber"] += 1
                    while True:  # to be told of an end without reading: what is sent to a connection that was reset fails
                        await asyncio.sleep(1.0)
                        await loop.sock_sendall(deaf, b"\r\n")
            await asyncio.sleep(0.5)

    async def _feed(self) -> str:
        async with httpx2.AsyncClient(base_url=self._hub.url, trust_env=False) as http:
            answer = await http.get("/api/v1/status", headers={"Authorization": f"Bearer {self._hub.token}"})
        return str(answer.json()["feed_epoch"])
