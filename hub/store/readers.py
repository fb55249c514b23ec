"""Connections as they are used: a function at a time on the connection's own thread, and a few that only read, in turn."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import aiosqlite

from hub.store.base import Look, ReadAborted, Record
from hub.store.sql import statements

T = TypeVar("T")


class Connection(aiosqlite.Connection):
    """An aiosqlite connection that runs a whole function in one hop to its thread."""

    async def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``fn`` on the connection's thread (aiosqlite's private ``_execute``; its version range is pinned for this)."""
        result: T = await self._execute(lambda: fn(self._conn))  # type: ignore[no-untyped-call]  # aiosqlite leaves it untyped
        return result

    def interrupt_now(self) -> None:
        """Make the statement that is running fail; from any thread."""
        self._conn.interrupt()


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


@dataclass(frozen=True, slots=True)
class _Reading:
    """One use of a connection: since when, on the monotonic clock, and whether it may be ended."""

    since: float
    patient: bool


class Readers:
    """The :class:`hub.store.base.Reader` over a few read-only connections; queries are short and take turns.

    While one runs, what was written since it began cannot leave the log: see :meth:`abort_overdue`.
    """

    def __init__(self, connections: list[Connection]) -> None:
        self._free: asyncio.Queue[Connection] = asyncio.Queue()
        self._all = connections
        self._reading: dict[Connection, _Reading] = {}
        for connection in connections:
            self._free.put_nowait(connection)

    async def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``fn`` in one read transaction, so that everything it reads is of one moment; it may take its time."""
        return await self._lend(_in_transaction(fn), patient=True)

    async def _lend(self, fn: Callable[[sqlite3.Connection], T], *, patient: bool = False) -> T:
        connection = await self._free.get()
        self._reading[connection] = _Reading(time.monotonic(), patient)
        work = asyncio.ensure_future(connection.run(fn))

        def give_back(done: asyncio.Future[T]) -> None:
            del self._reading[connection]
            self._free.put_nowait(connection)
            if not done.cancelled():
                done.exception()  # heard, also when whoever asked is gone

        # a cancelled caller must not return a connection that is still at work: the work itself does
        work.add_done_callback(give_back)
        try:
            return await asyncio.shield(work)
        except sqlite3.OperationalError as fault:
            if getattr(fault, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                raise ReadAborted("the query took too long and was ended") from fault
            raise

    def oldest_s(self) -> float:
        """For how long the longest query has been running, in seconds; 0 when there is none."""
        now = time.monotonic()
        return max((now - reading.since for reading in self._reading.values()), default=0.0)

    def abort_overdue(self, allowed_s: float) -> int:
        """End every query that has run for longer, but the rebuild of the scheduler; how many there were to end."""
        now = time.monotonic()
        overdue = [one for one, reading in self._reading.items() if now - reading.since > allowed_s and not reading.patient]
        for connection in overdue:
            connection.interrupt_now()
        return len(overdue)

    async def one(self, query: str, /, **params: Any) -> Record | None:
        """See the protocol."""
        return await self._lend(lambda connection: _Look(connection).one(query, **params))

    async def all(self, query: str, /, **params: Any) -> list[Record]:
        """See the protocol."""
        return await self._lend(lambda connection: _Look(connection).all(query, **params))

    async def look(self, fn: Callable[[Look], T]) -> T:
        """See the protocol."""
        return await self._lend(_in_transaction(lambda connection: fn(_Look(connection))))

    async def close(self) -> None:
        """Close every reader."""
        for connection in self._all:
            await connection.close()


def _in_transaction(fn: Callable[[sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
    def reading(connection: sqlite3.Connection) -> T:
        connection.execute("BEGIN")
        try:
            return fn(connection)
        finally:
            connection.execute("ROLLBACK")

    return reading
