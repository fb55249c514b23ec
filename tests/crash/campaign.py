"""``python -m tests.crash.campaign --kills 500 --seed 1``: kill real processes under load, and judge what is left.

A hub, sidecars with agents, a repository with merges, and a client that never stops submitting. Parts of it are killed with SIGKILL at
random moments and at every failpoint; after each kill the time is taken until the hub serves, every sidecar has reconciled and the queue
moves. At the end everything must have ended, and the verdict compares all accounts. Exit code 1 if it found a fault.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hub.cli.demo.play import on_stage
from tests.crash.client import Client
from tests.crash.kills import Kill, Reaper
from tests.crash.verdict import Findings, come_to_rest, judge
from tests.crash.world import World
from tests.support.failpoints import seams

Tell = Callable[[str], None]
REST_S = 120.0
POINT_PATIENCE_S = 2.5
SLOW = "delay(40)%0.3"
SLOW_POINTS = frozenset({"hub.commit.before", "hub.publish.before", "sidecar.fsync.before", "shim.close.before"})
"""Between a decision and its record, and between that and its telling, random kills find too little time by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done: so many ``kills`` in all, first one at each of the failpoints ``points`` that is reached, then one natural
    fault at each of ``errors``, then random ones.
    """

    kills: int
    seed: int = 1
    agents: int = 4
    points: frozenset[str] = frozenset()
    errors: frozenset[str] = frozenset()
    minutes: float = 60.0
    spice: float = 0.3


@dataclass(slots=True)
class Report:
    """What was done and found."""

    findings: Findings
    kills: list[Kill] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0


async def run(plan: Plan, root: Path, tell: Tell) -> Report:
    """One campaign in ``root``; nothing of it is left running."""
    began = time.monotonic()
    world = World(root, plan.agents)
    client = Client(world.url, random.Random(plan.seed), load=2 * plan.agents, spice=plan.spice)
    reaper = Reaper(world, client, random.Random(plan.seed + 1), until=began + plan.minutes * 60)
    reaper.arm("kill", plan.points)
    async with on_stage(world):
        await (reaper.open_at_failpoints() if plan.points else world.open())
        load = asyncio.create_task(client.run(world.admin_token), name="load")
        reached, failed = await _kill(plan, reaper, load, tell)
        client.stop()
        tell(f"{len(reaper.kills)} kills; nothing more is submitted")
        faults = await come_to_rest(world, client, REST_S)
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        tell("at rest")
        findings = await judge(world, client, reaper.kills)
        findings.faults += faults
        return Report(findings, reaper.kills, reached, failed, time.monotonic() - began)


async def _kill(plan: Plan, reaper: Reaper, load: asyncio.Task[None], tell: Tell) -> tuple[list[str], list[str]]:
    """The failpoints first, then random kills on slow disks until there were enough; the points that killed, and those that failed."""
    world, done = reaper.world, []
    for action, names in (("kill", plan.points), ("error", plan.errors)):
        if names != world.armed:
            reaper.arm(action, names)
            await reaper.recover(await reaper.kill_everything())
        await reaper.at_failpoints(POINT_PATIENCE_S, tell)
        done.append(world.points_hit())
    reaper.arm(SLOW, SLOW_POINTS)
    await reaper.recover(await reaper.kill_everything())
    while len(reaper.kills) < plan.kills and not load.done() and not reaper.is_late:
        await reaper.random_kill()
        if len(reaper.kills) % 25 == 0:
            tell(f"{len(reaper.kills)} kills, {reaper.client.finished} tasks ended")
    if load.done():
        load.result()
    return done[0], done[1]


def table(kills: Sequence[Kill]) -> list[str]:
    """One line per kind of kill: how many, and the time to full recovery."""
    kinds: dict[str, list[Kill]] = defaultdict(list)
    for kill in kills:
        how, _, point = kill.kind.partition(" ")
        side = point.partition(".")[0]
        kind = {"at": f"failpoint of {side}", "error": f"fault in {side}"}.get(how, kill.kind)
        kinds[kind].append(kill)
        kinds["all"].append(kill)
    rows = sorted(kinds.items(), key=lambda item: (item[0] == "all", -len(item[1])))
    lines = [f"{'killed':<24}{'times':>6}{'processes':>11}{'recovery p50':>14}{'p99':>9}{'max':>9}"]
    for kind, struck in rows:
        took = sorted(kill.recovered_s for kill in struck if kill.recovered_s is not None)
        figures = [quantile(took, 0.5), quantile(took, 0.99), took[-1]] if took else []
        shown = "".join(f"{figure:>{width}.2f} s" for figure, width in zip(figures, (12, 7, 7), strict=False))
        lines.append(f"{kind:<24}{len(struck):>6}{sum(kill.processes for kill in struck):>11}{shown}")
    return lines


def quantile(values: Sequence[float], q: float) -> float:
    """Of sorted values, at least one."""
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=1000, method="inclusive")[round(q * 1000) - 1]


def show(report: Report, plan: Plan) -> list[str]:
    """The whole report in lines."""
    missed = sorted(plan.points - set(report.reached))
    found = report.findings
    lines = table(report.kills)
    if plan.points:
        lines.append(
            f"failpoints reached: {len(report.reached)} of {len(plan.points)}; not reached: {' '.join(missed) or 'none'}"
        )
    lines += [
        f"tasks {found.tasks}, changes merged {found.merged}, agent runs {found.runs}, attempts lost to kills {found.lost}",
        f"histories checked: {found.histories} tasks, {found.ops} operations",
        f"faults: {len(found.faults)}, in {report.seconds:.0f} s",
        *found.faults,
    ]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0, help="kill no more after that long")
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--failpoints", default="all", help="all, none, or some, separated by commas")
    parser.add_argument(
        "--errors", action="store_true", help="have those of the failpoints fail, too, that have a natural fault"
    )
    parser.add_argument("--keep", type=Path, help="leave everything in this directory")
    given = parser.parse_args()
    faults = {name: fault for seam in seams.SEAMS for name, fault in seam.faults().items()}
    every = frozenset(faults)
    points = {"all": every, "none": frozenset[str]()}.get(given.failpoints, frozenset(given.failpoints.split(",")))
    if unknown := points - every:
        parser.error(f"no failpoints: {', '.join(sorted(unknown))}")
    errors = frozenset(name for name in points if faults[name] is not None) if given.errors else frozenset[str]()
    plan = Plan(kills=given.kills, seed=given.seed, agents=given.agents, points=points, errors=errors, minutes=given.minutes)
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:7.1f}s  {what}", flush=True)

    with tempfile.TemporaryDirectory(prefix="agentcom-crash-") as scratch:
        root = (given.keep or Path(scratch)) / "world"  # a name that no command line has: what has it is ended at the end
        root.mkdir(parents=True)
        report = asyncio.run(run(plan, root, tell))
    print("\n".join(show(report, plan)))
    return 1 if report.findings.faults else 0


if __name__ == "__main__":
    sys.exit(main())
