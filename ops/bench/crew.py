"""Many real sidecars in one process, which can be crashed one by one, and the account of what became of the work they were given."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from sidecars import BenchAgent, MemoryJournal, Site, agent

from sidecar.backoff import FIRST_S, Refused

COME_BACK_S = 1.0
"""How long it takes until somebody starts an agent again that gave up."""


class Crew:
    """The agents ``a-0`` … of one site at the hub behind ``url``. A context manager; agents are added by :meth:`grow`."""

    def __init__(
        self, url: str, token: str, site: Site, *, first_s: float = FIRST_S, whims: Callable[[], bool] | None = None
    ) -> None:
        self._url, self._token, self._first_s = url, token, first_s
        self._whims = whims
        self.site = site
        self.agents: dict[str, BenchAgent] = {}
        self.refused = 0
        self._journals: dict[str, MemoryJournal] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_fault: object) -> None:
        for life in self._lives.values():
            life.cancel()
        await asyncio.gather(*self._lives.values(), return_exceptions=True)

    def grow(self, count: int) -> None:
        """Bring the crew to this number; the new ones connect at once."""
        for i in range(len(self.agents), count):
            self._start(f"a-{i}")

    async def crash(self, name: str) -> None:
        """The sidecar dies and is started again; its journal and what runs stay."""
        life = self._lives[name]
        life.cancel()
        try:
            await asyncio.gather(life, return_exceptions=True)
        finally:  # also when whoever crashes it is ended meanwhile: what it holds must not wait for ever
            self._start(name)

    @property
    def connected(self) -> int:
        """Agents that the hub has welcomed and that have not noticed otherwise."""
        return sum(agent.holder.connected for agent in self.agents.values())

    async def all_connected(self, within_s: float) -> None:
        """Return when the hub has welcomed everybody; raises TimeoutError."""
        await until(lambda: self.connected == len(self.agents), within_s)

    def _start(self, name: str) -> None:
        journal = self._journals.setdefault(name, MemoryJournal())
        fresh = agent(name, self._url, self._token, self.site, first_s=self._first_s, journal=journal)
        if self._whims is not None:
            fresh.whims = self._whims
        self.agents[name] = fresh
        self._lives[name] = asyncio.create_task(self._live(name, fresh), name=name)

    async def _live(self, name: str, one: BenchAgent) -> None:
        try:
            await one.run()
        except Refused:
            self.refused += 1
            await asyncio.sleep(COME_BACK_S)
            self._start(name)


async def until(condition: Callable[[], bool], within_s: float) -> None:
    """Return when something is true; raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  it depends on what another process does
            await asyncio.sleep(0.01)


def account(store: Path, acknowledged: set[int], site: Site) -> dict[str, Any]:
    """What a hub's committed rows say of all submitted work, and the site of what really ran: everything wrong is a number above 0."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as rows:
        states = dict(rows.execute("SELECT n, state FROM task"))
        successes = Counter(
            n for (n,) in rows.execute("SELECT task FROM attempt WHERE verdict = 'applied' AND outcome = 'succeeded'")
        )
        lost = dict(rows.execute("SELECT n, lost FROM task WHERE lost > 0"))
    ended = Counter(states.values())
    return {
        "tasks": len(states),
        **{state: ended.pop(state, 0) for state in ("done", "dead", "cancelled")},
        "not_ended": ended.total(),
        "missing": len(acknowledged - states.keys()),
        "done_without_one_result": sum(successes[n] != 1 for n, state in states.items() if state == "done"),
        "results_of_others": sum(count for n, count in successes.items() if states[n] != "done"),
        "started_twice": sum(count > 1 for count in site.starts.values()),
        "overlapping_runs": site.overlaps,
        "losses": sum(lost.values()),
    }


WRONG = ("not_ended", "missing", "done_without_one_result", "results_of_others", "started_twice", "overlapping_runs")
"""Entries of an :func:`account` that must be 0."""
