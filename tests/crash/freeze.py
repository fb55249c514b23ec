"""``python -m tests.crash.freeze --rounds 20``: processes that stop for longer than a lease, and go on as if nothing had been.

Leases are short here (4 s; the hub gives a task away after 5.3 s of silence, a shim ends its run after 3.9 s). Frozen with SIGSTOP are the
hub, for less and for more than a lease; and of machines, all at once: a sidecar; a shim; a sidecar and its shim, which leaves the agent
without anybody who holds its deadline (the gap the protocol states); and all three, as a machine asleep. When they go on, others have done
the work. What must hold: no result, push or merge of the old lease counts, nothing is lost, and by the agents' own account on the boot
clock no two of them worked on one task at once, but for the stated gap.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hub.cli.demo.play import on_stage
from hub.client import HubClient
from tests.crash.client import Client, Job, now_us
from tests.crash.kills import Kill
from tests.crash.verdict import Findings, come_to_rest, judge
from tests.crash.world import REPO, Noted, World
from tests.support.fleet import wait_until

LEASE_S, BEAT_S = 4.0, 0.6
GIVEN_AWAY_S = LEASE_S * 4 / 3
AGENTS = 6
LONG_S = 9.0
WAKES_S = 0.05
"""Between the parts of a machine that wakes: its shim looks at the clock before anything else of the run goes on."""
LIMIT_S = 60.0


@dataclass(slots=True)
class Freezer:
    """Scenarios on one world; each appends what it froze to ``kills`` and what was wrong to ``faults``."""

    world: World
    client: Client
    chance: random.Random
    kills: list[Kill] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    gap: set[int] = field(default_factory=set)
    """Tasks whose first agent was left without anybody who could stop it."""

    async def hub_for_less_than_a_lease(self, hub: HubClient) -> None:
        """Agents work on; what ends meanwhile is told afterwards."""
        jobs = [await self._job(hub, s=s) for s in (1.0, 1.0, 4.0, 4.0)]
        await self._at_work(jobs)
        await self._freeze("hub, briefly", [self._hub_pid()], self.chance.uniform(1.0, 1.8))
        await self._ended(jobs)
        self._expect_runs(jobs, (1, 1, 1, 1))

    async def hub_for_longer(self, hub: HubClient) -> None:
        """Nobody answers the agents, so their shims stop them; the hub counts the time it slept against nobody."""
        jobs = [await self._job(hub, s=s) for s in (1.0, 1.0, LONG_S, LONG_S)]
        await self._at_work(jobs)
        names = [name for name in self.world.names if name != "checks"]
        await self._freeze("hub", [self._hub_pid()], GIVEN_AWAY_S + self.chance.uniform(1.0, 2.0), *names)
        await self._ended(jobs)
        self._expect_runs(jobs, (1, 1, 2, 2))
        for job in jobs:
            detail = await hub.task(f"t-{job.task}")
            expired = [event for event in detail["history"] if event["cause"] == "lease_expired"]
            self.faults += [f"t-{job.task}: the time the hub slept was counted against its agent" for _ in expired]

    async def machines(self, hub: HubClient) -> None:
        """A sidecar; a shim; both; and a whole machine: each on its own agent, all at once."""
        jobs = [await self._job(hub, s=LONG_S, change=True) for _ in range(4)]
        await self._at_work(jobs)
        shims = {shim.task: shim for shim in self.world.living_shims()}
        alone, shim_only, pair, machine = jobs
        pids: dict[int, list[int]] = {}
        for job in jobs:
            shim = shims[job.task]
            sidecar = self.world.pid_of(shim.sidecar)
            agents = self.world.agent_pids([shim])
            parts = {
                alone.task: [sidecar],
                shim_only.task: [shim.pid],
                pair.task: [shim.pid, sidecar],
                machine.task: [shim.pid, sidecar, *agents],
            }
            pids[job.task] = parts[job.task]
            self.kills.append(Kill("machine", now_us(), len(pids[job.task]), frozenset({shim.sidecar}), ends_runs=True))
        self.gap.add(pair.task)
        for pid in itertools.chain(*pids.values()):
            os.kill(pid, signal.SIGSTOP)
        await self._ended([alone, pair, machine])
        await asyncio.sleep(self.chance.uniform(0.0, 1.0))
        for job in jobs:
            for pid in pids[job.task]:
                with suppress(ProcessLookupError):  # its shim was first, and ended it
                    os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(WAKES_S)
        await self._ended(jobs)
        self._expect_runs(jobs, (2, 1, 2, 2))
        wrote = [
            note for note in self.world.account() if note.word == "commit" and (note.task, note.epoch) == (machine.task, 1)
        ]
        if wrote:
            self.faults.append(f"t-{machine.task}: the agent of a machine that slept wrote when it woke")

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _job(self, hub: HubClient, *, s: float, change: bool = False) -> Job:
        work = {"s": s, "again_s": 0.5} | ({"change": f"work/frozen-{len(self.client.jobs)}.txt"} if change else {})
        return await self.client.add(hub, {"type": "feature", "repo": REPO} if change else {}, work)

    async def _at_work(self, jobs: Sequence[Job]) -> None:
        wanted = {job.task for job in jobs}

        async def all_at_work() -> bool:
            return wanted <= {note.task for note in self.world.account() if note.word in {"alive", "end"}}

        await wait_until(all_at_work, limit_s=LIMIT_S, what="an agent is at work on each")

    async def _ended(self, jobs: Sequence[Job]) -> None:
        async def all_ended() -> bool:
            return all(job.ended for job in jobs)

        await wait_until(all_ended, limit_s=LIMIT_S, what=f"these have ended: {[f't-{job.task}' for job in jobs]}")

    async def _freeze(self, kind: str, pids: list[int], seconds: float, *sidecars: str) -> None:
        self.kills.append(Kill(kind, now_us(), len(pids), frozenset(sidecars), hub=True, ends_runs=bool(sidecars)))
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def _hub_pid(self) -> int:
        return self.world.pid_of("hub")

    def _expect_runs(self, jobs: Sequence[Job], wanted: Sequence[int]) -> None:
        """More is no fault: on a busy machine a lease of seconds ends by itself, and what the runs did is judged anyway."""
        starts = [sum(note.word == "start" and note.task == job.task for note in self.world.account()) for job in jobs]
        if any(found < least for found, least in zip(starts, wanted, strict=True)):
            self.faults.append(f"agents of {[f't-{job.task}' for job in jobs]} ran {starts} times, not at least {list(wanted)}")


def overlaps(account: Sequence[Noted]) -> dict[int, int]:
    """Tasks that two agents worked on at once, and for how long at most (microseconds), by what the agents wrote down."""
    spans: dict[tuple[int, int], list[int]] = defaultdict(list)
    for note in account:
        spans[note.task, note.epoch].append(note.boot_us)
    found: dict[int, int] = {}
    for (task, epoch), span in spans.items():
        for (other, later), theirs in spans.items():
            if task == other and epoch < later and max(span) > min(theirs):
                found[task] = max(found.get(task, 0), max(span) - min(theirs))
    return found


async def run(rounds: int, seed: int, root: Path) -> tuple[Findings, Freezer]:
    """All scenarios, so often; nothing is left running."""
    world = World(root, AGENTS, lease_s=LEASE_S, beat_s=BEAT_S)
    freezer = Freezer(world, Client(world.url, random.Random(seed), load=0), random.Random(seed))
    async with on_stage(world):
        await world.open()
        load = asyncio.create_task(freezer.client.run(world.admin_token), name="load")
        async with HubClient(world.url, world.admin_token) as hub:
            for _ in range(rounds):
                await freezer.hub_for_less_than_a_lease(hub)
                await freezer.hub_for_longer(hub)
                await freezer.machines(hub)
        freezer.client.stop()
        faults = freezer.faults + await come_to_rest(world, freezer.client, LIMIT_S)
        await load
        findings = await judge(world, freezer.client, freezer.kills)
        faults += [
            f"t-{task}: two agents at once, for {us} µs"
            for task, us in overlaps(world.account()).items()
            if task not in freezer.gap
        ]
        findings.faults += faults
        return findings, freezer


def show(findings: Findings, freezer: Freezer) -> list[str]:
    """The whole report in lines."""
    gap = {task: us for task, us in overlaps(freezer.world.account()).items() if task in freezer.gap}
    return [
        f"frozen: {len(freezer.kills)} times, {sum(kill.processes for kill in freezer.kills)} processes",
        f"tasks {findings.tasks}, changes merged {findings.merged}, agent runs {findings.runs}",
        f"two agents at once: 0 but in the stated gap, there {len(gap)} of {len(freezer.gap)} times",
        f"histories checked: {findings.histories} tasks, {findings.ops} operations",
        f"faults: {len(findings.faults)}",
        *findings.faults,
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.freeze", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentcom-freeze-") as scratch:
        findings, freezer = asyncio.run(run(given.rounds, given.seed, Path(scratch)))
        print("\n".join(show(findings, freezer)))
    return 1 if findings.faults else 0


if __name__ == "__main__":
    sys.exit(main())
