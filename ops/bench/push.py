"""How long from submitting a task until it is pushed to an idle agent: POST → ``assign`` frame at the sidecar, fully durable.

    .venv/bin/python ops/bench/push.py [--json] [--tiny] [--samples N]

One hub each with 1, 100 and 1 000 idle agents (real ``websockets`` clients in another process). Samples are taken in turn: each hub,
then the parts a push cannot do without: the commit of the same rows by the same store, a no-op HTTP request to the same server, a
WebSocket round trip to it. ``ratio`` is the median at the middle size divided by the sum of these three medians, ``flat`` the median
at the largest size divided by the one at the smallest. About a minute; at most ``--seconds``.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from contextlib import ExitStack
from typing import Any

from agents import TASK, Fleet, running_fleet
from page import judged, machine, median, options, percentile, quiet, show
from rows import Script, fresh_store, group_of, now, pushed
from server import Hub, running_hub

SIZES, TINY_SIZES = (1, 100, 1000), (1, 3, 10)
GAP_S = 0.004
"""Rest between samples: everything said about the last task has been heard."""


class Target:
    """One hub with its idle agents, and the connection that tasks are submitted on."""

    def __init__(self, hub: Hub, fleet: Fleet, agents: int) -> None:
        self.hub = hub
        self.fleet = fleet
        self.samples: list[float] = []
        self._http = http.client.HTTPConnection(hub.host, hub.port)
        self._body = json.dumps(TASK).encode()
        self._headers = {"Authorization": f"Bearer {hub.token}", "Content-Type": "application/json"}
        fleet.grow(hub, agents)

    def request(self, method: str, path: str, body: bytes | None = None) -> int:
        """One request and its whole answer; the moment before it was sent, in monotonic nanoseconds."""
        began = time.monotonic_ns()
        self._http.request(method, path, body, self._headers)
        answer = self._http.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {said[:200]!r}")
        return began

    def push(self) -> None:
        """Submit one task, note when its assignment arrives, and see it through."""
        began = self.request("POST", "/api/v1/tasks", self._body)
        self.samples.append((self.fleet.hear("at_ns")["at_ns"] - began) / 1e6)
        self.fleet.hear("acknowledged")

    def noop_http(self) -> float:
        """Milliseconds of the smallest request there is."""
        began = self.request("GET", "/healthz")
        return (time.monotonic_ns() - began) / 1e6

    def round_trip(self) -> float:
        """Milliseconds of a ping and its pong."""
        self.fleet.order(self.hub, ping=1)
        return float(self.fleet.hear("rtt_ns")["rtt_ns"]) / 1e6


class Floor:
    """The commit that a push waits for, alone: the same rows through the same store."""

    def __init__(self, runner: asyncio.Runner, store: Any) -> None:
        self._runner = runner
        self._store = store
        self._script = Script(1)
        self._write(self._script.opening, *self._script.joining)

    def commit(self) -> float:
        """Milliseconds to commit a submission with its claim; the rest of that lifecycle is written unmeasured."""
        decided = self._script.submit(1)
        took = self._write(decided)
        ((agent, push),) = pushed([decided]).items()
        self._write(self._script.accept(agent, push))
        self._write(self._script.report(agent, push))
        return took

    def _write(self, *decided: Any) -> float:
        done = self._runner.run(self._store.commit(group_of(list(decided)), now()))
        return float(done.seconds) * 1000


def measure(sizes: tuple[int, ...], samples: int, seconds: float) -> dict[str, Any]:
    """All samples, in turn, and what follows from them."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        keeping = fresh_store()
        floor = Floor(runner, runner.run(keeping.__aenter__()))
        stack.callback(lambda: runner.run(keeping.__aexit__(None, None, None)))
        hubs = [stack.enter_context(running_hub()) for _ in sizes]
        fleet = stack.enter_context(running_fleet())
        targets = [Target(hub, fleet, size) for hub, size in zip(hubs, sizes, strict=True)]
        middle = targets[len(targets) // 2]
        commits, requests, trips = [], [], []
        until = time.monotonic() + seconds
        for i in range(samples + samples // 10):
            if i == samples // 10:  # the first tenth warms up
                for warmed in (commits, requests, trips, *(target.samples for target in targets)):
                    warmed.clear()
            for target in targets:
                target.push()
                time.sleep(GAP_S)
            commits.append(floor.commit())
            requests.append(middle.noop_http())
            trips.append(middle.round_trip())
            if time.monotonic() > until:
                break
    p50 = [median(target.samples) for target in targets]
    parts = {"fsync_ms": median(commits), "noop_http_ms": median(requests), "rtt_ms": median(trips)}
    return {
        "agents": {
            str(size): {"p50_ms": median(target.samples), "p99_ms": percentile(target.samples, 0.99)}
            for size, target in zip(sizes, targets, strict=True)
        },
        **parts,
        "ratio": p50[len(p50) // 2] / sum(parts.values()),
        "flat": p50[-1] / p50[0],
        "samples": len(commits),
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--samples", type=int, default=400, help="of each kind")
    parser.add_argument("--seconds", type=float, default=120.0, help="stop sampling after this time")
    chosen = parser.parse_args()
    quiet()
    sizes, samples = (TINY_SIZES, 5) if chosen.tiny else (SIZES, chosen.samples)
    found = measure(sizes, samples, chosen.seconds)
    settings = {"durability": "full", "samples": found.pop("samples"), "gap_ms": GAP_S * 1000, "loop": "uvloop"}
    document = {**found, "settings": settings, "machine": machine()}
    rows = [
        (f"push with {size} idle agents", f"p50 {took['p50_ms']:.2f} ms, p99 {took['p99_ms']:.2f} ms", "")
        for size, took in found["agents"].items()
    ]
    rows += [
        ("commit of the same rows", f"{found['fsync_ms']:.2f} ms", ""),
        ("no-op HTTP request", f"{found['noop_http_ms']:.2f} ms", ""),
        ("WebSocket round trip", f"{found['rtt_ms']:.2f} ms", ""),
        (f"ratio: push at {sizes[1]} to these three", f"{found['ratio']:.2f}", judged(found["ratio"], 3)),
        (f"flat: push at {sizes[-1]} to push at {sizes[0]}", f"{found['flat']:.2f}", judged(found["flat"], 1.3)),
    ]
    show(document, rows, as_json=chosen.json)


if __name__ == "__main__":
    main()
