"""What must be true of a world that was killed part by part, once it has come to rest."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hub.client import HubClient
from sidecar.journal import read_journals
from tests.crash import histories
from tests.crash.client import Client
from tests.crash.kills import Kill
from tests.crash.linearizability import explain
from tests.crash.world import World
from tests.support.fleet import wait_until

TRAILER = "AgentCom-Task: "
CLOCK_US = 50_000


@dataclass(slots=True)
class Findings:
    """Faults, and what was looked at."""

    faults: list[str]
    tasks: int = 0
    merged: int = 0
    ops: int = 0
    histories: int = 0
    runs: int = 0
    lost: int = 0


async def come_to_rest(world: World, client: Client, limit_s: float) -> list[str]:
    """Let everything that was accepted end; returns faults. The sidecars must have nothing left to say."""
    stuck: list[str] = []
    try:
        await wait_until(lambda: _all_ended(client), limit_s=limit_s, what="every task has ended")
    except AssertionError:
        async with world.client() as hub:
            for job in client.open:
                why = (await hub.explain(f"t-{job.task}"))["explanation"] if job.task else "never acknowledged"
                stuck.append(f"stuck: {job.key} t-{job.task} {job.state}: {why}")
    try:
        await wait_until(lambda: _nothing_held(world), limit_s=30, what="journals are empty and no process of a run is left")
    except AssertionError:
        held, faults = read_all(world)
        stuck.append(f"left over: journals {held} {faults}, orphans {world.orphans()}")
    return stuck


async def _all_ended(client: Client) -> bool:
    return all(job.ended for job in client.jobs)


async def _nothing_held(world: World) -> bool:
    held, faults = await asyncio.to_thread(read_all, world)
    return not held and not faults and not world.orphans()


def read_all(world: World) -> tuple[dict[str, list[Any]], list[str]]:
    """What the journals of all sidecars hold."""
    held: dict[str, list[Any]] = {}
    found: list[str] = []
    for name in world.names:
        journals, faults = read_journals(world.root / name / "state" / "agents")
        found += faults
        held |= {agent: sorted(keys) for agent, keys in journals.items() if keys}
    return held, found


async def judge(world: World, client: Client, kills: Sequence[Kill]) -> Findings:
    """Compare the client's record, the agents' own account and the remote with what the hub has; stops the hub."""
    findings = Findings([], tasks=len(client.jobs))
    faults = findings.faults
    async with world.client() as hub:
        faults += [fault async for fault in _submitted_again(hub, client)]
        details = [await hub.task(f"t-{job.task}") for job in client.jobs if job.task]
    await world.strike("hub", signum=15)
    db = sqlite3.connect(f"file:{world.data_dir / 'hub.db'}?mode=ro", uri=True)
    faults += [f"integrity: {row[0]}" for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
    faults += _chain(db)
    faults += _applied(client, details)
    faults += _merged(world, client, findings)
    faults += _runs(world, client, details, kills, findings)
    db.close()
    faults += _linearizable(world, client, findings)
    return findings


async def _submitted_again(hub: HubClient, client: Client) -> Any:
    """Acknowledged ⊆ found: the same key gives the same task, which is what was submitted."""
    for job in client.jobs:
        found = await hub.submit(job.body, idempotency_key=job.key)  # type: ignore[arg-type]
        if found["id"] != f"t-{job.task}":
            yield f"{job.key} was acknowledged as t-{job.task} and is {found['id']} now"
        elif (await hub.task(found["id"]))["title"] != job.body["title"]:
            yield f"t-{job.task} is not what {job.key} submitted"


def _chain(db: sqlite3.Connection) -> Iterator[str]:
    """The event log is gap-free, each task's chain is whole, and its end is the task's state."""
    count, low, high = db.execute("SELECT count(*), min(seq), max(seq) FROM event").fetchone()
    if count != high - low + 1:
        yield f"{count} events between {low} and {high}"
    state: dict[int, str | None] = defaultdict(lambda: None)
    for seq, task, before, to in db.execute(
        "SELECT seq, task, from_state, to_state FROM event WHERE kind LIKE 'task.%' AND to_state IS NOT NULL ORDER BY seq"
    ):
        if state[task] != before:
            yield f"event {seq}: t-{task} was {state[task]}, not {before}"
        state[task] = to
    for task, now in db.execute("SELECT n, state FROM task"):
        if state[task] != now:
            yield f"t-{task} is {now}, its events end with {state[task]}"


def _applied(client: Client, details: Sequence[Any]) -> Iterator[str]:
    """One applied success per generation that was done, none for others; what may fail is known beforehand."""
    jobs = {job.task: job for job in client.jobs}
    for detail in details:
        job = jobs[int(detail["id"].removeprefix("t-"))]
        successes = [one for one in detail["attempts"] if one["verdict"] == "applied" and one["outcome"] == "succeeded"]
        wanted = job.generations if detail["state"] == "done" else job.generations - 1
        if len(successes) != wanted:
            yield f"{detail['id']} {detail['state']}: {len(successes)} applied successes in {job.generations} generations"
        lost = [one for one in detail["attempts"] if one["outcome"] in {"lost", "failed"}]
        walled = "budget" in job.body
        if detail["state"] == "dead" and not walled and len(lost) < 3:
            yield f"{detail['id']} is dead after {len(lost)} losses: {detail['cause']}"
        if detail["state"] == "cancelled" and json.loads(job.body["description"].removeprefix("JOB "))["s"] != 2.0:
            yield f"{detail['id']} was cancelled by nobody"


def _merged(world: World, client: Client, findings: Findings) -> Iterator[str]:
    """Each finished change is on the base branch once, and nothing else is."""
    log = world._git("log", "--first-parent", "--format=%B%x00", f"refs/heads/{world.base}", cwd=world.remote)
    merged = Counter(
        int(line.removeprefix(TRAILER).removeprefix("t-"))
        for message in log.split("\0")
        for line in message.splitlines()
        if line.startswith(TRAILER)
    )
    files = set(world._git("ls-tree", "-r", "--name-only", f"refs/heads/{world.base}", cwd=world.remote).splitlines())
    for job in client.jobs:
        if job.path is None:
            continue
        times = merged.pop(job.task, 0)
        findings.merged += times
        if times != (job.state == "done") or (job.path in files) != (job.state == "done"):
            yield f"t-{job.task} is {job.state}, {times} times on the base, its file is there: {job.path in files}"
    if merged:
        yield f"on the base for no task of ours: {dict(merged)}"


def _runs(world: World, client: Client, details: Sequence[Any], kills: Sequence[Kill], findings: Findings) -> Iterator[str]:
    """An agent ran once under each fence. One that ran is lost only by a kill of its shim or itself; one that did not, by any kill."""
    on_purpose = {f"t-{job.task}" for job in client.jobs if "budget" in job.body}
    starts = Counter((note.task, note.epoch) for note in world.account() if note.word == "start")
    findings.runs = sum(starts.values())
    yield from (f"t-{task} ran {times} times under epoch {epoch}" for (task, epoch), times in starts.items() if times > 1)
    for detail in details:
        for attempt in detail["attempts"]:
            walled = detail["id"] in on_purpose and attempt["outcome"] == "failed"
            if walled or attempt["outcome"] in {"succeeded", "cancelled"} or attempt["cause"] in {"stopped", "cancel"}:
                continue
            findings.lost += 1
            ran = (int(detail["id"].removeprefix("t-")), attempt["lease_epoch"]) in starts
            if not any(_explains(kill, attempt, ran=ran) for kill in kills):
                where = f"{detail['id']} epoch {attempt['lease_epoch']} on {attempt['agent']}, which {'ran' if ran else 'did not run'}"
                yield f"{where}: {attempt['outcome']} {attempt['cause']} for no kill"


def _explains(kill: Kill, attempt: Any, *, ran: bool) -> bool:
    began, ended = (_us(attempt[at]) for at in ("assigned_at", "ended_at"))
    hit = attempt["agent"] in kill.sidecars or (kill.hub and not ran)
    return hit and (kill.ends_runs or not ran) and began - CLOCK_US <= kill.at_us <= ended + CLOCK_US


def _us(moment: str | None) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1e6) if moment else 0


def _linearizable(world: World, client: Client, findings: Findings) -> Iterator[str]:
    """Each task's history could have come from a register with a fence."""
    agents = [histories.of_a_sidecar(world.tap_of(name), name) for name in world.names]
    found = histories.by_task(client.ops, histories.of_the_log(world.data_dir / "hub.db"), *agents)
    findings.histories, findings.ops = len(found), sum(map(len, found.values()))
    for task, history in found.items():
        if (why := explain(history)) is not None:
            yield f"t-{task}: {why}"
