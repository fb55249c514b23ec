"""Locks that say who holds them: the file is flock'ed, and names its holder so that a reused pid is not taken for it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sidecar.runs import sweep
from sidecar.runs.clock import boot_name


def sign(lock: int) -> None:
    """Write who this process is into a lock file it holds: ``pid start boot``. Where the system does not tell, nothing."""
    me = sweep.look(os.getpid())
    os.ftruncate(lock, 0)
    if me is not None:
        os.pwrite(lock, f"{me.pid} {me.started} {boot_name()}".encode(), 0)


def is_held(path: Path) -> bool:
    """Whether somebody holds it; it is neither waited for nor kept."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def holder(path: Path) -> int | None:
    """The pid of the process that holds it; 0 when that cannot be told for certain, None when nobody does."""
    if not is_held(path):
        return None
    try:
        pid, started, boot = path.read_text(errors="replace").split(" ")
        process = sweep.look(int(pid))
    except (OSError, ValueError):
        return 0
    return process.pid if process is not None and (str(process.started), boot_name()) == (started, boot) else 0
