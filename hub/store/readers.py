"""Connections as they are used: a function at a time on the connection's own thread, and a few that only read, in turn."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

import aiosqlite

from hub.store.base import Look, Record
from hub.store.sql import statements

T = TypeVar("T")


class Connection(aiosqlite.Connection):
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

    def __init__(self, connections: list[Connection]) -> None:
        self._free: asyncio.Queue[Connection] = asyncio.Queue()
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
