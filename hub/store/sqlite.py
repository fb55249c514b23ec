"""SQLite through aiosqlite: one writer connection on one thread, a few read-only readers, an OS lock against a second hub.

This is the only module that knows SQLite's pragmas, and the only one that opens the file. The writer alone checkpoints: SQLite 3.7.0
to 3.51.2 can corrupt a WAL that two connections checkpoint at once, and the single-writer rule makes those versions safe.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiosqlite
import structlog

from hub import ids
from hub.core.errors import HubError, StoreFull
from hub.ids import Micros
from hub.store.base import CommitFailed, Look, Record, StoreBroken, StoreUnusable
from hub.store.journal import check_schema
from hub.store.migrations import migrate
from hub.store.sql import statements
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
NETWORK_FS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"})
FIXED_IN = (3, 51, 3)

log = structlog.get_logger("store")

# sqlite3 asks every value that is not exactly a number or a text how to adapt itself, and searches long for each that has no
# answer: a row of a task has a dozen empty columns and words of ours, which are text already
sqlite3.register_adapter(type(None), lambda nothing: nothing)
for _words in StrEnum.__subclasses__():
    if _words.__module__ == ids.__name__:
        sqlite3.register_adapter(_words, str.__str__)

_NO_STORE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN})


class _Connection(aiosqlite.Connection):
    """An aiosqlite connection that runs a whole function in one hop to its thread."""

    async def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``fn`` on the connection's thread (aiosqlite's private ``_execute``; its version range is pinned for this)."""
        result: T = await self._execute(lambda: fn(self._conn))  # type: ignore[no-untyped-call]  # aiosqlite leaves it untyped
        return result


class _Look:
    """The :class:`hub.store.base.Look` over one connection. A statement is finished, or it would keep its read transaction open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def one(self, query: str, /, **params: Any) -> Record | None:
        """See the protocol."""
        cursor = self._connection.execute(statements()[query], params)
        row: Record | None = cursor.fetchone()
        cursor.close()
        return row

    def all(self, query: str, /, **params: Any) -> list[Record]:
        """See the protocol."""
        return self._connection.execute(statements()[query], params).fetchall()


class Readers:
    """The :class:`hub.store.base.Reader` over a few read-only connections; queries are short and take turns."""

    def __init__(self, connections: list[_Connection]) -> None:
        self._free: asyncio.Queue[_Connection] = asyncio.Queue()
        self._all = connections
        for connection in connections:
            self._free.put_nowait(connection)

    async def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``fn`` in one read transaction, so that everything it reads is of one moment."""

        def in_transaction(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN")
            try:
                return fn(connection)
            finally:
                connection.execute("ROLLBACK")

        return await self._lend(in_transaction)

    async def _lend(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        connection = await self._free.get()
        work = asyncio.ensure_future(connection.run(fn))

        def give_back(done: asyncio.Future[T]) -> None:
            self._free.put_nowait(connection)
            if not done.cancelled():
                done.exception()  # heard, also when whoever asked is gone

        # a cancelled caller must not return a connection that is still at work: the work itself does
        work.add_done_callback(give_back)
        return await asyncio.shield(work)

    async def one(self, query: str, /, **params: Any) -> Record | None:
        """See the protocol."""
        return await self._lend(lambda connection: _Look(connection).one(query, **params))

    async def all(self, query: str, /, **params: Any) -> list[Record]:
        """See the protocol."""
        return await self._lend(lambda connection: _Look(connection).all(query, **params))

    async def look(self, fn: Callable[[Look], T]) -> T:
        """See the protocol."""
        return await self.run(lambda connection: fn(_Look(connection)))

    async def close(self) -> None:
        """Close every reader."""
        for connection in self._all:
            await connection.close()


class SqliteStore:
    """The durable memory of one hub. Open it once, close it in ``finally``: its threads are not daemons."""

    def __init__(
        self, path: Path, writer: _Connection, readers: Readers, *, lock: int, last_seq: int, durability: Durability
    ) -> None:
        self.path = path
        self._durability: Durability = durability
        self.reader = readers
        self._writer = writer
        self._lock = lock
        self._last_seq = last_seq

    @classmethod
    async def open(cls, path: Path, *, durability: Durability = "full", readers: int = READERS) -> SqliteStore:
        """Open (and migrate) the file; raises StoreUnusable if another hub has it, it is too new, or a pragma does not hold."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as fault:
            raise StoreUnusable(f"{path.parent} cannot be a data directory: {fault.strerror}; choose another") from fault
        _refuse_network_fs(path)
        if sqlite3.sqlite_version_info < FIXED_IN:
            log.debug("sqlite_version", version=sqlite3.sqlite_version, note="safe here: one connection writes and checkpoints")
        lock = _take_lock(path)
        opened: list[_Connection] = []
        try:
            writer = await _connect(path, writable=True)
            opened.append(writer)
            await writer.run(lambda connection: _prepare(connection, path, durability))
            last = await writer.run(lambda connection: connection.execute(statements()["event_last_seq"]).fetchone())
            for _ in range(readers):
                reader = await _connect(path, writable=False)
                opened.append(reader)
                await reader.run(_prepare_reader)
        except BaseException as fault:
            for connection in opened:
                await connection.close()
            os.close(lock)
            if isinstance(fault, sqlite3.DatabaseError) and fault.sqlite_errorcode in _NO_STORE:
                raise StoreUnusable(f"{path} is no store of a hub, or broken: {fault}; restore a backup of it") from fault
            raise
        return cls(path, writer, Readers(opened[1:]), lock=lock, last_seq=last["seq"], durability=durability)

    async def commit(self, group: Group, now: Micros) -> Committed:
        """Commit one group. The caller must be the only one, and must not be cancelled (shield it)."""
        try:
            done = await self._writer.run(lambda connection: commit_group(connection, group, statements(), self._last_seq, now))
        except sqlite3.Error as fault:
            raise _classify(fault) from fault
        self._last_seq += len(done.events)
        return done

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

        def next_epoch(connection: sqlite3.Connection) -> tuple[str, str, int]:
            def get(key: str, default: str) -> str:
                row = connection.execute(statements()["meta_get"], {"key": key}).fetchone()
                return row["value"] if row is not None else default

            values = {
                "hub_id": get("hub_id", secrets.token_hex(8)),
                "feed_epoch": get("feed_epoch", secrets.token_hex(6)),
                "hub_epoch": str(int(get("hub_epoch", "0")) + 1),
            }
            connection.execute("BEGIN IMMEDIATE")
            for key, value in values.items():
                connection.execute(statements()["meta_set"], {"key": key, "value": value})
            connection.execute("COMMIT")
            return values["hub_id"], values["feed_epoch"], int(values["hub_epoch"])

        return await self._writer.run(next_epoch)

    async def pragmas(self) -> dict[str, tuple[str, str]]:
        """Every pragma of the writer: (what it must be, what SQLite says it is)."""
        wanted = {**PRAGMAS, "synchronous": SYNCHRONOUS[self._durability]}
        found = await self._writer.run(lambda connection: {name: _pragma(connection, name) for name in wanted})
        return {name: (str(value).lower(), found[name]) for name, value in wanted.items()}

    async def checkpoint(self, *, truncate: bool = False) -> None:
        """Move the WAL into the file; only the writer ever does."""
        mode = "TRUNCATE" if truncate else "PASSIVE"
        try:
            await self._writer.run(lambda connection: connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone())
        except sqlite3.Error as fault:
            raise _classify(fault) from fault

    async def close(self) -> None:
        """Close all connections and let go of the lock."""
        try:
            await self.reader.close()
            with suppress(HubError):  # what made it impossible has been told, or the next start will: closing goes on
                await self.checkpoint(truncate=True)
        finally:
            await self._writer.close()
            os.close(self._lock)


def _classify(fault: sqlite3.Error) -> HubError:
    """What a failed COMMIT means (store.md): full disks are for the caller, broken ones end the process, the rest is rebuilt."""
    code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreFull("the disk is full; free some space, nothing was accepted")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY):
        return StoreBroken(f"{type(fault).__name__}: {fault}")
    return CommitFailed(f"{type(fault).__name__}: {fault}")


async def _connect(path: Path, *, writable: bool) -> _Connection:
    def connector() -> sqlite3.Connection:
        uri = f"file:{path.as_posix().replace('?', '%3f').replace('#', '%23')}?mode={'rwc' if writable else 'ro'}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        connection.row_factory = _as_dict
        return connection

    connection = _Connection(connector, iter_chunk_size=64)
    await connection
    return connection


def _as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def _take_lock(path: Path) -> int:
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreUnusable(f"another hub has {path} open; stop it first, or give this one another --data-dir") from None
    return descriptor


def _refuse_network_fs(path: Path) -> None:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return
    real = path.parent.resolve()
    best = ("", "")
    for line in mounts.read_text().splitlines():
        _, at, kind, *_ = line.split(" ")
        if real.is_relative_to(at) and len(at) >= len(best[0]):
            best = (at, kind)
    if best[1] in NETWORK_FS:
        raise StoreUnusable(f"{path} is on a {best[1]} file system; its locks do not protect a WAL. Use a local disk.")


def _prepare(connection: sqlite3.Connection, path: Path, durability: Durability) -> None:
    path.chmod(0o600)
    wanted = {**PRAGMAS, "synchronous": SYNCHRONOUS[durability]}
    _set_pragmas(connection, wanted)
    connection.execute("PRAGMA wal_autocheckpoint=1000")
    migrate(connection, path)
    check_schema_plain(connection)


def check_schema_plain(connection: sqlite3.Connection) -> None:
    """Check the declared rows with plain tuples (PRAGMA output is read by position)."""
    factory, connection.row_factory = connection.row_factory, None
    try:
        check_schema(connection)
    finally:
        connection.row_factory = factory


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
