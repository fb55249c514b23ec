"""A conductor on a store whose commits wait and fail on demand, and everything it publishes, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from hub.core import commands as c
from hub.core.decision import Effect
from hub.core.lease import Terms
from hub.core.rows import EventRow
from hub.ids import AgentId, SessionEpoch
from hub.services.clock import SteadyClock
from hub.services.conductor import Conductor
from hub.store.recovery import load_snapshot
from tests.support.cluster import PROJECTS, REPOS, new
from tests.support.stores import GatedStore


class Recorder:
    """``hub.services.conductor.Publisher``: what left the process, in order."""

    def __init__(self) -> None:
        self.effects_seen: list[Effect] = []
        self.events_seen: list[tuple[int, EventRow]] = []
        self.resyncs = 0
        self.groups: list[int] = []
        self._news = asyncio.Event()

    def effects(self, effects: Sequence[tuple[AgentId, SessionEpoch, Effect]], decided_at: float) -> None:
        self.effects_seen.extend(effect for _, _, effect in effects)
        self._news.set()

    def events(self, events: Sequence[tuple[int, EventRow]]) -> None:
        self.events_seen.extend(events)
        self._news.set()

    def specs(self, found: Any) -> None:
        self.specs_found = found

    def resync(self) -> None:
        self.resyncs += 1
        self._news.set()

    def committed(self, decisions: int, seconds: float) -> None:
        self.groups.append(decisions)

    async def until(self, holds: Callable[[], Any]) -> None:
        """Wait for what must come; five seconds are for ever."""
        async with asyncio.timeout(5):
            while not holds():
                self._news.clear()
                await self._news.wait()

    def kinds(self) -> list[str]:
        return [event.kind for _, event in self.events_seen]


class Stage:
    """The conductor and what is around it."""

    def __init__(self, terms: Terms, store: GatedStore | None = None) -> None:
        self.store = store or GatedStore()
        self.store.registry(PROJECTS, REPOS)
        self.published = Recorder()
        self.conductor = Conductor(
            self.store, self.store.facts, self.published, SteadyClock(), terms, 1, lambda: load_snapshot(self.store.reader)
        )
        self.running: asyncio.Task[None] | None = None

    def close_gate(self) -> None:
        self.store.gate.clear()
        self.store.began.clear()

    async def hello(self, agent: str = "w1") -> SessionEpoch:
        session: Any = await self.conductor.do(c.Hello(actor=agent, agent=AgentId(agent), install_id=agent, boot_id="b"))
        return SessionEpoch(session.epoch)

    async def submit(self, **fields: Any) -> int:
        answer: Any = await self.conductor.do(c.Submit(actor="ann", tasks=(new(**fields),)))
        return int(answer.tasks[0].n)

    async def working(self) -> int:
        """A task that w1 works on, committed and published."""
        epoch = await self.hello()
        n = await self.submit()
        self.conductor.post(c.Accept(agent=AgentId("w1"), session_epoch=epoch, n=n, lease_epoch=1))  # type: ignore[arg-type]
        await self.published.until(lambda: "task.accepted" in self.published.kinds())
        self.published.effects_seen.clear()
        self.published.events_seen.clear()
        return n


@asynccontextmanager
async def stage(terms: Terms | None = None, store: GatedStore | None = None) -> AsyncIterator[Stage]:
    """A running conductor; what ends it early is raised here."""
    here = Stage(terms or Terms(), store)
    await here.conductor.open()
    here.running = asyncio.create_task(here.conductor.run(), name="conductor")
    try:
        yield here
    finally:
        here.store.gate.set()
        await here.conductor.close()
        await here.running


async def turns(n: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(n):
        await asyncio.sleep(0)


async def nothing_leaves_before_its_commit() -> None:
    """I6 as a scenario: raises AssertionError when an answer, a frame or an event leaves before the commit."""
    async with stage() as here:
        await here.hello()
        await here.published.until(lambda: "agent.joined" in here.published.kinds())
        here.published.effects_seen.clear()
        here.published.events_seen.clear()
        here.close_gate()
        answer = asyncio.ensure_future(here.submit())
        try:
            async with asyncio.timeout(5):
                await here.store.began.wait()
            await turns()
            assert not answer.done(), "the answer left before its commit"
            assert here.published.effects_seen == [], "a frame left before its commit"
            assert here.published.events_seen == [], "an event left before its commit"
        finally:
            here.store.gate.set()
            await answer
        assert here.published.effects_seen, "and afterwards it leaves"
        assert "task.assigned" in here.published.kinds()
