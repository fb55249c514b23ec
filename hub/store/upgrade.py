"""What a store has to go through before this version can serve from it, told without changing anything."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hub.store.base import StoreUnusable
from hub.store.migrations import newest_schema, schema_files

SAMPLE_BYTES = 64 * 1024 * 1024
"""So much of a file is read to tell how long all of it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """``pending`` migrations in their order; ``backup_s`` estimates the copy before them, from reading a part of the file."""

    found: int
    newest: int
    pending: tuple[str, ...]
    file_bytes: int
    backup_s: float


def plan(path: Path) -> Upgrade:
    """Look at a store that no hub has open; raises StoreUnusable for none, and for one that is newer than this version."""
    if not path.exists():
        raise StoreUnusable(f"there is no store at {path}")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            (found,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as fault:
            raise StoreUnusable(f"{path} is no store of a hub, or broken: {fault}") from fault
    newest = newest_schema()
    if found > newest:
        raise StoreUnusable(f"{path} has schema {found}, this version knows up to {newest}: install the newer version")
    size = path.stat().st_size
    pending = tuple(name for name in schema_files() if int(name[:4]) > found)
    return Upgrade(
        found=found,
        newest=newest,
        pending=pending,
        file_bytes=size,
        backup_s=_read_s(path, size) if found and pending else 0.0,
    )


def _read_s(path: Path, size: int) -> float:
    """Reading and writing as much again; the disk's cache makes this a lower bound."""
    began, read = time.perf_counter(), 0
    with path.open("rb") as file:
        while read < SAMPLE_BYTES and (chunk := file.read(1024 * 1024)):
            read += len(chunk)
    return 2 * (time.perf_counter() - began) * (size / read if read else 0.0)
