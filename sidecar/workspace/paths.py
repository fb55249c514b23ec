"""Reach into a directory that an agent owns, one path component at a time and never through a symbolic link.

So nothing planted there can execute, block (a fifo) or lead elsewhere, also when it is put there between two looks.
Blocking file I/O: call from a thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a planted fifo must not wait for a writer


class NotPlainError(Exception):
    """What is at the end of the path is no plain file."""


@contextlib.contextmanager
def open_directory(root: Path, parts: Sequence[str]) -> Iterator[int]:
    """A descriptor of a directory beneath ``root``; raises OSError when it, or one on the way, is none or a link."""
    here = os.open(root, _DIRECTORY)
    try:
        for part in parts:
            below = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def read_plain(root: Path, parts: Sequence[str], limit_bytes: int) -> bytes:
    """The first ``limit_bytes`` of a plain file beneath ``root``; raises OSError, or :class:`NotPlainError`."""
    with open_directory(root, parts[:-1]) as parent:
        file = os.open(parts[-1], _FILE, dir_fd=parent)
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise NotPlainError(parts[-1])
        return opened.read(limit_bytes)
