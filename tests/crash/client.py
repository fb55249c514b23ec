"""A client that keeps a constant load on the hub as a real one would, and its own record of what it was told.

Every submit has a key of its own and is repeated until it is answered. What the hub acknowledged stands in :attr:`Client.jobs`; each
thing that was asked, with when and how it was answered, in :attr:`Client.ops`.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hub.client import HubClient
from hub.client.errors import HubProblem, HubUnreachable
from tests.crash.linearizability import Kind, Op
from tests.crash.world import REPO
from tests.support.fleet import ENDED

LOOK_S = 0.15
BUSY = frozenset({429, 503, 507})


def now_us() -> int:
    """Microseconds UTC, as the hub's event log has them."""
    return time.time_ns() // 1000


@dataclass(slots=True)
class Job:
    """One piece of work: what is submitted, and what became of it as far as the client knows."""

    key: str
    body: dict[str, Any]
    task: int = 0
    state: str = ""
    epoch: int = 0
    cancel: bool = False
    requeue: bool = False
    generations: int = 1
    ended: bool = False

    @property
    def path(self) -> str | None:
        """What its agent commits, if anything."""
        found: str | None = json.loads(self.body["description"].removeprefix("JOB ")).get("change")
        return found


@dataclass(slots=True)
class Client:
    """``run`` keeps ``load`` jobs open until :meth:`stop`; ``spice`` adds what is rare: questions, cancels, requeues, floods, walls."""

    url: str
    chance: random.Random
    load: int
    spice: float = 0.3
    jobs: list[Job] = field(default_factory=list)
    ops: list[tuple[int, Op]] = field(default_factory=list)
    moves: int = 0
    finished: int = 0
    _stopping: bool = False

    async def run(self, token: str) -> None:
        """Submit and look, until :meth:`stop` and everything has ended."""
        async with HubClient(self.url, token, timeout_s=10) as hub, asyncio.TaskGroup() as group:
            submits: set[asyncio.Task[None]] = set()
            while not (self._stopping and not submits and all(job.ended for job in self.jobs)):
                while not self._stopping and len(self.open) < self.load:
                    job = self._new()
                    self.jobs.append(job)
                    submits.add(group.create_task(self._submit(hub, job), name=job.key))
                await self._look(hub)
                submits = {task for task in submits if not task.done()}
                await asyncio.sleep(LOOK_S)

    async def add(self, hub: HubClient, body: dict[str, Any], work: dict[str, Any]) -> Job:
        """Submit one job beside the load."""
        n = len(self.jobs)
        job = Job(f"job-{n}", {"title": f"Job {n}", "type": "research", **body, "description": f"JOB {json.dumps(work)}"})
        self.jobs.append(job)
        await self._submit(hub, job)
        return job

    @property
    def open(self) -> list[Job]:
        """Jobs that have not ended."""
        return [job for job in self.jobs if not job.ended]

    def stop(self) -> None:
        """Submit nothing more."""
        self._stopping = True

    def _new(self) -> Job:
        n, dice = len(self.jobs), self.chance
        work: dict[str, Any] = {"s": round(dice.uniform(0.1, 1.2), 2)}
        body: dict[str, Any] = {
            "title": f"Job {n}",
            "type": "research",
            "lane": dice.choice(("normal", "normal", "high", "low")),
        }
        job = Job(f"job-{n}", body)
        kind = dice.random()
        if kind < 0.25:
            work["change"] = f"work/job-{n}.txt"
            body |= {"type": "feature", "repo": REPO}
        elif kind < 0.25 + self.spice:
            match dice.choice(("ask", "cancel", "requeue", "talk", "wall")):
                case "ask":
                    work["ask"] = True
                case "cancel":
                    job.cancel, work["s"] = True, 2.0
                case "requeue":
                    job.requeue = True
                case "talk":
                    work["talk"] = 60
                    body["metadata"] = {"filler": "x" * 12_000}
                case "wall":
                    work["s"] = 3.0
                    body |= {"budget": {"wall_s": 1}, "max_tries": 1}
        body["description"] = f"JOB {json.dumps(work)}"
        return job

    async def _submit(self, hub: HubClient, job: Job) -> None:
        began = now_us()
        while True:
            try:
                answer = await hub.submit(job.body, idempotency_key=job.key)  # type: ignore[arg-type]
            except HubUnreachable:
                await asyncio.sleep(0.05)
            except HubProblem as problem:
                if problem.status not in BUSY:
                    raise
                await asyncio.sleep(0.05)
            else:
                job.task = int(answer["id"].removeprefix("t-"))
                self._note(job, Op(kind=Kind.SUBMIT, began=began, ended=now_us(), answer="ok"))
                return

    async def _look(self, hub: HubClient) -> None:
        watched = {job.task: job for job in self.jobs if job.task and not job.ended}
        with suppress(HubUnreachable, HubProblem):
            page = await hub.tasks(live=True, limit=200)
            live = {int(task["id"].removeprefix("t-")): task for task in page["tasks"]}
            for n, job in watched.items():
                if n in live:
                    await self._meet(hub, job, live[n])
                else:
                    await self._end(hub, job)

    async def _meet(self, hub: HubClient, job: Job, task: Any) -> None:
        if (job.state, job.epoch) != (task["state"], task["lease_epoch"]):
            self.moves += 1
            job.state, job.epoch = task["state"], task["lease_epoch"]
        if job.state == "blocked" and self.chance.random() < 0.5:
            with suppress(HubProblem):
                await hub.answer(task["id"], "go on")
        if job.cancel and job.state in {"assigned", "working"} and self.chance.random() < 0.3:
            job.cancel = False
            await self._ask(job, Kind.CANCEL, lambda: hub.cancel(task["id"]))

    async def _end(self, hub: HubClient, job: Job) -> None:
        task = await hub.task(f"t-{job.task}")
        if task["state"] not in ENDED:
            return
        self.moves += 1
        self.finished += 1
        job.state = task["state"]
        if job.requeue and job.state == "done":
            job.requeue = False
            await self._ask(job, Kind.REQUEUE, lambda: hub.requeue(task["id"]))
            return
        job.generations = task["generation"]
        began = now_us()
        job.ended = True
        self._note(job, Op(kind=Kind.READ, began=began, ended=now_us(), answer="over"))

    async def _ask(self, job: Job, kind: Kind, ask: Callable[[], Awaitable[Any]]) -> None:
        """Ask once; an answer that does not come is one that nobody knows."""
        began = now_us()
        try:
            answer = await ask()
        except HubUnreachable:
            self._note(job, Op(kind=kind, began=began, ended=None))
        except HubProblem as problem:
            unknown = problem.status in BUSY
            self._note(
                job, Op(kind=kind, began=began, ended=None if unknown else now_us(), answer=None if unknown else "refused")
            )
        else:
            said = "ok" if kind is Kind.REQUEUE else "pending" if answer["pending"] else "over"
            self._note(job, Op(kind=kind, began=began, ended=now_us(), answer=said))

    def _note(self, job: Job, op: Op) -> None:
        self.ops.append((job.task, op))
