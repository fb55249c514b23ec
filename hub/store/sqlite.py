"""SQLite through aiosqlite: one writer connection on one thread, a few read-only readers, an OS lock against a second hub.

This is the only module that knows SQLite's pragmas, and the only one that opens the file. The writer alone checkpoints: SQLite 3.7.0
to 3.51.2 can corrupt a WAL that two connections checkpoint at once, and the single-writer rule makes those versions safe.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Literal, TypeVar

import structlog

from hub import ids
from hub.core.errors import HubError, StoreFull
from hub.ids import Micros
from hub.store import compaction
from hub.store.backups import Shelf, shelf_beside
from hub.store.base import StoreUnusable, Tx
from hub.store.faults import classify, unopened
from hub.store.files import make_directory
from hub.store.guard import guard
from hub.store.journal import check_schema
from hub.store.migrations import migrate
from hub.store.place import refuse_network_fs, take_lock
from hub.store.readers import Connection, Readers
from hub.store.reserve import Reserve
from hub.store.sql import as_dict, statements
from hub.store.writer import Committed, Group, commit_group

T = TypeVar("T")
Durability = Literal["full", "normal"]
STORE_FILE = "hub.db"
"""Its name in the data directory."""
READERS = 3
PRAGMAS: Mapping[str, str | int] = {
    "journal_mode": "wal",
    "foreign_keys": 1,
    "busy_timeout": 5000,
    "temp_store": 2,
    "cache_size": -65536,
    "journal_size_limit": 67108864,
    "trusted_schema": 0,
    "mmap_size": 0,
}
SYNCHRONOUS = {"normal": 1, "full": 2}
COMMITS_KEPT = 255
UNKNOWN_COMMIT_S = 0.005
CUT_OFF_MS = 50
"""How long cutting off the log waits for readers."""
FIXED_IN = (3, 51, 3)

log = structlog.get_logger("store")

# sqlite3 asks every value that is not exactly a number or a text how to adapt itself, and searches long for each that has no
# answer: a row of a task has a dozen empty columns and words of ours, which are text already
sqlite3.register_adapter(type(None), lambda nothing: nothing)
for _words in StrEnum.__subclasses__():
    if _words.__module__ == ids.__name__:
        sqlite3.register_adapter(_words, str.__str__)


class SqliteStore:
    """The durable memory of one hub. Open it once, close it in ``finally``: its threads are not daemons."""

    def __init__(
        self,
        path: Path,
        writer: Connection,
        readers: Readers,
        *,
        lock: int,
        last_seq: int,
        durability: Durability,
        reserve: Reserve,
    ) -> None:
        self.path = path
        self.reserve = reserve
        self._durability: Durability = durability
        self.reader = readers
        self._writer = writer
        self._lock = lock
        self._last_seq = last_seq
        self._commits_s: deque[float] = deque(maxlen=COMMITS_KEPT)

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        durability: Durability = "full",
        readers: int = READERS,
        reserve_bytes: int = 0,
        shelf: Shelf | None = None,
    ) -> SqliteStore:
        """Open (and migrate) the file; raises StoreUnusable if another hub has it, it is too new or a pragma does not hold, and
        StoreCorrupt if it is not whole.

        ``reserve_bytes`` are kept free for agents at work; see :mod:`hub.store.reserve`. ``shelf`` is where a backup goes before a
        migration; default: beside the store.
        """
        shelf = shelf if shelf is not None else shelf_beside(path)
        try:
            make_directory(path.parent)
        except OSError as fault:
            raise StoreUnusable(f"{path.parent} cannot be a data directory: {fault.strerror}; choose another") from fault
        refuse_network_fs(path)
        if sqlite3.sqlite_version_info < FIXED_IN:
            log.debug("sqlite_version", version=sqlite3.sqlite_version, note="safe here: one connection writes and checkpoints")
        lock = take_lock(path)
        try:
            reserve = Reserve(path, reserve_bytes)
            await asyncio.to_thread(guard, path, shelf, log_synced=durability == "full")
            try:
                opened, last_seq = await _open_all(path, durability, readers, shelf)
            except sqlite3.Error as fault:
                if not (isinstance(classify(fault, path.parent, opening=True), StoreFull) and reserve.release()):
                    raise
                opened, last_seq = await _open_all(path, durability, readers, shelf)
        except BaseException as fault:
            os.close(lock)
            if isinstance(fault, sqlite3.Error):
                raise unopened(fault, path, shelf) from fault
            raise
        await asyncio.to_thread(reserve.keep)
        return cls(path, opened[0], Readers(opened[1:]), lock=lock, last_seq=last_seq, durability=durability, reserve=reserve)

    async def commit(self, group: Group, now: Micros) -> Committed:
        """Commit one group. The caller must be the only one, and must not be cancelled (shield it).

        A disk that is full costs the reserve, and the same group is tried once more; raises StoreFull when that was spent already.
        """

        def write(connection: sqlite3.Connection) -> Committed:
            return commit_group(connection, group, statements(), self._last_seq, now)

        try:
            done = await self._run(write)
        except StoreFull:
            if not await self._make_room():
                raise
            done = await self._run(write)
        self._last_seq += len(done.events)
        if group.rows:  # what people and agents do, not what tidies up
            self._commits_s.append(done.seconds)
        return done

    @property
    def typical_commit_s(self) -> float:
        """How long a group held the writer of late: the median. What tidies up takes no longer than that at once."""
        return median(self._commits_s) if self._commits_s else UNKNOWN_COMMIT_S

    async def _run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._writer.run(fn)
        except sqlite3.Error as fault:
            raise classify(fault, self.path.parent) from fault

    async def _make_room(self) -> bool:
        """Give up the reserve, and fold the log back into the room that this makes; whether there was anything to give up."""
        released = await asyncio.to_thread(self.reserve.release)
        with suppress(HubError):
            await self.checkpoint(truncate=True)
        return released

    @property
    def last_seq(self) -> int:
        """The newest committed event."""
        return self._last_seq

    async def meta(self, key: str) -> str | None:
        """A value of the meta table."""
        row = await self.reader.one("meta_get", key=key)
        return row["value"] if row is not None else None

    async def begin_epoch(self) -> tuple[str, str, int]:
        """Count this start of the hub; returns (hub_id, feed_epoch, hub_epoch)."""

        def next_epoch(tx: Tx) -> tuple[str, str, int]:
            def get(key: str, default: str) -> str:
                row = tx.one("meta_get", key=key)
                return row["value"] if row is not None else default

            hub_id, feed_epoch = get("hub_id", secrets.token_hex(8)), get("feed_epoch", secrets.token_hex(6))
            hub_epoch = int(get("hub_epoch", "0")) + 1
            for key, value in {"hub_id": hub_id, "feed_epoch": feed_epoch, "hub_epoch": hub_epoch}.items():
                tx.run("meta_set", key=key, value=str(value))
            return hub_id, feed_epoch, hub_epoch

        (outcome,) = (await self.commit(Group(operations=[next_epoch]), Micros(time.time_ns() // 1000))).outcomes
        if isinstance(outcome, BaseException):
            raise outcome
        epochs: tuple[str, str, int] = outcome
        return epochs

    async def pragmas(self) -> dict[str, tuple[str, str]]:
        """Every pragma of the writer: (what it must be, what SQLite says it is)."""
        wanted = {**PRAGMAS, "synchronous": SYNCHRONOUS[self._durability]}
        found = await self._writer.run(lambda connection: {name: _pragma(connection, name) for name in wanted})
        return {name: (str(value).lower(), found[name]) for name, value in wanted.items()}

    async def checkpoint(self, *, truncate: bool = False) -> None:
        """Move the log into the file, and cut the log off if nobody reads in it; only the writer ever does."""
        await self._run(lambda connection: _fold(connection, "TRUNCATE" if truncate else "PASSIVE"))

    def log_bytes(self) -> int:
        """The length of the log."""
        log = self.path.with_name(f"{self.path.name}-wal")
        return log.stat().st_size if log.exists() else 0

    async def give_back(self, pages: int) -> tuple[int, float]:
        """One step of compaction: (free pages left, seconds it held the writer). Raises StoreFull, StoreBroken, CommitFailed."""

        def step(connection: sqlite3.Connection) -> tuple[int, float]:
            began = time.perf_counter()
            return compaction.give_back(connection, pages), time.perf_counter() - began

        return await self._run(step)

    async def close(self) -> None:
        """Close all connections and let go of the lock."""
        try:
            await self.reader.close()
            with suppress(HubError):  # what made it impossible has been told, or the next start will: closing goes on
                await self.checkpoint(truncate=True)
        finally:
            await self._writer.close()
            os.close(self._lock)


async def _open_all(path: Path, durability: Durability, readers: int, shelf: Shelf) -> tuple[list[Connection], int]:
    """The writer and its readers, and the newest event; on failure none of them stays open."""
    opened: list[Connection] = []
    try:
        writer = await _connect(path, writable=True)
        opened.append(writer)
        await writer.run(lambda connection: _prepare(connection, path, durability, shelf))
        last = await writer.run(lambda connection: connection.execute(statements()["event_last_seq"]).fetchone())
        for _ in range(readers):
            reader = await _connect(path, writable=False)
            opened.append(reader)
            await reader.run(_prepare_reader)
    except BaseException:
        for connection in opened:
            await connection.close()
        raise
    return opened, last["seq"]


async def _connect(path: Path, *, writable: bool) -> Connection:
    def connector() -> sqlite3.Connection:
        uri = f"file:{path.as_posix().replace('?', '%3f').replace('#', '%23')}?mode={'rwc' if writable else 'ro'}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        connection.row_factory = as_dict
        return connection

    connection = Connection(connector, iter_chunk_size=64)
    await connection
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, durability: Durability, shelf: Shelf) -> None:
    path.chmod(0o600)
    connection.execute(f"PRAGMA auto_vacuum={compaction.INCREMENTAL}")  # of a new file; another keeps what it has
    wanted = {**PRAGMAS, "synchronous": SYNCHRONOUS[durability]}
    _set_pragmas(connection, wanted)
    connection.execute("PRAGMA wal_autocheckpoint=1000")
    migrate(connection, path, shelf.before_migration)
    check_schema_plain(connection)
    if compaction.rewrite_if_small(connection):
        log.info("store_rewritten", file=str(path), note="from now on it can be compacted while it is in use")


def check_schema_plain(connection: sqlite3.Connection) -> None:
    """Check the declared rows with plain tuples (PRAGMA output is read by position)."""
    factory, connection.row_factory = connection.row_factory, None
    try:
        check_schema(connection)
    finally:
        connection.row_factory = factory


def _fold(connection: sqlite3.Connection, mode: str) -> None:
    """Cutting off waits for readers, and whoever commits waits meanwhile: not for long."""
    connection.execute(f"PRAGMA busy_timeout={CUT_OFF_MS}").fetchone()
    try:
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout={PRAGMAS['busy_timeout']}").fetchone()


def _prepare_reader(connection: sqlite3.Connection) -> None:
    _set_pragmas(connection, {"query_only": 1, "busy_timeout": 5000, "mmap_size": 0, "trusted_schema": 0})


def _set_pragmas(connection: sqlite3.Connection, wanted: Mapping[str, str | int]) -> None:
    """Set, then read back: a pragma that did not take is an error, never an assumption."""
    for name, value in wanted.items():
        connection.execute(f"PRAGMA {name}={value}").fetchall()
        if (found := _pragma(connection, name)) != str(value).lower():
            raise StoreUnusable(f"SQLite refused PRAGMA {name}={value}: it is {found}")


def _pragma(connection: sqlite3.Connection, name: str) -> str:
    row = connection.execute(f"PRAGMA {name}").fetchone()
    return str(next(iter(row.values())) if row else 0).lower()
