"""Whether a store is whole: what can be told from its bytes, from SQLite's own checks, and from what its rows must agree on.

Nothing here writes. A store that is not whole is refused before anything is opened for writing, and while it is whole nobody notices.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from hub.store.base import StoreUnusable
from hub.store.journal import FenceBroken, check_schema
from hub.store.migrations import newest_schema
from hub.store.sql import statements
from hub.store.wal import has_log, judge_header, judge_rest

MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
FAULTS = 10
"""So many faults are told; a broken file has thousands."""
FULL_BYTES = 64 * 1024 * 1024
"""A store up to this size is checked in full at every start, a larger one in full only after an end that was not clean."""
START_S = 20.0
"""A check at start ends by then, with what it has seen: the weekly one looks at the rest."""
_PROGRESS_OPS = 100_000
FOLDED_EVENTS = 3_000_000
"""Beyond, the fold of the events is not compared with the tasks."""


class StoreCorrupt(StoreUnusable):
    """The store is not whole, and was not touched. ``faults`` says what is broken, ``cure`` is the command that mends it."""

    code = "store_corrupt"

    def __init__(self, path: Path, faults: list[str], notes: tuple[str, ...] = (), cure: str = "") -> None:
        super().__init__(f"{path} is broken: {'; '.join(faults)}" + (f"; {cure}" if cure else ""))
        self.path = path
        self.faults = tuple(faults)
        self.notes = notes
        self.cure = cure


def is_first_write(path: Path) -> bool:
    """Whether a first start was cut off in its first write, before there was a log: SQLite undoes that when it opens the file."""
    return path.with_name(path.name + "-journal").exists()


def judge_file(path: Path) -> list[str]:
    """What the bytes of an existing store tell before SQLite is asked."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if size == 0:
        return [] if not has_log(path) else ["the file is empty, but it has a log"]
    if not head.startswith(MAGIC):
        return ["the file is not a SQLite database: its header is " + ("all zeros" if not head.strip(b"\0") else "foreign")]
    return [fault] if (fault := judge_header(path)) is not None else []


@contextmanager
def reading(path: Path, *, living: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection that cannot change a store: it never folds the log back, and leaves the file as it is.

    ``living``: a hub has it open. Otherwise nobody has.
    """
    # without a log there is nothing to recover, and immutable leaves no files beside the store either
    mode = "mode=ro" if living or has_log(path) else "mode=ro&immutable=1"
    quoted = path.absolute().as_posix().replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    with closing(sqlite3.connect(f"file:{quoted}?{mode}", uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA query_only=1")
        connection.execute("PRAGMA trusted_schema=0")
        yield connection


def judge(path: Path, *, full: bool, over: Callable[[], bool] | None = None, log_synced: bool = True) -> tuple[list[str], bool]:
    """(faults, finished) of a store that nobody has open: its bytes, SQLite's check (quick or full), foreign keys, our own checks.

    ``over`` is asked now and then whether to end early; what was found by then counts. ``log_synced``: whether each commit was on
    the disk before the next began. Where it was not, what a power cut leaves of the log's end may have gaps, and proves nothing.
    """
    faults = judge_file(path)
    if faults or path.stat().st_size == 0:
        return faults, True
    try:
        with reading(path) as connection:
            faults, finished = check(connection, full=full, over=over)
            rest = judge_rest(path) if log_synced else None
    except sqlite3.DatabaseError as fault:
        return [f"SQLite: {fault}"], True
    return [*faults, *([rest] if rest is not None else [])], finished


def check(connection: sqlite3.Connection, *, full: bool, over: Callable[[], bool] | None = None) -> tuple[list[str], bool]:
    """(faults, finished) of an open store; see :func:`judge`."""
    connection.set_progress_handler(over, _PROGRESS_OPS)
    connection.row_factory = None
    try:
        faults = [
            f"SQLite: {row[0]}" for row in connection.execute(f"PRAGMA {'integrity' if full else 'quick'}_check({FAULTS})")
        ]
        if faults != ["SQLite: ok"]:
            return faults, True
        keys = connection.execute("PRAGMA foreign_key_check").fetchmany(FAULTS)
        faults = [f"a row of {table} points to one of {parent} that is not there" for table, _row, parent, _key in keys]
        return [*faults, *_own(connection, full=full)], True
    except sqlite3.OperationalError as fault:
        if fault.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return [], False
    finally:
        connection.set_progress_handler(None, 0)


def _own(connection: sqlite3.Connection, *, full: bool) -> Iterator[str]:
    """What SQLite cannot know: the schema is one of ours, and the log of events tells the same story as the table of tasks."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if found == 0 and not tables:
        return  # begun by a first start that was cut off
    if found == 0 or not {"meta", "task", "event"} <= tables:
        yield "it is a database of something else: it has no schema of a hub"
        return
    if found == newest_schema():  # an older one is brought forward, a newer one is refused by whoever opens it
        try:
            check_schema(connection)
        except FenceBroken as fault:
            yield str(fault)
            return
    if full:
        yield from _fold(connection)


def _fold(connection: sqlite3.Connection) -> Iterator[str]:
    if connection.execute("SELECT count(*) FROM event").fetchone()[0] > FOLDED_EVENTS:
        return
    for n, state, told in connection.execute(statements()["store_fold"], {"limit": FAULTS}):
        yield f"t-{n} is {state}, but its last event says {told}"


def check_at_start(path: Path, *, log_synced: bool = True) -> tuple[list[str], float, bool]:
    """(faults, seconds, finished) of the check before a store is opened: in full where that is cheap or the last end was not clean."""
    began = time.monotonic()
    if is_first_write(path):
        return [], 0.0, True
    full = path.stat().st_size <= FULL_BYTES or has_log(path)
    faults, finished = judge(path, full=full, over=lambda: time.monotonic() > began + START_S, log_synced=log_synced)
    return faults, time.monotonic() - began, finished


def check_living(path: Path, over: Callable[[], bool]) -> tuple[list[str], bool]:
    """(faults, finished) of a store that a hub of this process has open: everything, over one more connection that only reads."""
    try:
        with reading(path, living=True) as connection:
            return check(connection, full=True, over=over)
    except sqlite3.DatabaseError as fault:
        return [f"SQLite: {fault}"], True
