"""Names that survive a power cut: what is in a file is synced by whoever writes it, but its name is kept by its directory."""

from __future__ import annotations

import os
from pathlib import Path


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory and what is missing above it; raises OSError. The names are durable afterwards."""
    missing = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    for made in reversed(missing):
        sync_directory(made.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
