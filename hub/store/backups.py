"""Backups: whole copies of a living store, each a directory with the store, the hub's key and a manifest.

A copy is made by SQLite's online backup over a read-only connection, in steps of a few megabytes within one read transaction: the
writer is never waited for nor made to wait, the copy is of one moment, and each step is synced before the next, so no burst of writes
meets the fsync of a commit. (``VACUUM INTO`` takes four times as long, and one step for everything makes commits wait for its sync:
ops/bench/backup.py.) The log cannot be reset meanwhile, so its length is watched, and beyond a bound the backup is given up.

A backup appears under its name when it is complete and verified, or not at all. **Whoever has a backup has the hub's key.**
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from hub import __version__
from hub.core.errors import Refused
from hub.ids import BackupReason, Micros
from hub.store import copying, integrity, manifest
from hub.store.copying import BackupFailed, NoRoom
from hub.store.files import make_directory, sync_directory
from hub.store.manifest import KEY, MANIFEST, STORE, Manifest, ManifestUnusable
from hub.store.migrations import newest_schema
from hub.store.sql import statements
from hub.store.wal import wal_of

BACKUPS_DIR = "backups"
"""Its name in the data directory, unless another is set."""
NAME = re.compile(r"\d{8}T\d{6}Z(-\d+)?")
"""Of a backup: the moment it was begun, in UTC."""
_PARTIAL = ".partial-"

log = structlog.get_logger("backups")


class UnknownBackup(Refused):
    """There is no backup of that name."""

    def __init__(self, name: str, where: Path) -> None:
        super().__init__(404, "unknown_backup", f"there is no backup {name[:40]!r} in {where}", hint="agentcom backup list")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A directory on the shelf. ``manifest`` is None when ``fault`` says why it is no backup."""

    path: Path
    manifest: Manifest | None
    fault: str | None = None

    @property
    def name(self) -> str:
        """By which it is found."""
        return self.path.name

    @property
    def store(self) -> Path:
        """The copy of the store."""
        return self.path / STORE


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Where the backups of one hub are, and what they are made of: ``store`` and ``key`` of a data directory.

    ``version`` is the software's; of its own backups the newest ``keep`` stay.
    """

    dir: Path
    store: Path
    key: Path
    version: str
    keep: int = 7

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def every(self) -> list[Backup]:
        """What is on the shelf, newest first; also what is no backup, with the reason."""
        try:
            names = sorted((entry.name for entry in self.dir.iterdir() if NAME.fullmatch(entry.name)), reverse=True)
        except OSError:
            return []
        return [look(self.dir / name) for name in names]

    def find(self, name: str) -> Backup:
        """The backup of this name; raises UnknownBackup."""
        if NAME.fullmatch(name) is None or not (self.dir / name).is_dir():
            raise UnknownBackup(name, self.dir)
        return look(self.dir / name)

    def newest(self) -> Backup | None:
        """See :func:`newest_of`."""
        return newest_of(self.every())

    # ── making ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def create(
        self,
        reason: BackupReason,
        now: Micros,
        *,
        source: sqlite3.Connection | None = None,
        over: Callable[[], bool] = lambda: False,
    ) -> Backup:
        """Make, verify and shelve a backup, then prune; raises BackupFailed. ``source`` is the writer's connection, at a start only.

        One at a time: whoever holds the store's lock. ``over`` is asked now and then whether to give up.
        """
        began = time.monotonic()
        try:
            make_directory(self.dir)
            self._tidy()
            self._check_room()
            with self._partial(now) as (partial, name):
                with self._source(source) as connection:
                    copying.copy(connection, partial / STORE, wal_of(self.store), over)
                if self.key.exists():
                    shutil.copyfile(self.key, partial / KEY)
                made = copying.describe(partial, reason, now, self.version, over)
                for file in partial.iterdir():
                    copying.sync(file)
                manifest.write(partial, made)
                final = self.dir / name
                partial.rename(final)
                sync_directory(self.dir)
        except OSError as fault:
            raise copying.unwritten(fault) from fault
        except sqlite3.Error as fault:
            full = getattr(fault, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
            raise (NoRoom if full else BackupFailed)(f"SQLite: {fault}") from fault
        log.info("backup_made", name=name, reason=reason, bytes=made.bytes, took_s=round(time.monotonic() - began, 3))
        self.prune(made.hub_id)
        return look(final)

    def before_migration(self, connection: sqlite3.Connection) -> None:
        """Keep what there is before the schema is brought forward."""
        self.create(BackupReason.MIGRATION, Micros(time.time_ns() // 1000), source=connection)

    def _check_room(self) -> None:
        size = self.store.stat().st_size + (wal_of(self.store).stat().st_size if wal_of(self.store).exists() else 0)
        free = shutil.disk_usage(self.dir).free
        if free < size + copying.ROOM_BYTES:
            raise NoRoom(
                f"{free // 2**20} MiB are free at {self.dir}, and a backup needs {size // 2**20}, "
                f"with {copying.ROOM_BYTES // 2**20} to spare: "
                "free some space, or set backup.dir to a larger disk"
            )

    @contextmanager
    def _source(self, given: sqlite3.Connection | None) -> Iterator[sqlite3.Connection]:
        if given is not None:
            yield given
            return
        with integrity.reading(self.store, living=True) as connection:
            connection.execute("BEGIN")
            connection.execute(statements()["meta_get"], {"key": "hub_id"}).fetchone()  # the moment of which the copy is
            yield connection

    @contextmanager
    def _partial(self, now: Micros) -> Iterator[tuple[Path, str]]:
        """A directory that has no name yet; it goes with everything in it unless it was given one."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now // 1_000_000))
        name, i = stamp, 1
        while (self.dir / name).exists():
            i += 1
            name = f"{stamp}-{i}"
        partial = self.dir / f"{_PARTIAL}{name}"
        partial.mkdir(mode=0o700)
        try:
            yield partial, name
        finally:
            _remove(partial)

    def _tidy(self) -> None:
        """What a crash left of one that was being made."""
        for entry in self.dir.iterdir():
            if entry.name.startswith(_PARTIAL) and NAME.fullmatch(entry.name.removeprefix(_PARTIAL)):
                _remove(entry)

    def prune(self, hub_id: str) -> list[str]:
        """Remove the oldest of the hub's own backups beyond ``keep``; the names.

        What has no good manifest, or is of another hub, was not made here and stays. So does the one before the last migration.
        """
        ours = [(backup, known) for backup in self.every() if (known := backup.manifest) is not None and known.hub_id == hub_id]
        ours.sort(key=lambda one: _progress(one[1]), reverse=True)
        gone = expired([(backup.name, known.reason) for backup, known in ours], self.keep)
        for name in gone:
            _remove(self.dir / name)
            log.info("backup_pruned", name=name)
        return gone

    # ── verifying ────────────────────────────────────────────────────────────────────────────────────────────────────

    def verify(self, backup: Backup, now: Micros) -> Backup:
        """Open and check a backup in full, and remember that it was whole; its ``fault`` says so if it is not."""
        if backup.manifest is None:
            return backup
        faults = verify(backup)
        if faults:
            return replace(backup, fault="; ".join(faults))
        with suppress(OSError):  # a shelf that can only be read: whole it is all the same
            manifest.write(backup.path, replace(backup.manifest, verified_at=now))
            return look(backup.path)
        return backup


def shelf_beside(store: Path) -> Shelf:
    """The shelf of a store for which nobody has set another."""
    return Shelf(dir=store.parent / BACKUPS_DIR, store=store, key=store.with_name(KEY), version=__version__)


def look(directory: Path) -> Backup:
    """What a directory says of itself."""
    try:
        return Backup(path=directory, manifest=manifest.read(directory))
    except ManifestUnusable as fault:
        return Backup(path=directory, manifest=None, fault=str(fault))


def newest_of(shelved: Sequence[Backup]) -> Backup | None:
    """The one that knows most, of those with a good manifest: every backup was verified when it was made.

    A hub's events only ever go forward; clocks do not, and one that was ahead for an hour would name a backup of that hour the newest
    for ever. Between backups of several hubs, of which no events can be compared, the moment decides. ``shelved`` is newest first.
    """
    good = [(backup, known) for backup in shelved if (known := backup.manifest) is not None]
    of_one_hub = [one for one in good if one[1].hub_id == good[0][1].hub_id]
    return max(of_one_hub, key=lambda one: _progress(one[1]))[0] if of_one_hub else None


def _progress(known: Manifest) -> tuple[int, Micros]:
    return known.seq, known.created_at


def account_of(backup: Backup) -> dict[str, Any]:
    """All that is known of a backup, flat, under the names that people see; moments in microseconds UTC, None for what is not known."""
    known = backup.manifest
    return {
        "name": backup.name,
        "path": str(backup.path),
        "fault": backup.fault,
        "reason": known and known.reason,
        "created_at": known and known.created_at,
        "verified_at": known and known.verified_at,
        "bytes": known and known.bytes,
        "schema_version": known and known.schema,
        "version": known and known.version,
        "hub_epoch": known and known.hub_epoch,
        "last_event": known and known.seq,
        "last_task": known and known.n,
        "tasks": known and dict(known.tasks),
        "holds_key": known is not None and KEY in known.sha256,
    }


def verify(backup: Backup) -> list[str]:
    """What is wrong with a backup: its files against their digests, then the store opened and checked in full."""
    if backup.manifest is None:
        return [backup.fault or "it has no manifest"]
    if backup.manifest.schema > newest_schema():
        return [f"its schema is {backup.manifest.schema}, this version knows up to {newest_schema()}: use the newer version"]
    faults = []
    for name, sha256 in backup.manifest.sha256.items():
        try:
            if manifest.digest(backup.path / name) != sha256:
                faults.append(f"{name} is not the file that was written: its digest is another")
        except OSError as fault:
            faults.append(f"{name} cannot be read: {fault.strerror}")
    return faults or integrity.judge(backup.store, full=True)[0]


def expired(newest_first: Sequence[tuple[str, BackupReason]], keep: int) -> list[str]:
    """The names that go, of backups as (name, reason): all but the newest ``keep``, and the newest one before a migration."""
    migration = next((name for name, reason in newest_first if reason is BackupReason.MIGRATION), None)
    return [name for name, _ in newest_first[max(1, keep) :] if name != migration]


def _remove(directory: Path) -> None:
    """Remove a backup: the manifest first, so that what is left of it after a crash is none."""
    for name in (MANIFEST, f".{MANIFEST}", STORE, KEY):
        (directory / name).unlink(missing_ok=True)
    with suppress(OSError):  # what somebody else put there is theirs
        directory.rmdir()
