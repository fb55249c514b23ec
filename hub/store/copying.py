"""One copy of a living store: made in steps that nobody feels, and judged before anybody calls it a backup."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import structlog

from hub.core.errors import HubError
from hub.ids import BackupReason, Micros
from hub.store import integrity, manifest
from hub.store.manifest import STORE, Manifest
from hub.store.sql import statements

STEP_PAGES = 2048
"""Copied in one step: 8 MiB, some 10 ms, synced before the next."""
WAL_BYTES = 1 << 30
"""A log that grew to this length while all of the store was read, for a backup or a check, ends that."""
ROOM_BYTES = 128 * 1024 * 1024
"""What must stay free behind a backup: it never takes the room the hub itself needs."""

log = structlog.get_logger("backups")


class BackupFailed(HubError):
    """No backup was made, and nothing of it is left."""

    code = "backup_failed"
    status = 503
    retryable = True


class NoRoom(BackupFailed):
    """There is not enough room for a backup; the hub itself goes on."""

    code = "backup_no_room"
    status = 507


def copy(source: sqlite3.Connection, target: Path, wal: Path, over: Callable[[], bool]) -> None:
    """Copy a store in bounded, synced steps; raises BackupFailed when it is over or the log grows beyond bounds meanwhile."""
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def stepped(_status: int, _remaining: int, _total: int) -> None:
        began = time.monotonic()
        if over():
            raise BackupFailed("the hub is stopping")
        os.fdatasync(descriptor)
        if wal.exists() and wal.stat().st_size > WAL_BYTES:
            raise BackupFailed(
                f"{wal.name} grew beyond {WAL_BYTES // 2**20} MiB while the backup was made; it will be tried again"
            )
        time.sleep(min(0.1, time.monotonic() - began))  # half of the disk's time is the hub's

    try:
        with closing(sqlite3.connect(target, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=OFF")
            connection.execute("PRAGMA synchronous=OFF")
            source.backup(connection, pages=STEP_PAGES, progress=stepped)
    finally:
        os.close(descriptor)


def describe(directory: Path, reason: BackupReason, now: Micros, version: str, over: Callable[[], bool]) -> Manifest:
    """Verify a copy and say what it is; raises BackupFailed when it is not whole: then the store itself is not."""
    store = directory / STORE
    faults, finished = integrity.judge(store, full=True, over=over)
    if not finished:
        raise BackupFailed("the hub is stopping")
    if faults:
        log.error("backup_not_whole", faults=faults)
        raise BackupFailed(f"the copy is not whole, so the store may not be: {'; '.join(faults)}; see agentcom doctor")
    with integrity.reading(store) as connection:
        hub_id, hub_epoch, seq, n = connection.execute(statements()["store_facts"]).fetchone()
        schema = connection.execute("PRAGMA user_version").fetchone()[0]
        tasks = dict(connection.execute(statements()["store_tasks_by_state"]).fetchall())
    return Manifest(
        created_at=now,
        reason=reason,
        hub_id=hub_id or "",
        hub_epoch=int(hub_epoch or 0),
        schema=schema,
        version=version,
        seq=seq,
        n=n,
        tasks=tasks,
        bytes=store.stat().st_size,
        sha256={file.name: manifest.digest(file) for file in sorted(directory.iterdir())},
        verified_at=now,
    )


def unwritten(fault: OSError) -> BackupFailed:
    """An error of the file system, as the end of a backup."""
    why = f"{fault.strerror}: {fault.filename}" if fault.filename else str(fault)
    return BackupFailed(f"the backup could not be written: {why}")


def sync(file: Path) -> None:
    """Make a file durable, and its owner's alone."""
    file.chmod(0o600)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
