"""How long until a fleet works again when its hub is killed: SIGKILL with leases held, a start on the same port, everybody comes back.

    .venv/bin/python ops/bench/storm.py [--agents 1000] [--held 500] [--json] [--tiny]

Real sidecars (link, holder, backoff; runs are timers) in this process, the real hub in another. While the hub is away and comes back a
submitter tries all the time: whatever answers with a 5xx counts. Times are counted from the kill, and from when the new hub was ready.
Ends with 1 if work was lost or doubled or a bar is missed. About a minute.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import httpx2
import uvloop
from crew import WRONG, Crew, account, until
from page import judged, machine, options, percentile, show
from server import Hub, allow_many_sockets, cpu_us, running_hub
from sidecars import Site

from hub.telemetry import log

LIMIT_S = 180.0
ALL_BACK_S, MOVES_S, LINK_KIB = 30.0, 10.0, 100.0
"""Bars: after the new hub is ready, everybody is back, and the queue moves; memory of the hub at its highest, per link."""


def work(seconds: float) -> dict[str, Any]:
    return {"title": "Survive", "type": "research", "repo": None, "metadata": {"bench": {"s": seconds}}}


class Submitter:
    """Asks the hub for one small task after the other, whether it is there or not."""

    def __init__(self, hub: Hub) -> None:
        headers = {"Authorization": f"Bearer {hub.token}"}
        self._http = httpx2.AsyncClient(base_url=hub.url, headers=headers, trust_env=False, timeout=30)
        self.acknowledged: set[int] = set()
        self.statuses: list[int] = []
        self.answered_at = 0.0
        self._count = 0

    async def submit(self, tasks: list[dict[str, Any]]) -> None:
        """One batch that must be taken."""
        answer = await self._http.post("/api/v1/tasks/batch", json={"tasks": tasks})
        answer.raise_for_status()
        self._acknowledge(answer.json()["tasks"])

    async def insist(self) -> None:
        """For ever, 20 times a second; each task is repeated with its key until it is acknowledged."""
        while True:
            try:
                headers = {"Idempotency-Key": f"storm-{self._count}"}
                answer = await self._http.post("/api/v1/tasks", json=work(0.0), headers=headers)
            except httpx2.TransportError:
                self.answered_at = 0.0
            else:
                self.statuses.append(answer.status_code)
                if answer.is_success:
                    self._count += 1
                    self.answered_at = self.answered_at or time.monotonic()
                    self._acknowledge([answer.json()])
            await asyncio.sleep(0.05)

    def _acknowledge(self, tasks: list[dict[str, Any]]) -> None:
        self.acknowledged |= {int(task["id"].removeprefix("t-")) for task in tasks}


async def storm(hub: Hub, agents: int, held: int, hold_s: float) -> dict[str, Any]:
    """Kill the hub once, with ``held`` leases; everything measured."""
    site = Site()
    moved: list[tuple[int, int]] = []
    site.assigned = lambda task, at_ns: moved.append((task, at_ns))
    async with Crew(hub.url, hub.agent_token, site) as crew, asyncio.TaskGroup() as group:
        began = time.monotonic()
        crew.grow(agents)
        await crew.all_connected(LIMIT_S)
        first_s = time.monotonic() - began
        submitter = Submitter(hub)
        await submitter.submit([work(hold_s)] * held)
        await until(lambda: len(site.starts) >= held, LIMIT_S)
        insisting = group.create_task(submitter.insist(), name="submitter")
        await asyncio.sleep(1.0)
        newest = max(submitter.acknowledged)
        killed = time.monotonic()
        await asyncio.to_thread(hub.kill)
        await asyncio.to_thread(hub.start)
        ready = time.monotonic()
        await until(lambda: all(one.welcomed_at > killed for one in crew.agents.values()), LIMIT_S)
        back = sorted(one.welcomed_at for one in crew.agents.values())
        cpu_s, peak_kib = cpu_us(hub.pid) / 1e6, hub.peak_kib()
        await until(lambda: any(task > newest for task, _ in moved), LIMIT_S)
        moves = min(at_ns for task, at_ns in moved if task > newest) / 1e9
        insisting.cancel()
        async with asyncio.timeout(LIMIT_S):
            while await _live(hub) or any(one.holder.holds_anything for one in crew.agents.values()):  # noqa: ASYNC110  it is asked over HTTP
                await asyncio.sleep(0.2)
        return {
            "first_connect_s": first_s,
            "down_s": ready - killed,
            "back_after_kill_s": {name: percentile(back, share) - killed for name, share in SHARES.items()},
            "back_after_ready_s": {name: percentile(back, share) - ready for name, share in SHARES.items()},
            "answers_after_ready_s": submitter.answered_at - ready,
            "moves_after_ready_s": moves - ready,
            "answers": len(submitter.statuses),
            "answers_5xx": sum(status >= 500 for status in submitter.statuses),
            "hub_cpu_s": cpu_s,
            "hub_peak_kib": peak_kib,
            "attempts_refused": crew.refused,
            "account": account(hub.data_dir / "hub.db", submitter.acknowledged, site),
        }


BACK = "p50 {p50:.1f} s, p99 {p99:.1f} s, last {last:.1f} s"
SHARES = {"p50": 0.5, "p99": 0.99, "last": 1.0}


async def _live(hub: Hub) -> int:
    async with httpx2.AsyncClient(base_url=hub.url, trust_env=False, headers={"Authorization": f"Bearer {hub.token}"}) as http:
        return sum((await http.get("/api/v1/status")).json()["tasks"].values())


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--held", type=int, default=500, help="leases held when the hub is killed")
    chosen = parser.parse_args()
    log.configure(level="error")
    allow_many_sockets()
    agents, held, hold_s = (50, 25, 4.0) if chosen.tiny else (chosen.agents, chosen.held, 30.0)
    with running_hub({}) as hub:  # with its limits: they must not be in the way
        empty_kib = hub.peak_kib()
        found = uvloop.run(storm(hub, agents, held, hold_s))
    per_link = (found["hub_peak_kib"] - empty_kib) / agents
    wrong = {name: found["account"][name] for name in (*WRONG, "losses")} | {"answers_5xx": found["answers_5xx"]}
    good = not any(wrong.values()) and found["attempts_refused"] == 0
    kept = (
        found["back_after_ready_s"]["last"] <= ALL_BACK_S and found["moves_after_ready_s"] <= MOVES_S and per_link <= LINK_KIB
    )
    settings = {"durability": "full", "agents": agents, "held": held, "backoff_first_s": 5.0}
    document = {**found, "kib_per_link": per_link, "good": good, "settings": settings, "machine": machine()}
    after_kill, back = (BACK.format(**found[name]) for name in ("back_after_kill_s", "back_after_ready_s"))
    last, moves = found["back_after_ready_s"]["last"], found["moves_after_ready_s"]
    rows = [
        (f"{agents} agents connect for the first time", f"{found['first_connect_s']:.1f} s", ""),
        ("the hub is away", f"{found['down_s']:.1f} s", ""),
        ("an agent is back after the kill", after_kill, ""),
        ("after the new hub is ready", back, judged(last, ALL_BACK_S)),
        ("first submission taken, after ready", f"{found['answers_after_ready_s']:.2f} s", ""),
        ("first new task at an agent, after ready", f"{moves:.2f} s", judged(moves, MOVES_S)),
        ("answers 5xx", f"{found['answers_5xx']} of {found['answers']}", judged(found["answers_5xx"], 0)),
        ("hub CPU until all are back", f"{found['hub_cpu_s']:.1f} s", ""),
        ("hub memory at its highest", f"{found['hub_peak_kib'] / 1024:.0f} MiB, {per_link:.0f} KiB per link", judged(per_link, LINK_KIB)),
        *((name, str(count), judged(count, 0)) for name, count in wrong.items() if name != "answers_5xx"),
    ]  # fmt: skip
    show(document, rows, as_json=chosen.json)
    return 0 if good and (kept or chosen.tiny) else 1


if __name__ == "__main__":
    sys.exit(main())
