"""A clone is whole or not there, whatever happens to the power: git itself does not sync what it makes one of. Blocking file I/O."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def reopen(clone: Path) -> bool:
    """Whether there is a clone, which is then free of the locks that a killed hub left: nobody else writes here. Raises OSError."""
    head = clone / "HEAD"
    if not (head.is_file() and head.stat().st_size):
        return False
    for lock in (*clone.glob("*.lock"), *clone.glob("refs/**/*.lock")):
        lock.unlink(missing_ok=True)
    return True


def make_room(clone: Path) -> Path:
    """Where a new clone is to be made; what is left of an old one goes. Raises OSError."""
    fresh = clone.with_suffix(".new")
    for left in (fresh, clone):
        shutil.rmtree(left, ignore_errors=True)
    clone.parent.mkdir(parents=True, exist_ok=True)
    return fresh


def put_in_place(fresh: Path, place: Path) -> None:
    """Sync a directory and all beneath it, then give it its name, durably; raises OSError."""
    for directory, _, files in os.walk(fresh, topdown=False):
        for path in (*(Path(directory, name) for name in files), Path(directory)):
            _sync(path)
    fresh.rename(place)
    _sync(place.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
