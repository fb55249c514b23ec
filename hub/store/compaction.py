"""Giving back what pruning freed: pages move from the end of the file into its holes, a few at a time, and the file ends earlier.

Each step is a transaction of its own, so it may end after any of them and go on at any time; nothing has to be remembered. A store whose
file was made without the map that this needs (before 0.2) is rewritten once, when it is small or while no hub has it open.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from hub.store.base import StoreUnusable

INCREMENTAL = 2
"""SQLite's number for a file with the map of its pages."""
SMALL_BYTES = 64 * 1024 * 1024
"""A store up to this size is rewritten at start if it has to be: about a second."""


@dataclass(frozen=True, slots=True)
class Pages:
    """The file in pages. ``incremental``: whether it can be compacted while it is in use."""

    page_bytes: int
    total: int
    free: int
    incremental: bool

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.total * self.page_bytes

    @property
    def free_bytes(self) -> int:
        """What could be given back."""
        return self.free * self.page_bytes

    @property
    def free_share(self) -> float:
        """Of the whole, 0 to 1."""
        return self.free / self.total if self.total else 0.0


def pages_of(connection: sqlite3.Connection) -> Pages:
    """Count the pages; immediate, whatever the size."""
    page_bytes, total, free, mode = (
        next(iter(_row(connection, f"PRAGMA {name}"))) for name in ("page_size", "page_count", "freelist_count", "auto_vacuum")
    )
    return Pages(page_bytes, total, free, mode == INCREMENTAL)


def give_back(connection: sqlite3.Connection, pages: int) -> int:
    """Move at most so many pages and end the file earlier; how many free pages are left. One transaction."""
    # each step of this statement moves one page, and only a script is stepped to its end: it has no columns that could be fetched
    connection.executescript(f"PRAGMA incremental_vacuum({int(pages)})")
    return int(next(iter(_row(connection, "PRAGMA freelist_count"))))


def rewrite(connection: sqlite3.Connection) -> None:
    """Write the whole file anew, without holes and with the map of its pages. Nobody else may use it meanwhile."""
    connection.execute(f"PRAGMA auto_vacuum={INCREMENTAL}")
    connection.execute("VACUUM")


def rewrite_if_small(connection: sqlite3.Connection) -> bool:
    """Rewrite a small store whose file has no map of its pages; whether it was done."""
    found = pages_of(connection)
    if found.incremental or not found.total or found.bytes > SMALL_BYTES:
        return False
    rewrite(connection)
    return True


def rewrite_file(path: Path) -> tuple[Pages, Pages]:
    """Rewrite a store that the caller has locked and nobody has open; the pages before and after. Raises StoreUnusable."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        before = pages_of(connection)
        rewrite(connection)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return before, pages_of(connection)
    except sqlite3.Error as fault:
        raise StoreUnusable(
            f"{path} could not be rewritten, and is as it was: {fault}; this needs as much room again"
        ) from fault
    finally:
        connection.close()


def _row(connection: sqlite3.Connection, sql: str) -> tuple[int, ...]:
    row = connection.execute(sql).fetchone()
    return tuple(row.values()) if isinstance(row, dict) else row
