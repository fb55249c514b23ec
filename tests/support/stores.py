"""Stores for tests: the real schema, journal and recovery in memory, and a store whose commits wait, fail or vanish on demand."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine, Iterable
from importlib.resources import files
from typing import Any

from hub.core.recall import Snapshot
from hub.core.rows import EventRow, Row
from hub.ids import Micros
from hub.services.facts import FactReader
from hub.store.recovery import load_snapshot
from hub.store.sql import statements
from hub.store.writer import Committed, Group, commit_group

Migrations = files("hub.store").joinpath("schema")


def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def open_memory() -> sqlite3.Connection:
    """An empty database with the real schema, its constraints on."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    for script in sorted(entry.name for entry in Migrations.iterdir() if entry.name.endswith(".sql")):
        connection.executescript(Migrations.joinpath(script).read_text("utf-8"))
    connection.row_factory = as_dict
    return connection


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The value of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("it waited")


class MemoryReader:
    """``hub.store.base.Reader`` and recovery's reader, over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def run(self, fn: Any) -> Any:
        return fn(self._connection)

    async def one(self, query: str, /, **params: Any) -> Any:
        return self._connection.execute(statements()[query], params).fetchone()

    async def all(self, query: str, /, **params: Any) -> Any:
        return self._connection.execute(statements()[query], params).fetchall()


class MemoryStore:
    """Commits groups through the real writer on SQLite in memory."""

    def __init__(self) -> None:
        self.connection = open_memory()
        self.reader = MemoryReader(self.connection)
        self.facts = FactReader(self.reader)
        self.last_seq = 0

    def write(self, rows: Iterable[Row], events: Iterable[EventRow], operations: Iterable[Any] = ()) -> Committed:
        group = Group(rows=list(rows), events=list(events), operations=list(operations))
        done = commit_group(self.connection, group, statements(), self.last_seq, Micros(0))
        self.last_seq += len(done.events)
        return done

    def snapshot(self) -> Snapshot:
        return finished(load_snapshot(self.reader))

    def rows(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        return self.connection.execute(sql, params).fetchall()

    def registry(self, projects: dict[str, tuple[bool, str]], repos: dict[str, bool]) -> None:
        """What the registry's record operations would have written."""
        run = self.connection.execute
        for name, (paused, dispatch) in projects.items():
            run(
                "INSERT OR REPLACE INTO project (id, name, dispatch, paused, created_at, updated_at) VALUES (?, ?, ?, ?, 0, 0)",
                (name, name, dispatch, int(paused)),
            )
        for name, paused in repos.items():
            run(
                "INSERT OR REPLACE INTO repository (name, url, forge, base, paused, created_at, updated_at)"
                " VALUES (?, '/srv/x.git', 'local', 'main', ?, 0, 0)",
                (name, int(paused)),
            )

    async def commit(self, group: Group, now: Micros) -> Committed:
        done = commit_group(self.connection, group, statements(), self.last_seq, now)
        self.last_seq += len(done.events)
        return done


class GatedStore(MemoryStore):
    """A store whose commits wait for ``gate`` (open by default) and raise what is in ``faults``, in order; None lets one pass."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = asyncio.Event()
        self.faults: list[Exception | None] = []
        self.groups: list[Group] = []

    async def commit(self, group: Group, now: Micros) -> Committed:
        self.began.set()
        await self.gate.wait()
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        self.groups.append(group)
        return await super().commit(group, now)
