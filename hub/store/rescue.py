"""What a broken store still yields: everything newer than a backup that plain reads can reach, page by page, and nothing is changed.

It is told rather than put back, for what is left of a broken file may contradict itself; only the ends of tokens are taken over, because
what was revoked must not come alive again.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.store import integrity
from hub.store.manifest import Manifest, moment
from hub.store.sql import as_dict

MAX_FAILURES = 64
"""Unreadable places in one table before the rest of it is given up; each is stepped over in steps that double."""
MAX_EVENTS = 200_000
"""So many events are told; there are about five in the life of a task."""
_EVENTS = "SELECT seq, at, kind, actor, task, agent, lease_epoch, from_state, to_state, cause, data FROM event WHERE seq > ? ORDER BY seq"
_TASKS = "SELECT n, title, created_by, created_at, state, project, repo, base, lane, type, idem_key, spec FROM task WHERE n > ? ORDER BY n"
_ENDED = "SELECT rowid, id, name, ends_at, revoked_by FROM token WHERE rowid > ? AND revoked_by IS NOT NULL ORDER BY rowid"
_USED = ("SELECT 'seq' AS counter, coalesce(max(seq), 0) AS value FROM event", "SELECT counter, value FROM base")
_MOST = 2**63 - 1
"""The highest number of a row."""

Row = dict[str, Any]


@dataclass(slots=True)
class Rescued:
    """What was read. ``readable`` is False when SQLite could not even open the file; ``gaps`` counts places that could not be read."""

    readable: bool = False
    gaps: int = 0
    events: list[Row] = field(default_factory=list)
    tasks: list[Row] = field(default_factory=list)
    ended_tokens: list[Row] = field(default_factory=list)
    used: dict[str, int] = field(default_factory=dict)
    """How far its counters were set by a restore, and its last event."""

    @property
    def last_event(self) -> Row | None:
        """The newest that could be read."""
        return self.events[-1] if self.events else None


def rescue(path: Path, known: Manifest) -> Rescued:
    """Read what a store holds beyond a backup of it, as far as it can be read; nobody has it open."""
    found = Rescued()
    if not path.exists():
        return found
    try:
        with integrity.reading(path) as connection:
            connection.row_factory = as_dict
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            found.readable = True
            found.ended_tokens = _walk(connection, _ENDED, "rowid", 0, found)
            found.events = _walk(connection, _EVENTS, "seq", known.seq, found, limit=MAX_EVENTS)
            found.ended_tokens += _ended_by_events(found)
            found.tasks = _walk(connection, _TASKS, "n", known.n, found)
            found.used = _used(connection, found)
    except sqlite3.DatabaseError:
        found.gaps += 1
    return found


def _ended_by_events(found: Rescued) -> Iterator[Row]:
    """Tokens whose row could not be read, of which an event says that they were revoked."""
    known = {row["id"] for row in found.ended_tokens}
    for event in found.events:
        if event["kind"] == "token.revoked" and isinstance(event["at"], int):
            with suppress(ValueError, TypeError, KeyError):  # of a broken store: what cannot be read says nothing
                token = json.loads(event["data"])
                if token["token"] not in known:
                    known.add(token["token"])
                    yield {
                        "id": str(token["token"]),
                        "name": str(token["name"]),
                        "ends_at": event["at"],
                        "revoked_by": str(event["actor"]),
                    }


def _used(connection: sqlite3.Connection, found: Rescued) -> dict[str, int]:
    """From each table what it yields: one that is broken, or that an older schema does not have, hides none of the others."""
    used = {"seq": max((row["seq"] for row in found.events), default=0)}
    for sql in _USED:
        try:
            for row in connection.execute(sql).fetchall():
                used[row["counter"]] = max(used.get(row["counter"], 0), row["value"])
        except sqlite3.DatabaseError:
            found.gaps += 1
    return used


def _walk(connection: sqlite3.Connection, sql: str, key: str, after: int, found: Rescued, limit: int = 1 << 30) -> list[Row]:
    rows: list[Row] = []
    skip = 1
    for _ in range(MAX_FAILURES):
        try:
            for row in _each(connection, sql, after):
                rows.append(row)
                after, skip = row[key], 1
                if len(rows) >= limit:
                    return rows
        except sqlite3.DatabaseError:
            found.gaps += 1
            after, skip = min(after + skip, _MOST), skip * 2
        else:
            return rows
    return rows


def _each(connection: sqlite3.Connection, sql: str, after: int) -> Iterator[Row]:
    yield from connection.execute(sql, (after,))


def write_account(file: Path, rescued: Rescued) -> None:
    """One JSON object a line: first the tasks that were submitted after the backup, then every event since."""
    lines = [_line("task", row | {"created_at": when(row["created_at"])}) for row in rescued.tasks]
    lines += [_line("event", row | {"at": when(row["at"])}) for row in rescued.events]
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.writelines(line + "\n" for line in lines)
        opened.flush()
        os.fsync(opened.fileno())


def when(at: Any) -> str | None:
    """A moment as RFC 3339; None for what is none: what a broken page yields may be anything."""
    try:
        return moment(at)
    except (OverflowError, TypeError):
        return None


def _line(kind: str, row: Row) -> str:
    return json.dumps({kind: row}, default=repr)
