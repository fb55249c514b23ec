"""What the store can tell about itself: SQLite's version and settings, its size on disk, and the room that is left."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from hub.store.compaction import Pages
from hub.store.sqlite import FIXED_IN, PRAGMAS, STORE_FILE, SqliteStore
from hub.wire.finding import Finding, fail, ok, warn

FREE_FAIL_BYTES = 256 * 1024 * 1024
FREE_WARN_BYTES = 2 * 1024 * 1024 * 1024
WAL_WARN_BYTES = 2 * int(PRAGMAS["journal_size_limit"])
"""A log this long was not folded back for a while: something reads for minutes."""
FREE_WORTH_BYTES = 16 * 1024 * 1024
"""Less is not worth giving back."""
BACKLOG_WARN = 10_000
READER_WARN_S = 5.0


async def examine_store(store: SqliteStore) -> list[Finding]:
    """An open store."""
    return [judge_pragmas(await store.pragmas()), *examine_files(store.path.parent)]


def examine_files(data_dir: Path) -> list[Finding]:
    """What can be told without opening the store: it may be in use, or by nobody."""
    return [judge_version(sqlite3.sqlite_version_info), *_sizes(data_dir / STORE_FILE), *_room(data_dir)]


def judge_version(version: tuple[int, ...]) -> Finding:
    """SQLite 3.7.0 to 3.51.2 can corrupt a log that two connections checkpoint at once; here only one ever does."""
    words = ".".join(map(str, version))
    if version >= FIXED_IN:
        return ok("sqlite", f"SQLite {words}")
    return ok("sqlite", f"SQLite {words}: safe, because a single connection writes and checkpoints")


def judge_pragmas(read: Mapping[str, tuple[str, str]]) -> Finding:
    """The writer's settings, read back: (wanted, found) by name."""
    wrong = [f"{name} is {found}, not {wanted}" for name, (wanted, found) in read.items() if wanted != found]
    if wrong:
        return fail("pragmas", "; ".join(wrong), "restart the hub; if it stays, the SQLite of this Python cannot be used")
    return ok("pragmas", f"{len(read)} settings of the writer are as they must be")


def is_in_use(data_dir: Path) -> bool:
    """Whether a hub process holds the lock of this directory's store; the lock is tried for an instant, and not kept."""
    try:
        handle = os.open(data_dir / f"{STORE_FILE}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _sizes(path: Path) -> list[Finding]:
    if not path.exists():
        return [ok("store", f"there is none yet at {path}")]
    wal = path.with_name(f"{path.name}-wal")
    log = wal.stat().st_size if wal.exists() else 0
    found = f"{_size(path.stat().st_size)}, and {_size(log)} of log"
    if log > WAL_WARN_BYTES:
        return [warn("store", found, "restart the hub; a log this long means that something reads for minutes without an end")]
    return [ok("store", found)]


def _room(data_dir: Path) -> list[Finding]:
    there = next((path for path in (data_dir, *data_dir.parents) if path.exists()), Path(os.sep))
    free = shutil.disk_usage(there).free
    found = f"{_size(free)} free at {data_dir}"
    if free < FREE_FAIL_BYTES:
        return [fail("disk", found, "free some space: with a full disk the hub accepts nothing")]
    if free < FREE_WARN_BYTES:
        return [warn("disk", found, "free some space, or move data_dir to a larger disk")]
    return [ok("disk", found)]


def _size(count: int) -> str:
    for unit, length in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count / 2**10:.1f} KiB"


# ── what keeps it small ──────────────────────────────────────────────────────────────────────────────────────────────


def judge_pages(pages: Pages, share: float) -> Finding:
    """How much of the file is free; beyond ``share`` it is given back by itself, where that is possible."""
    found = f"{_size(pages.free_bytes)} of {_size(pages.bytes)} are free ({pages.free_share:.0%})"
    if pages.free_share <= share or pages.free_bytes < FREE_WORTH_BYTES:
        return ok("free pages", found)
    if not pages.incremental:
        cure = "stop the hub, and rewrite the file once: agentcom db compact --offline"
        return warn("free pages", f"{found}, and an old file cannot give them back while it is in use", cure)
    return warn("free pages", found, "give them back now: agentcom db compact; otherwise the hub does within the hour")


def judge_backlog(tasks: int, counted: int) -> Finding:
    """Ended tasks that are older than they have to be kept."""
    if not tasks:
        return ok("retention", "no ended task is older than it has to be kept")
    found = f"{tasks:,}{' or more' if tasks >= counted else ''} ended tasks are older than they have to be kept"
    if tasks < BACKLOG_WARN:
        return ok("retention", found)
    return warn("retention", found, "see what would go, and have it done: agentcom db prune --dry-run, agentcom db prune")


def judge_reader(oldest_s: float) -> Finding:
    """The longest query of the moment: while it runs the log grows."""
    if oldest_s < READER_WARN_S:
        return ok("queries", "none is long")
    return warn(
        "queries",
        f"one has been running for {oldest_s:.0f} s, and the log grows meanwhile",
        "it is ended by itself; see the log",
    )
