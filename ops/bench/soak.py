"""Hours of a bad day in minutes: many agents, faults of every kind all along, and whether anything leaks, slows down, or gets lost.

    .venv/bin/python ops/bench/soak.py [--agents 200] [--minutes 20] [--rate 50] [--json] [--tiny]

Real sidecars (runs are timers) reach the real hub through a proxy that cuts, swallows, starves and repeats their connections. Agents
decline, fail and crash, submitters cancel and send nonsense, subscribers of events read, or do not. The hub is ended and killed at
the beginning and at the end; between lies one stretch of its life that is judged: the slope (Theil and Sen's) of its memory, open files
and asyncio tasks after the warm-up, and whether its latencies at the end are those of the beginning. Ends with 1 if anything is wrong.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvloop
from crew import WRONG, Crew, account
from page import judged, machine, options, show
from server import Hub, allow_many_sockets, running_hub
from sidecars import Site
from turmoil import Turmoil
from verdict import bucket_quantile, figures, first_and_last_third, series, slope

from hub.client import HubClient, HubProblem, HubUnreachable, Reset
from hub.telemetry import log
from sidecar import backoff, link
from tests.support.proxy import Proxy

RSS_BYTES_PER_TASK, PER_MINUTE, STABLE = 200.0, 1.0, 1.5
"""Bars: growth of memory by finished task; of open files and of asyncio tasks; p99 of the last third to that of the first."""
SETTLE_S = 180.0


@dataclass(frozen=True)
class Plan:
    """How many, how fast, for how long. ``lives`` of the hub, each with its length in seconds; all but the last end as told."""

    agents: int
    rate: float
    lives: tuple[tuple[float, Callable[[Hub], None]], ...]
    warm_s: float
    """From the beginning of a life until what is kept for minutes has filled (an ended task stays in memory for five)."""
    sample_s: float
    fault_s: float
    """Mean time between two faults."""
    failing: float
    """Share of runs that fail, to be tried again seconds later."""


def plan_of(agents: int, minutes: float, rate: float) -> Plan:
    """Short lives before and after a long one."""
    whole = minutes * 60
    ends = ((0.04, Hub.terminate), (0.04, Hub.kill), (0.86, Hub.kill), (0.03, Hub.terminate), (0.03, Hub.terminate))
    return Plan(agents, rate, tuple((share * whole, end) for share, end in ends), min(390.0, whole * 0.4), 10.0, 2.0, 0.05)


TINY = Plan(12, 15, ((0.7, Hub.terminate), (0.7, Hub.kill), (3.0, Hub.terminate)), 0.8, 0.2, 0.6, 0.0)


@dataclass
class Seen:
    """What was measured; times are seconds from the beginning."""

    samples: list[dict[str, float]] = field(default_factory=list)
    submits: list[tuple[float, float]] = field(default_factory=list)
    pushes: list[tuple[float, float]] = field(default_factory=list)
    noise: list[tuple[float, float]] = field(default_factory=list)
    """How late a sleep of this process ended: what the machine did, not the hub."""
    acknowledged: set[int] = field(default_factory=set)
    statuses: dict[str, int] = field(default_factory=dict)
    lives: list[tuple[float, float]] = field(default_factory=list)
    """Of the hub."""
    events: int = 0
    gaps: int = 0


class Soak:
    """One run."""

    def __init__(self, hub: Hub, plan: Plan, seed: int) -> None:
        self.hub, self.plan = hub, plan
        self.chance = random.Random(seed)
        self.began = time.monotonic()
        self.seen = Seen()
        self.site = Site()
        self.site.assigned = self._push
        self._submitted: dict[int, tuple[float, int]] = {}
        self._offered: dict[int, int] = {}

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    def client(self) -> HubClient:
        return HubClient(self.hub.url, self.hub.token)

    async def run(self) -> dict[str, Any]:
        """Everything at once, then peace until all work has ended; the account."""
        whims = lambda: self.chance.random() < 0.02  # noqa: E731
        async with Proxy(self.hub.port) as proxy, Crew(
            f"http://127.0.0.1:{proxy.port}", self.hub.agent_token, self.site, first_s=2.0, whims=whims
        ) as crew:  # fmt: skip
            crew.grow(self.plan.agents)
            await crew.all_connected(SETTLE_S)
            self.began = time.monotonic()
            turmoil = Turmoil(self.hub, proxy, crew, self.chance)
            async with asyncio.TaskGroup() as group:
                forever = [
                    *(group.create_task(self._submit(i)) for i in range(4)),
                    group.create_task(turmoil.run(every_s=self.plan.fault_s)),
                    group.create_task(turmoil.nonsense(every_s=self.plan.fault_s / 2, statuses=self.seen.statuses)),
                    *(group.create_task(turmoil.deaf_subscriber()) for _ in range(2)),
                    *(group.create_task(self._subscribe()) for _ in range(2)),
                    group.create_task(self._sample()),
                    group.create_task(self._notice_noise()),
                ]
                await self._live_and_die()
                for task in forever:
                    task.cancel()
            proxy.heal()
            settled = await self._settle(crew)
        found = account(self.hub.data_dir / "hub.db", self.seen.acknowledged, self.site)
        return {"faults": dict(turmoil.done), "settled": settled, "refused_for_good": crew.refused, "account": found}

    async def _live_and_die(self) -> None:
        for i, (seconds, end) in enumerate(self.plan.lives):
            began = self.now
            await asyncio.sleep(seconds)
            self.seen.lives.append((began, self.now))
            if i + 1 < len(self.plan.lives):
                await asyncio.to_thread(end, self.hub)
                await asyncio.to_thread(self.hub.start)

    async def _submit(self, lane: int) -> None:
        """A quarter of all tasks, evenly; each is repeated with its key until it is acknowledged. Some are cancelled soon."""
        async with self.client() as hub, asyncio.TaskGroup() as group:
            due = self.now
            for i in itertools.count():
                due += 4 / self.plan.rate
                await asyncio.sleep(max(0.0, due - self.now))
                task = await self._insist(hub, f"soak-{lane}-{i}")
                if self.chance.random() < 0.03:
                    group.create_task(self._cancel(hub, task, self.chance.uniform(0, 1.0)))

    async def _insist(self, hub: HubClient, key: str) -> str:
        end = "fail" if self.chance.random() < self.plan.failing else "succeed"
        run = {"s": self.chance.uniform(0.2, 1.8), "end": end}
        while True:
            began, began_ns = self.now, time.monotonic_ns()
            try:
                answer = await hub.submit(
                    {"title": key, "type": "research", "repo": None, "metadata": {"bench": run}}, idempotency_key=key
                )
            except (HubUnreachable, HubProblem) as fault:
                code = fault.code if isinstance(fault, HubProblem) else "unreachable"
                self.seen.statuses[code] = self.seen.statuses.get(code, 0) + 1
                await asyncio.sleep(0.25)
                continue
            n = int(answer["id"].removeprefix("t-"))
            self.seen.acknowledged.add(n)
            self.seen.submits.append((began, self.now - began))
            if answer["created"]:
                self._submitted[n] = began, began_ns
                if n in self._offered:
                    self._push(n, self._offered[n])
            return answer["id"]

    def _push(self, n: int, at_ns: int) -> None:
        """An offer arrived, perhaps before the answer to the submission."""
        self._offered.setdefault(n, at_ns)
        if (submitted := self._submitted.pop(n, None)) is not None:
            began, began_ns = submitted
            self.seen.pushes.append((began, (self._offered[n] - began_ns) / 1e9))

    async def _cancel(self, hub: HubClient, task: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        with suppress(HubUnreachable, HubProblem):  # it has ended, or the hub is away
            await hub.cancel(task)

    async def _subscribe(self) -> None:
        """Follow all events over every restart; a number that is missing is a gap."""
        async with self.client() as hub, aclosing(hub.events()) as events:
            last = None
            async for item in events:
                if isinstance(item, Reset):
                    self.seen.gaps += 1
                    last = None
                elif isinstance(item, dict):
                    self.seen.events += 1
                    self.seen.gaps += last is not None and item["seq"] != last + 1
                    last = item["seq"]

    async def _sample(self) -> None:
        async with httpx2.AsyncClient(base_url=self.hub.url, trust_env=False) as http:
            while True:
                try:
                    text = (await http.get("/metrics", timeout=5)).text
                except httpx2.TransportError:
                    await asyncio.sleep(0.2)
                    continue
                self.seen.samples.append({"at": self.now, "wal": float(self._wal_bytes()), **figures(text)})
                await asyncio.sleep(self.plan.sample_s)

    def _wal_bytes(self) -> int:
        wal = self.hub.data_dir / "hub.db-wal"
        return wal.stat().st_size if wal.exists() else 0

    async def _notice_noise(self) -> None:
        while True:
            due = time.monotonic() + 0.02
            await asyncio.sleep(0.02)
            self.seen.noise.append((self.now, time.monotonic() - due))

    async def _settle(self, crew: Crew) -> bool:
        """Whether everything that was submitted ends once nothing is against it."""
        async with self.client() as hub:
            until = time.monotonic() + SETTLE_S
            while time.monotonic() < until:
                status = await hub.status()
                if not any(status["tasks"].values()) and not any(one.holder.holds_anything for one in crew.agents.values()):
                    return True
                await asyncio.sleep(0.5)
        return False


def judge(seen: Seen, plan: Plan) -> dict[str, Any]:
    """What the stretch between the restarts shows, once it is warm."""
    begin, end = max(seen.lives, key=lambda life: life[1] - life[0])
    begin += plan.warm_s
    warm = [sample for sample in seen.samples if begin <= sample["at"] <= end]
    first, last = warm[0], warm[-1]
    third = (end - begin) / 3
    early = next(sample for sample in warm if sample["at"] >= begin + third)
    late = next(sample for sample in reversed(warm) if sample["at"] <= end - third)
    applied = 'agentcom_results_total{verdict="applied"}'
    per_s = (last[applied] - first[applied]) / (last["at"] - first["at"])
    pushed = "agentcom_push_latency_seconds"
    lag = "agentcom_loop_lag_seconds"
    return {
        "judged_s": (begin, end),
        "tasks_per_s": per_s,
        "rss_mib": (first["process_resident_memory_bytes"] / 2**20, last["process_resident_memory_bytes"] / 2**20),
        "rss_bytes_per_task": slope(series(warm, "process_resident_memory_bytes")) / max(per_s, 0.1),
        "fds": (first["process_open_fds"], last["process_open_fds"]),
        "fds_per_minute": 60 * slope(series(warm, "process_open_fds")),
        "asyncio_tasks": (first["agentcom_asyncio_tasks"], last["agentcom_asyncio_tasks"]),
        "asyncio_tasks_per_minute": 60 * slope(series(warm, "agentcom_asyncio_tasks")),
        "threads": (first["agentcom_threads"], last["agentcom_threads"]),
        "links": (first["agentcom_links"], last["agentcom_links"]),
        "wal_mib_most": max(sample["wal"] for sample in seen.samples) / 2**20,
        "push_in_hub_p99_s": (bucket_quantile(first, early, pushed, 0.99), bucket_quantile(late, last, pushed, 0.99)),
        "loop_lag_p99_s": (bucket_quantile(first, early, lag, 0.99), bucket_quantile(late, last, lag, 0.99)),
        "push_p50_s": first_and_last_third(seen.pushes, begin, end, 0.5),
        "push_p90_s": first_and_last_third(seen.pushes, begin, end, 0.9),
        "submit_p50_s": first_and_last_third(seen.submits, begin, end, 0.5),
        "submit_p99_s": first_and_last_third(seen.submits, begin, end, 0.99),
        "noise_p99_s": first_and_last_third(seen.noise, begin, end, 0.99),
    }


STABLE_FIGURES = ("push_in_hub_p99_s", "push_p90_s", "submit_p99_s")


def verdicts(found: dict[str, Any]) -> dict[str, bool]:
    """Every bar, and whether it is kept. Latencies may rise as the machine itself became slower, by its own measure."""
    noise = max(1.0, found["noise_p99_s"][1] / max(found["noise_p99_s"][0], 1e-4))
    stable = {name: found[name][1] <= STABLE * noise * found[name][0] for name in STABLE_FIGURES}
    return {
        "memory": found["rss_bytes_per_task"] <= RSS_BYTES_PER_TASK,
        "open files": found["fds_per_minute"] <= PER_MINUTE,
        "asyncio tasks": found["asyncio_tasks_per_minute"] <= PER_MINUTE,
        **stable,
    }


def rows_of(found: dict[str, Any], seen: Seen) -> list[tuple[str, str, str]]:
    def pair(name: str, unit: str = "", scale: float = 1.0, digits: int = 0) -> str:
        return " → ".join(f"{value * scale:.{digits}f}" for value in found[name]) + unit

    noise = max(1.0, found["noise_p99_s"][1] / max(found["noise_p99_s"][0], 1e-4))
    spawned = found["asyncio_tasks_per_minute"]
    rows = [
        ("tasks finished", f"{found['account']['tasks']}, {found['tasks_per_s']:.0f}/s in the stretch", ""),
        ("memory, first → last", pair("rss_mib", " MiB", digits=1), ""),
        ("memory, slope", f"{found['rss_bytes_per_task']:.0f} bytes per task", judged(found["rss_bytes_per_task"], RSS_BYTES_PER_TASK)),
        ("open files", pair("fds"), ""),
        ("open files, slope", f"{found['fds_per_minute']:.2f} a minute", judged(found["fds_per_minute"], PER_MINUTE)),
        ("asyncio tasks", pair("asyncio_tasks"), ""),
        ("asyncio tasks, slope", f"{spawned:.2f} a minute", judged(spawned, PER_MINUTE)),
        ("threads; links", pair("threads") + "; " + pair("links"), ""),
        ("WAL at its largest", f"{found['wal_mib_most']:.1f} MiB", ""),
        ("lateness of a sleep elsewhere (the machine), p99", pair("noise_p99_s", " ms", 1e3, 1), ""),
        ("loop lag of the hub, p99", pair("loop_lag_p99_s", " ms", 1e3, 1), ""),
        ("push p50, submission to offer at the agent", pair("push_p50_s", " ms", 1e3, 1), ""),
        ("submission p50", pair("submit_p50_s", " ms", 1e3, 1), ""),
    ]  # fmt: skip
    for name, words in (
        ("push_in_hub_p99_s", "push p99, decision to frame"),
        ("push_p90_s", "push p90"),
        ("submit_p99_s", "submission p99"),
    ):
        early, late = found[name]
        rows.append((words, pair(name, " ms", 1e3, 1), judged(late / early / noise, STABLE) if early else ""))
    rows += [
        (f"account: {name.replace('_', ' ')}", str(found["account"][name]), judged(found["account"][name], 0)) for name in WRONG
    ]
    rows += [("account: losses (faults outlast a lease)", str(found["account"]["losses"]), "")]
    rows += [("events seen; gaps", f"{seen.events}; {seen.gaps}", judged(seen.gaps, 0))]
    rows += [(f"faults: {name}", str(count), "") for name, count in sorted(found["faults"].items())]
    rows += [(f"answered {name}", str(count), "") for name, count in sorted(seen.statuses.items())]
    return rows


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=50.0, help="tasks a second")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    log.configure(level="error")
    allow_many_sockets()
    plan, terms = plan_of(chosen.agents, chosen.minutes, chosen.rate), dict[str, Any](page_cache_kib=2048)
    if chosen.tiny:
        plan, terms = TINY, terms | {"lease": {"term_s": 15.0, "beat_s": 1.0, "accept_s": 1.5}}
        backoff.SUPERSEDED_S, link.OPEN_S = 0.5, 2.0  # what a sidecar waits for without asking the hub how long
    with running_hub(terms) as hub:
        soak = Soak(hub, plan, chosen.seed)
        found = uvloop.run(soak.run())
    found |= judge(soak.seen, plan)
    kept = verdicts(found)
    failures = sum(count for status, count in soak.seen.statuses.items() if status.startswith("5") or status == "internal")
    lost = sum(found["account"][name] for name in WRONG) + soak.seen.gaps + failures + (not found["settled"])
    good = not lost and (chosen.tiny or all(kept.values()))
    settings = {"durability": "full", "agents": plan.agents, "rate": plan.rate, "seconds": round(soak.now), "seed": chosen.seed}
    answers = {"statuses": soak.seen.statuses, "events": soak.seen.events, "gaps": soak.seen.gaps}
    document = {**found, **answers, "kept": kept, "good": good, "settings": settings, "machine": machine()}
    show(document, rows_of(found, soak.seen), as_json=chosen.json)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
