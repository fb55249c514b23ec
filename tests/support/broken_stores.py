"""Ways to break a store file as disks, copies and people do; each takes the path of ``hub.db`` and breaks it, or what is beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

PAGE = 4096
FRAME = 24 + PAGE


def _patch(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def header_broken(path: Path) -> None:
    _patch(path, 0, b"\xff" * 16)


def header_zeroed(path: Path) -> None:
    _patch(path, 0, bytes(100))


def schema_page_broken(path: Path) -> None:
    _patch(path, 100, b"\x77" * 40)


def page_in_the_middle_broken(path: Path) -> None:
    """Overwrites a few pages: one of them is in use whatever the store holds."""
    pages = path.stat().st_size // PAGE
    for page in range(2, min(pages, 40)):
        _patch(path, page * PAGE, b"\xa5" * PAGE)


def page_zeroed(path: Path) -> None:
    pages = path.stat().st_size // PAGE
    for page in range(2, min(pages, 40)):
        _patch(path, page * PAGE, bytes(PAGE))


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 // PAGE * PAGE)


def truncated_within_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 // PAGE * PAGE + 100)


def emptied(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(0)


def gone(path: Path) -> None:
    path.unlink()


def foreign_file(path: Path) -> None:
    path.write_bytes(b"%PDF-1.7 an invoice\n" * 400)


def foreign_database(path: Path) -> None:
    import sqlite3
    from contextlib import closing

    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmark (url TEXT)")
        connection.commit()


FILE: Mapping[str, Callable[[Path], None]] = {
    way.__name__: way
    for way in (
        header_broken,
        header_zeroed,
        schema_page_broken,
        page_in_the_middle_broken,
        page_zeroed,
        truncated,
        truncated_within_a_page,
        emptied,
        gone,
        foreign_file,
        foreign_database,
    )
}
"""Of the file itself; without a log, for that may hold what was broken."""


def log_header_broken(path: Path) -> None:
    _patch(path.with_name("hub.db-wal"), 0, b"\xff" * 8)


def log_broken_early(path: Path) -> None:
    """Flips bytes in the content of the second frame; what follows is whole."""
    _patch(path.with_name("hub.db-wal"), 32 + FRAME + 24 + 500, b"\x5a" * 64)


def log_frame_header_broken(path: Path) -> None:
    _patch(path.with_name("hub.db-wal"), 32 + FRAME + 8, b"\x5a" * 8)


LOG: Mapping[str, Callable[[Path], None]] = {
    way.__name__: way for way in (log_header_broken, log_broken_early, log_frame_header_broken)
}
"""Of the log beside a store whose hub did not end cleanly."""
