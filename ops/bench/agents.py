"""Sidecars for a benchmark, in a child process: real ``websockets`` clients that answer every assignment at once.

An agent says hello, beats, and for each ``assign`` goes through accept → accepted → result → result_ack without doing any work, so
what is measured is the hub. Run as a program it reads one JSON object per line (an order) and writes one per line (what happened);
times are ``time.monotonic_ns()``, which all processes of a machine share. :class:`Fleet` is the other end of these lines.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2
import orjson
import uvloop
from server import Hub, allow_many_sockets, cpu_us
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

BATCH = 50
"""Tasks in one submission."""
CONNECTING = 50
"""Agents that say hello at once."""
SHA256 = "ab" * 32
TASK = {"title": "Measure the hub", "type": "research", "description": "a task of about three hundred bytes " * 8}
OUTPUT = "done, and here is what there is to say about it: " * 2


class Agent:
    """One agent and its link. ``counts`` is called with every acknowledged result, ``assigned`` with every assignment."""

    def __init__(self, name: str, hub: dict[str, Any], party: Party) -> None:
        self.name = name
        self._hub = hub
        self._party = party
        self._ids = itertools.count(1)
        self.socket: ClientConnection | None = None

    async def connect(self) -> None:
        """Open the link and say hello; returns when the hub has welcomed the agent."""
        self.socket = await connect(
            f"ws{self._hub['url'].removeprefix('http')}/ws",
            subprotocols=["agentcom.v1"],  # type: ignore[list-item]  # a NewType of the library
            additional_headers={"Authorization": f"Bearer {self._hub['agent_token']}"},
            compression=None,
            ping_interval=None,
            proxy=None,
            open_timeout=60,
        )
        await self.say(
            {"t": "hello", "versions": ["agentcom.v1"], "agent_id": self.name, "install_id": f"i-{self.name}", "boot_id": "b"}
        )
        welcome = orjson.loads(await self.socket.recv(decode=False))
        assert welcome["t"] == "welcome", welcome
        self.beat_s = welcome["beat_ms"] / 1000

    async def say(self, frame: dict[str, Any]) -> None:
        assert self.socket is not None
        await self.socket.send(orjson.dumps({"id": next(self._ids), **frame}), text=True)

    async def work(self) -> None:
        """Answer whatever comes until the link is closed."""
        assert self.socket is not None
        with suppress(ConnectionClosed):
            while True:
                frame = orjson.loads(await self.socket.recv(decode=False))
                await self._answer(frame, time.monotonic_ns())

    async def _answer(self, frame: dict[str, Any], at: int) -> None:
        match frame["t"]:
            case "assign":
                self._party.assigned(frame["task"], at)
                await self.say({"t": "accept", "task": frame["task"], "lease_epoch": frame["lease_epoch"]})
            case "accepted":
                fence = {"task": frame["task"], "lease_epoch": frame["lease_epoch"]}
                await self.say({"t": "result", **fence, "outcome": "succeeded", "output": OUTPUT, "sha256": SHA256})
            case "result_ack":
                self._party.acknowledged(frame["task"])
            case "error" | "revoke":
                raise RuntimeError(f"the hub refused {self.name}: {frame}")

    async def beats(self) -> None:
        """Prove for ever to be alive."""
        while True:
            await asyncio.sleep(self.beat_s)
            await self.say({"t": "beat", "sent_mono": time.monotonic_ns() // 1000})


class Party:
    """The agents of one hub."""

    def __init__(self, hub: dict[str, Any], tell: Any, group: asyncio.TaskGroup) -> None:
        self.hub = hub
        self._tell = tell
        self._group = group
        self.agents: list[Agent] = []
        self.loud = True
        self.done = 0
        self.submitted = 0
        self._progress = asyncio.Event()

    async def grow(self, count: int) -> None:
        """Bring the agents to this number."""
        room = asyncio.Semaphore(CONNECTING)

        async def enter(agent: Agent) -> None:
            async with room:
                await agent.connect()

        new = [Agent(f"a-{i}", self.hub, self) for i in range(len(self.agents), count)]
        await asyncio.gather(*(enter(agent) for agent in new))
        for agent in new:
            self._group.create_task(agent.work())
            self._group.create_task(agent.beats())
        self.agents += new

    async def ping(self) -> None:
        """One WebSocket ping and its pong, on the first agent's link."""
        socket = self.agents[0].socket
        assert socket is not None
        began = time.monotonic_ns()
        await (await socket.ping())
        self._tell({"rtt_ns": time.monotonic_ns() - began})

    async def load(self, warm_s: float, seconds: float) -> None:
        """Keep every agent busy with tasks submitted in batches; tell how many were finished in ``seconds`` after the warm-up."""
        self.loud = False
        stop = asyncio.Event()
        submitter = asyncio.ensure_future(self._submit(stop))
        await asyncio.sleep(warm_s)
        done, cpu, began = self.done, cpu_us(self.hub["pid"]), time.monotonic()
        await asyncio.sleep(seconds)
        took, done, cpu = time.monotonic() - began, self.done - done, cpu_us(self.hub["pid"]) - cpu
        stop.set()
        await submitter
        while self.done < self.submitted:
            self._progress.clear()
            await self._progress.wait()
        self.loud = True
        self._tell({"done": done, "seconds": took, "hub_cpu_us": cpu})

    async def _submit(self, stop: asyncio.Event) -> None:
        """Two tasks for each agent and two batches are always on their way, so nobody ever waits for work."""
        batch = {"tasks": [TASK] * BATCH}
        ahead = 2 * len(self.agents) + BATCH
        headers = {"Authorization": f"Bearer {self.hub['token']}"}
        async with httpx2.AsyncClient(base_url=self.hub["url"], headers=headers, trust_env=False, timeout=30) as http:
            while not stop.is_set():
                self._progress.clear()
                if self.submitted - self.done < ahead:
                    self.submitted += BATCH
                    (await http.post("/api/v1/tasks/batch", json=batch)).raise_for_status()
                else:
                    await self._progress.wait()

    def assigned(self, task: int, at: int) -> None:
        if self.loud:
            self._tell({"assigned": task, "at_ns": at})

    def acknowledged(self, task: int) -> None:
        self.done += 1
        self._progress.set()
        if self.loud:
            self._tell({"acknowledged": task})


async def serve() -> None:
    """Obey orders from standard input until it ends."""
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def tell(what: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()

    async with asyncio.TaskGroup() as group:
        parties: dict[str, Party] = {}
        while line := await reader.readline():
            order = json.loads(line)
            hub = order.pop("hub")
            party = parties.setdefault(hub["url"], Party(hub, tell, group))
            match order:
                case {"grow": count}:
                    await party.grow(count)
                    tell({"grown": count})
                case {"ping": _}:
                    await party.ping()
                case {"load": seconds, "warm": warm_s}:
                    await party.load(warm_s, seconds)
        raise SystemExit


class Fleet:
    """The process, seen from the benchmark."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def grow(self, hub: Hub, count: int) -> None:
        """Bring the agents of a hub to ``count``; returns when all are welcome."""
        self.order(hub, grow=count)
        self.hear("grown")

    def order(self, hub: Hub, **order: Any) -> None:
        assert self._process.stdin is not None
        known = {"url": hub.url, "token": hub.token, "agent_token": hub.agent_token, "pid": hub.pid}
        self._process.stdin.write(json.dumps({"hub": known, **order}) + "\n")
        self._process.stdin.flush()

    def hear(self, key: str) -> dict[str, Any]:
        """The next report that has ``key``; others before it are dropped."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            report: dict[str, Any] = json.loads(line)
            if key in report:
                return report
        raise RuntimeError("the agents' process has ended; its error is above")


@contextmanager
def running_fleet() -> Iterator[Fleet]:
    """A process for agents, without any yet; ended with the block."""
    argv = [sys.executable, __file__]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Fleet(process)
        finally:
            process.kill()


if __name__ == "__main__":
    allow_many_sockets()
    with suppress(KeyboardInterrupt):
        uvloop.run(serve())
