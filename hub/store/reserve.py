"""Room set aside on the store's disk: really allocated, and given up the moment a write finds the disk full.

What people ask for ends before the disk does; what agents at work still have to say is written from the reserve. The state moves by
two marks, so that it does not flutter: people are refused when less than the reserve's size is free, and heard again at twice that.
"""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import structlog

from hub.ids import SpaceState

SUFFIX = ".reserve"
MEBIBYTE = 1024 * 1024
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

log = structlog.get_logger("store")


@dataclass(frozen=True, slots=True)
class Space:
    """The disk at one look: what is free there (to this user), what the reserve holds and ought to hold, all in bytes."""

    state: SpaceState
    free_bytes: int
    held_bytes: int
    size_bytes: int


def judge(was: SpaceState, free_bytes: int, held_bytes: int, size_bytes: int) -> SpaceState:
    """The state after a look. Without a reserve (size 0) nothing is known before a write fails."""
    if held_bytes < size_bytes:
        return SpaceState.FULL
    if free_bytes < size_bytes:
        return SpaceState.LOW
    if free_bytes < 2 * size_bytes and was is not SpaceState.AMPLE:
        return SpaceState.LOW
    return SpaceState.AMPLE


class Reserve:
    """The reserve of one store, beside it. Methods block for a moment; any thread may call them."""

    def __init__(self, store: Path, size_bytes: int) -> None:
        self.path = store.with_name(store.name + SUFFIX)
        self.size_bytes = size_bytes
        self._lock = threading.Lock()
        self._held_bytes = _allocated(self.path)
        self._state = SpaceState.AMPLE

    @property
    def state(self) -> SpaceState:
        """As of the last look, or the last write that found the disk full."""
        return self._state

    def look(self) -> Space:
        """Ask the file system; cheap enough for every refusal."""
        free = self._free()
        self._move(judge(self._state, free, self._held_bytes, self.size_bytes), free)
        return Space(self._state, free, self._held_bytes, self.size_bytes)

    def keep(self) -> Space:
        """Make the reserve, at start and again once twice its size is free, then look; a size that was changed is followed."""
        with self._lock:
            if self._held_bytes > self.size_bytes or not self.size_bytes:
                self._drop()
            if self._held_bytes < self.size_bytes and self._free() >= 2 * self.size_bytes - self._held_bytes:
                self._allocate()
            return self.look()

    def release(self) -> bool:
        """A write found the disk full: give the reserve up. Whether there was one to give."""
        with self._lock:
            held = self._held_bytes
            self._drop()
            self._move(SpaceState.FULL, 0)
            return held > 0

    def _free(self) -> int:
        found = os.statvfs(self.path.parent)
        return found.f_bavail * found.f_frsize

    def _drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self._held_bytes = 0

    def _allocate(self) -> None:
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _fill(handle, self.size_bytes)
            finally:
                os.close(handle)
            fresh.replace(self.path)
        except OSError as fault:
            fresh.unlink(missing_ok=True)
            log.warning("no_reserve", file=str(self.path), bytes=self.size_bytes, error=fault.strerror)
            return
        self._held_bytes = self.size_bytes

    def _move(self, state: SpaceState, free_bytes: int) -> None:
        if state is self._state:
            return
        was, self._state = self._state, state
        say = log.warning if state is not SpaceState.AMPLE else log.info
        say("disk_space", state=state, was=was, free_bytes=free_bytes, reserve_bytes=self._held_bytes)


def is_no_space(directory: Path) -> bool:
    """Whether a file can still grow there: asked when SQLite says no more than that a write failed."""
    probe = directory / f".space-{os.getpid()}"
    try:
        handle = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _fill(handle, 2 * 65536)
        finally:
            os.close(handle)
    except OSError as fault:
        return fault.errno in NO_SPACE
    finally:
        probe.unlink(missing_ok=True)
    return False


def _fill(handle: int, size_bytes: int) -> None:
    """Really allocate: a file of holes reserves nothing."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size_bytes)
        return
    for _ in range(0, size_bytes, MEBIBYTE):  # macOS
        os.write(handle, os.urandom(min(size_bytes, MEBIBYTE)))


def _allocated(path: Path) -> int:
    """Bytes that the file really has on the disk, up to its length."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return min(found.st_size, found.st_blocks * 512)
