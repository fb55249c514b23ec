"""What SQLite's errors mean here (store.md): whose they are, whether the process may go on, and when a write found no room."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from hub.core.errors import HubError, StoreFull
from hub.store.backups import Shelf
from hub.store.base import CommitFailed, StoreBroken, StoreUnusable
from hub.store.guard import corrupt
from hub.store.reserve import is_no_space

OF_THE_DISK = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY}
)
"""Primary codes of faults that are no operation's own: the whole group has met them."""
_NO_STORE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN})
_GROWING = frozenset({sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_TRUNCATE})
"""What SQLite says of a write that found no room, where it does not say FULL: a quota, or its shared memory. Never of an fsync."""
_OPENING = frozenset({*_GROWING, sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_CANTOPEN})


def primary(fault: sqlite3.Error) -> int:
    """SQLite's primary code of a fault; 0 for one of Python's own."""
    return getattr(fault, "sqlite_errorcode", 0) & 0xFF


def classify(fault: sqlite3.Error, directory: Path, *, opening: bool = False) -> HubError:
    """What a failed COMMIT means (store.md): full disks are for the caller, broken ones end the process, the rest is rebuilt."""
    grows = getattr(fault, "sqlite_errorcode", 0) in (_OPENING if opening else _GROWING)
    if primary(fault) == sqlite3.SQLITE_FULL or (grows and is_no_space(directory)):
        return StoreFull("the disk is full, and the reserve is spent; nothing was accepted")
    if primary(fault) in OF_THE_DISK:
        return StoreBroken(f"{type(fault).__name__}: {fault}")
    return CommitFailed(f"{type(fault).__name__}: {fault}")


def unopened(fault: sqlite3.Error, path: Path, shelf: Shelf) -> Exception:
    """Why the store could not be opened, with the cure where there is one."""
    if isinstance(classify(fault, path.parent, opening=True), StoreFull):
        return StoreUnusable(f"the disk of {path.parent} is full, and no reserve is left; free some space and start again")
    if primary(fault) in _NO_STORE:
        return corrupt(path, [f"SQLite: {fault}"], shelf)
    return fault
