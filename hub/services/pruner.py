"""Deletes what is no longer kept, in steps that hold the writer no longer than a group of commands does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

import structlog

from hub.core.rows import EventRow
from hub.ids import DAY, Micros
from hub.services.errands import Pace
from hub.services.ports import Conductor
from hub.store import audit, retention, tokens
from hub.store.retention import Bounds, Named, Step, Walk
from hub.store.sqlite import SqliteStore

BLOB_GRACE_US = 1 * DAY
"""A blob that nothing names yet stays this long."""
EXPORT_EVENTS = 20_000
"""In one file of the audit."""
COUNTED = 100_000
"""A dry run counts up to here."""

log = structlog.get_logger("pruner")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """For how long what is kept, in days (0: for ever)."""

    task_days: int
    salvage_days: int
    audit_days: int

    def bounds(self, now: Micros) -> Bounds:
        """The moments these mean now."""

        def before(days: int) -> Micros | None:
            return Micros(now - days * DAY) if days else None

        return Bounds(
            tasks=before(self.task_days),
            salvage=before(self.salvage_days),
            audit=before(self.audit_days),
            blobs=Micros(now - BLOB_GRACE_US),
        )


@dataclass(slots=True)
class Pruner:
    """The pruning of one store. ``deleted`` hears of what went: (kind, rows)."""

    store: SqliteStore
    conductor: Conductor
    named: Named
    keep: Keep
    now_us: Callable[[], Micros]
    deleted: Callable[[str, int], None] = lambda _kind, _rows: None
    pruned: Counter[str] = field(default_factory=Counter, init=False)
    """What was deleted since the start, by kind."""

    def bounds(self) -> Bounds:
        """The moments that count now."""
        return self.keep.bounds(self.now_us())

    async def steps(self) -> AsyncGenerator[float, None]:
        """Delete what is no longer kept."""
        bounds = self.bounds()
        for part in self._parts(bounds):
            async with aclosing(part) as steps:
                async for held_s in steps:
                    yield held_s

    def _parts(self, bounds: Bounds) -> Iterator[AsyncGenerator[float, None]]:
        if bounds.tasks is not None:
            yield self._prune_tasks(bounds)
            yield self._prune_plain("controls", "prune_controls", bounds.tasks)
            yield self._prune_plain("transitions", "prune_transitions", bounds.tasks)
        if bounds.salvage is not None:
            yield self._prune_plain("salvage", "prune_lone_salvage", bounds.salvage)
        yield self._prune_tokens()
        yield self._prune_blobs(bounds.blobs)
        if bounds.audit is not None:
            yield self._prune_audit(bounds.audit)

    async def _prune_tasks(self, bounds: Bounds) -> AsyncGenerator[float, None]:
        pace, walk = Pace(lambda: self.store.typical_commit_s, least=8, most=retention.PAGE_ROWS), Walk()
        while True:
            try:
                step = await self.conductor.record(retention.prune_tasks(walk, pace.size, bounds, self.named))
            finally:
                self.named.settle()
            self._count("tasks", step.deleted)
            pace.took(step.held_s)
            yield step.held_s
            if step.on is None:
                return
            walk = step.on

    async def _prune_plain(self, kind: str, statement: str, before: Micros) -> AsyncGenerator[float, None]:
        on: Walk | None = Walk()
        while on is not None:
            step = await self.conductor.record(retention.prune_plain(statement, before))
            self._count(kind, step.deleted)
            on = step.on
            yield step.held_s

    def _count(self, kind: str, rows: int) -> None:
        self.pruned[kind] += rows
        self.deleted(kind, rows)

    async def _prune_tokens(self) -> AsyncGenerator[float, None]:
        self._count("tokens", await self.conductor.record(tokens.prune()))
        yield 0.0

    async def _prune_blobs(self, before: Micros) -> AsyncGenerator[float, None]:
        salvaged = await retention.salvaged_blobs(self.store.reader)
        walk: Walk | None = Walk()
        while walk is not None:
            spare, walk = await retention.spare_blobs(self.store.reader, walk, before, salvaged)
            for row in spare:  # one at a time: a body of 8 MiB is 2 000 pages
                step: Step = await self.conductor.record(retention.prune_blobs([row["sha256"]], before))
                self._count("blobs", step.deleted)
                yield step.held_s

    async def _prune_audit(self, before: Micros) -> AsyncGenerator[float, None]:
        after: int | None = 0
        while after is not None:
            found, after = await self._old_events(after, before)
            if not found:
                continue
            exported = await asyncio.to_thread(partial(audit.export, self.store.path.parent / audit.AUDIT_DIR, found))
            log.info("audit_exported", file=str(exported), events=len(found))
            seqs, pace = (
                [seq for seq, _ in found],
                Pace(lambda: self.store.typical_commit_s, least=50, most=retention.PAGE_ROWS),
            )
            while seqs:
                size = pace.size
                step = await self.conductor.record(retention.delete_events(seqs[:size]))
                seqs = seqs[size:]
                self._count("events", step.deleted)
                pace.took(step.held_s)
                yield step.held_s

    async def _old_events(self, after: int, before: Micros) -> tuple[list[tuple[int, EventRow]], int | None]:
        """As many old events as make a file, and where to go on."""
        found: list[tuple[int, EventRow]] = []
        on: int | None = after
        while on is not None and len(found) < EXPORT_EVENTS:
            page = await retention.old_events(self.store.reader, on, before)
            found += page.events
            on = page.on
        return found, on

    async def would_prune(self) -> Mapping[str, int]:
        """What a round of pruning would delete now, up to ``COUNTED`` of a kind, and old tasks that something still needs."""
        bounds = self.bounds()
        tasks, needed = await retention.countable_tasks(self.store.reader, bounds, COUNTED)
        found = {"tasks": tasks, "tasks_needed": needed, "blobs": 0, "events": 0}
        salvaged = await retention.salvaged_blobs(self.store.reader)
        walk: Walk | None = Walk()
        while walk is not None and found["blobs"] < COUNTED:
            spare, walk = await retention.spare_blobs(self.store.reader, walk, bounds.blobs, salvaged)
            found["blobs"] += len(spare)
        after: int | None = 0
        while bounds.audit is not None and after is not None and found["events"] < COUNTED:
            page = await retention.old_events(self.store.reader, after, bounds.audit)
            found["events"] += len(page.events)
            after = page.on
        return found
