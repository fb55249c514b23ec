"""The rows of lifecycles without a hub: decided by the real scheduler, written by the real store, nothing in between.

This is the floor the benchmarks compare with. A *script* plays agents that answer at once against a scheduler; what it decides is
grouped as the conductor would group it if every one of its agents had something to say in each round.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from agents import BATCH, OUTPUT, SHA256, TASK

from hub.core import commands
from hub.core.commands import Command, NewTask, Stamp
from hub.core.decision import Decision, PushAssign
from hub.core.lease import Terms
from hub.core.recall import Snapshot
from hub.core.scheduler import Scheduler
from hub.ids import AgentId, Micros, Outcome, SessionEpoch, TaskType
from hub.store import projects
from hub.store.sqlite import SqliteStore
from hub.store.writer import Group

NEW = NewTask(
    title=TASK["title"],
    type=TaskType(TASK["type"]),
    spec=orjson.dumps({"description": TASK["description"]}).decode(),
    body_hash=SHA256,
)


class Script:
    """A scheduler with ``agents`` idle agents and nobody else."""

    def __init__(self, agents: int) -> None:
        snapshot = Snapshot(projects={"default": (False, "auto")})
        self.scheduler, self.opening = Scheduler.open(snapshot, Terms(max_live=1_000_000), stamp(), hub_epoch=1)
        self.joining = [self._hello(AgentId(f"a-{i}")) for i in range(agents)]

    def _hello(self, agent: AgentId) -> Decision:
        return self.do(commands.Hello(actor=agent, agent=agent, install_id=f"i-{agent}", boot_id="b"))

    def do(self, command: Command) -> Decision:
        return self.scheduler.apply(command, stamp())

    def submit(self, count: int) -> Decision:
        return self.do(commands.Submit(actor="bench", tasks=(NEW,) * count))

    def accept(self, agent: AgentId, push: PushAssign) -> Decision:
        return self.do(commands.Accept(**who(agent), n=push.n, lease_epoch=push.lease_epoch, re=1))

    def report(self, agent: AgentId, push: PushAssign) -> Decision:
        body = commands.Report(
            **who(agent), n=push.n, lease_epoch=push.lease_epoch, outcome=Outcome.SUCCEEDED, sha256=SHA256, output=OUTPUT
        )
        return self.do(body)

    def lifecycles(self, count: int) -> Iterator[Group]:
        """Groups of ``count`` lifecycles: every agent accepts, then every agent reports and is given its next task; and so on."""
        submitted = finished = 0
        offers: dict[AgentId, PushAssign] = {}
        while finished < count:
            decided = []
            while submitted < count and submitted - finished < 2 * len(self.joining) + BATCH:
                decided.append(self.submit(BATCH))
                submitted += BATCH
            offers |= pushed(decided)
            accepted, offers = offers, {}
            decided += [self.accept(agent, push) for agent, push in accepted.items()]
            yield group_of(decided)
            decided = [self.report(agent, push) for agent, push in accepted.items()]
            finished += len(decided)
            offers = pushed(decided)
            yield group_of(decided)


def who(agent: AgentId) -> dict[str, Any]:
    return {"actor": agent, "agent": agent, "session_epoch": SessionEpoch(1)}


def pushed(decided: list[Decision]) -> dict[AgentId, PushAssign]:
    """The assignments of some decisions, by agent."""
    return {to: effect for one in decided for to, _, effect in one.effects if isinstance(effect, PushAssign)}


def group_of(decided: list[Decision]) -> Group:
    """What the conductor would commit together."""
    group = Group()
    for decision in decided:
        group.rows.extend(decision.rows)
        group.events.extend(decision.events)
    return group


def stamp() -> Stamp:
    return Stamp(time.monotonic_ns() // 1000, now())


def now() -> Micros:
    return Micros(time.time_ns() // 1000)


@asynccontextmanager
async def fresh_store() -> Any:
    """A store in a directory of its own, on the disk the hubs use, with the project that every hub begins with."""
    with TemporaryDirectory(prefix="agentcom-bench-") as root:
        store = await SqliteStore.open(Path(root) / "hub.db")
        try:
            await store.commit(Group(operations=[projects.create("bench", "default", projects.ProjectEdit())]), now())
            yield store
        finally:
            await store.close()
