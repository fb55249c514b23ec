"""Where a store lies: on a local disk, and in the hands of one process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from hub.store.base import StoreUnusable

NETWORK_FS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"})


def take_lock(path: Path) -> int:
    """The descriptor that holds the store for this process; raises StoreUnusable when another has it."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreUnusable(f"another hub has {path} open; stop it first, or give this one another --data-dir") from None
    return descriptor


def refuse_network_fs(path: Path) -> None:
    """Raises StoreUnusable for a file system whose locks do not protect a log."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return
    real = path.parent.resolve()
    best = ("", "")
    for line in mounts.read_text().splitlines():
        _, at, kind, *_ = line.split(" ")
        if real.is_relative_to(at) and len(at) >= len(best[0]):
            best = (at, kind)
    if best[1] in NETWORK_FS:
        raise StoreUnusable(f"{path} is on a {best[1]} file system; its locks do not protect a WAL. Use a local disk.")
