"""Keeps the store small: prunes what is no longer kept, gives the room back to the disk, cuts its log off, and knows its figures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from hub.core.errors import Refused
from hub.ids import Micros
from hub.services.errands import Errand, Errands, Pace, Round
from hub.services.ports import Conductor
from hub.services.pruner import Pruner
from hub.services.room import Room, judge_space
from hub.store import health
from hub.store.compaction import Pages
from hub.store.doctor import FREE_WORTH_BYTES, judge_backlog, judge_pages, judge_reader
from hub.store.health import Health
from hub.store.sqlite import SqliteStore
from hub.wire.finding import Finding

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

log = structlog.get_logger("keeper")


@dataclass(slots=True)
class Keeper:
    """The keeping of one store. ``told`` hears of each step of an errand: (name, seconds that it held the writer).

    From ``compact_share`` of free pages on (0 to 1) they are given back.
    """

    store: SqliteStore
    conductor: Conductor
    room: Room
    pruner: Pruner
    compact_share: float
    now_us: Callable[[], Micros]
    told: Callable[[str, float], None] = lambda _name, _seconds: None
    others: Sequence[Callable[[], Awaitable[Sequence[Finding]]]] = ()
    """Who else knows of the safety of the store: its backups and its checks."""
    errands: Errands = field(init=False)
    before: Pages | None = field(default=None, init=False)
    """The file when the last compaction began."""
    after: Pages | None = field(default=None, init=False)
    """… and as that left it, so far."""
    last: Health | None = field(default=None, init=False)
    """The newest figures; an hour old at most."""
    _seq: int = field(default=-1, init=False)
    _idle: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.errands = Errands((Errand(PRUNE, self.pruner.steps), Errand(COMPACT, self._compact)), self.told)

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
        self.last = await health.look(self.store, space, ended_before=self.pruner.bounds().tasks, now=now)
        self.room.blob_bytes = self.last.blob_bytes
        return self.last

    async def tidy(self) -> None:
        """Note the size of the day, prune what is due, and give back what is worth it."""
        found = await self.look()
        await self.conductor.record(health.note_size(found.pages))
        self.errands.ask(PRUNE)
        pages = found.pages
        if pages.incremental and pages.free_share > self.compact_share and pages.free_bytes >= FREE_WORTH_BYTES:
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

    # ── people ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def examine(self) -> list[Finding]:
        """What the doctor says of the keeping."""
        return self.judge(await self.look())

    def judge(self, found: Health) -> list[Finding]:
        """What these figures mean, each with its cure."""
        return [
            judge_pages(found.pages, self.compact_share),
            judge_backlog(found.backlog, health.BACKLOG_COUNTED),
            judge_reader(found.oldest_reader_s),
            judge_space(found.space),
        ]

    async def findings(self, found: Health) -> list[Finding]:
        """What these figures mean, and what else is known of the safety of the store."""
        return [*self.judge(found), *[one for examine in self.others for one in await examine()]]

    def ask(self, errand: str) -> Round:
        """Have an errand run; raises Refused 409 for a compaction of a file that cannot be compacted while it is in use."""
        if errand == COMPACT and self.last is not None and not self.last.pages.incremental:
            raise Refused(
                409,
                "not_incremental",
                "this file is of a version whose files cannot be compacted while they are in use",
                hint="stop the hub, and rewrite the file once: agentcom db compact --offline",
            )
        return self.errands.ask(errand)

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

    def stop(self, errand: str) -> Round | None:
        """End it after its present step; None if it never ran."""
        return self.errands.stop(errand)

    def file_bytes(self) -> tuple[int, int] | None:
        """(when the last compaction began, now or when it ended); None before the first."""
        return None if self.before is None or self.after is None else (self.before.bytes, self.after.bytes)

    def round_of(self, errand: str) -> Round | None:
        """The last round of pruning or compaction."""
        return self.errands.rounds.get(errand)
