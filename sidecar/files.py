"""What survives a power cut: small files that are whole or not there, and the names of directories."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE = 0o600


def write_durably(path: Path, text: str, mode: int = PRIVATE) -> None:
    """Replace ``path``; a crash leaves the old file or the new one. Missing directories are made, closed to others."""
    make_directory(path.parent)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)
    sync_directory(path.parent)


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory and what is missing above it; the names are durable afterwards."""
    missing = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_directory(made.parent)


def put_in_place(fresh: Path, place: Path) -> None:
    """Sync a directory and all beneath it, then give it its name, durably; raises OSError."""
    for directory, _, files in os.walk(fresh, topdown=False):
        for path in (*(Path(directory, name) for name in files), Path(directory)):
            _sync(path, os.O_RDONLY)
    fresh.rename(place)
    sync_directory(place.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
