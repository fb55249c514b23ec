"""Keeps the store small: prunes what is no longer kept, gives the room back to the disk, cuts its log off, and knows its figures."""

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
from hub.services.errands import Errand, Errands, Pace, Round
from hub.services.ports import Conductor
from hub.services.room import Room
from hub.store import audit, health, retention, tokens
from hub.store.compaction import Pages
from hub.store.health import Health
from hub.store.retention import Bounds, Named, Step, Walk
from hub.store.sqlite import SqliteStore

PRUNE, COMPACT = "prune", "compact"
LOG_S = 5.0
"""How often the log is looked at."""
LOG_BYTES = 64 * 1024 * 1024
"""A longer log is cut off, also while it is read in."""
READ_S = 5.0
"""A query that keeps the log from being folded back ends after this time."""
TIDY_S = 3600.0
"""How often it is looked whether there is anything to prune or to give back; what is due once a day asks the rows."""
IDLE_TICKS = 6
"""So many looks without a commit in between, and the log is cut off."""
BLOB_GRACE_US = 1 * DAY
"""A blob that nothing names yet stays this long."""
WORTH_BYTES = 16 * 1024 * 1024
"""Less is not given back unless somebody asks."""
EXPORT_EVENTS = 20_000
"""In one file of the audit."""
COUNTED = 100_000
"""A dry run counts up to here."""

log = structlog.get_logger("keeper")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """For how long what is kept, in days (0: for ever), and from which share of free pages on they are given back."""

    task_days: int
    salvage_days: int
    audit_days: int
    compact_share: float

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
class Keeper:
    """The keeping of one store. ``told`` hears of each step of an errand: (name, seconds that it held the writer); ``deleted`` of what
    pruning deleted: (kind, rows).
    """

    store: SqliteStore
    conductor: Conductor
    room: Room
    named: Named
    keep: Keep
    now_us: Callable[[], Micros]
    told: Callable[[str, float], None] = lambda _name, _seconds: None
    deleted: Callable[[str, int], None] = lambda _kind, _rows: None
    errands: Errands = field(init=False)
    pruned: Counter[str] = field(default_factory=Counter, init=False)
    """What was deleted since the start, by kind."""
    before: Pages | None = field(default=None, init=False)
    """The file when the last compaction began."""
    after: Pages | None = field(default=None, init=False)
    """… and as that left it, so far."""
    last: Health | None = field(default=None, init=False)
    """The newest figures; an hour old at most."""
    _seq: int = field(default=-1, init=False)
    _idle: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.errands = Errands((Errand(PRUNE, self._prune), Errand(COMPACT, self._compact)), self.told)

    # ── chores ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def mind_log(self) -> None:
        """Fold the log back; cut it off when nobody writes, and when it has grown too long, then also under readers."""
        if ended := self.store.reader.abort_overdue(READ_S):
            log.warning("reads_aborted", queries=ended, allowed_s=READ_S, log_bytes=self.store.log_bytes())
        idle, self._seq = self.store.last_seq == self._seq, self.store.last_seq
        self._idle = self._idle + 1 if idle else 0
        length = self.store.log_bytes()
        if length > LOG_BYTES or self._idle == IDLE_TICKS:
            await self.store.checkpoint(truncate=True)
        elif length and not idle:
            await self.store.checkpoint()

    async def look(self) -> Health:
        """The figures of this moment."""
        space = await asyncio.to_thread(self.room.reserve.look)
        now = self.now_us()
        self.last = await health.look(self.store, space, ended_before=self.keep.bounds(now).tasks, now=now)
        self.room.blob_bytes = self.last.blob_bytes
        return self.last

    async def tidy(self) -> None:
        """Note the size of the day, prune what is due, and give back what is worth it."""
        found = await self.look()
        await self.conductor.record(health.note_size(found.pages))
        self.errands.ask(PRUNE)
        pages = found.pages
        if pages.incremental and pages.free_share > self.keep.compact_share and pages.free_bytes >= WORTH_BYTES:
            self.errands.ask(COMPACT)

    # ── errands ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _compact(self) -> AsyncGenerator[float, None]:
        """Give back every free page."""
        self.before = self.after = (await self.look()).pages
        if not self.before.incremental:
            return
        pace, left = Pace(lambda: self.store.typical_commit_s, least=4, most=512), self.before.free
        while left:
            was, (left, held_s) = left, await self.store.give_back(pace.size)
            if left >= was:
                break
            pace.took(held_s)
            yield held_s
        await self.store.checkpoint(truncate=True)
        self.after = (await self.look()).pages
        log.info("store_compacted", bytes_before=self.before.bytes, bytes_after=self.after.bytes)

    async def _prune(self) -> AsyncGenerator[float, None]:
        """Delete what is no longer kept."""
        bounds = self.keep.bounds(self.now_us())
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

    # ── people ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def would_prune(self) -> Mapping[str, int]:
        """What a round of pruning would delete now, up to ``COUNTED`` of a kind, and old tasks that something still needs."""
        bounds = self.keep.bounds(self.now_us())
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

    def gauges(self) -> dict[str, float]:
        """What can be told at once, for metrics, by their names."""
        space = self.room.reserve.look()
        found: dict[str, float] = {
            "store_log_bytes": self.store.log_bytes(),
            "store_oldest_reader_seconds": self.store.reader.oldest_s(),
            "blob_bytes": self.room.blob_bytes,
            "disk_free_bytes": space.free_bytes,
            "disk_reserve_bytes": space.held_bytes,
        }
        if self.last is not None:
            pages = self.last.pages
            found |= {"store_bytes": pages.bytes, "store_free_bytes": pages.free_bytes, "prune_backlog": self.last.backlog}
        return found

    def round_of(self, errand: str) -> Round | None:
        """The last round of pruning or compaction."""
        return self.errands.rounds.get(errand)
