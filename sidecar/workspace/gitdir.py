"""Read an agent's clone without running git in it: its configuration, hooks and links are the agent's.

Only plain files are opened, and only as ``paths`` does it. Blocking file I/O: call from a thread.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from hub.wire.git import UnsafeNameError, check_ref_name
from sidecar.workspace.git import WorkspaceError
from sidecar.workspace.paths import NotPlainError, open_directory, read_plain

REF_FILE_LIMIT_BYTES = 4096
PACKED_REFS_LIMIT_BYTES = 16 * 1024 * 1024
OBJECT_FILES_LIMIT = 1_000_000
"""Most files an agent may leave in its object directory."""
OBJECT_DEPTH = 8
"""Deepest directories in an object directory; git's own are two deep."""
SYMREF_DEPTH = 5

_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


def read_head(tree: Path) -> str | None:
    """The commit id HEAD stands for, or None when its branch has no commit yet.

    The id is only well-formed: whether the object exists is for the caller to see. Raises :class:`WorkspaceError`
    ``head_unreadable`` when the files are missing, malformed, too large, no plain files or reached through a link.
    """
    name = "HEAD"
    for _ in range(SYMREF_DEPTH):
        text = _read_ref(tree, name)
        if text is None:
            return None
        if _SHA.fullmatch(text):
            return text
        if not text.startswith("ref:"):
            raise _unreadable(f"{name} holds neither a commit id nor a ref")
        name = text.removeprefix("ref:").strip()
        try:
            check_ref_name(name)
        except UnsafeNameError as fault:
            raise _unreadable(str(fault)) from None
    raise _unreadable("symbolic refs are nested too deep")


def check_tree(tree: Path) -> None:
    """Raise ``workspace_gone`` unless the work tree is still a directory: a link put in its place would be followed."""
    if not _is_directory(tree):
        raise WorkspaceError("workspace_gone", f"{tree} is no directory any more", retryable=True)


def check_objects(tree: Path, cache_objects: Path) -> Path:
    """The clone's object directory, once it is certain that reading it reads only it and the cache.

    Raises :class:`WorkspaceError` ``unsafe_objects`` for an alternates file that names anything but ``cache_objects`` (git
    follows such chains), for any symbolic link or special file, and for more files than an agent can sensibly make.
    """
    objects = tree / ".git" / "objects"
    for directory in (tree, tree / ".git", objects):
        if not _is_directory(directory):
            raise _unsafe(f"{directory.name} is not a plain directory")
    alternates = _read(tree, (".git", "objects", "info", "alternates"), REF_FILE_LIMIT_BYTES)
    if alternates is not None and alternates.rstrip(b"\n") != os.fsencode(cache_objects):
        raise _unsafe("its alternates file was changed")
    try:
        for count, entry in enumerate(_entries(tree, (".git", "objects"))):
            if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
                raise _unsafe(f"{entry.name!r} is a link or a special file")
            if count >= OBJECT_FILES_LIMIT:
                raise _unsafe(f"it holds more than {OBJECT_FILES_LIMIT} files")
    except OSError as fault:  # a directory became something else since it was listed
        raise _unsafe(f"{fault.filename or 'a directory'}: {fault.strerror}") from None
    return objects


def _read_ref(tree: Path, name: str) -> str | None:
    """Content of a ref file, else the id in packed-refs, else None. HEAD itself must exist."""
    data = _read(tree, (".git", *name.split("/")), REF_FILE_LIMIT_BYTES)
    if data is not None:
        return data.decode(errors="replace").strip()
    if name == "HEAD":
        raise _unreadable("HEAD is missing")
    packed = _read(tree, (".git", "packed-refs"), PACKED_REFS_LIMIT_BYTES)
    for line in (packed or b"").decode(errors="replace").splitlines():
        sha, _, ref = line.partition(" ")
        if ref == name and _SHA.fullmatch(sha):
            return sha
    return None


def _read(root: Path, parts: tuple[str, ...], limit_bytes: int) -> bytes | None:
    """A plain file beneath ``root``, or None when it or a directory on the way does not exist."""
    name = "/".join(parts)
    try:
        data = read_plain(root, parts, limit_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise _unreadable(f"{name}: {fault.strerror}") from None
    except NotPlainError:
        raise _unreadable(f"{name} is not a plain file") from None
    if len(data) > limit_bytes:
        raise _unreadable(f"{name} is larger than {limit_bytes} bytes")
    return data


def _entries(tree: Path, top: tuple[str, ...]) -> Iterator[os.DirEntry[str]]:
    """Everything beneath a directory of the tree; no link is followed, nor one put there since its directory was listed."""
    waiting = [top]
    while waiting:
        parts = waiting.pop()
        if len(parts) - len(top) > OBJECT_DEPTH:
            raise _unsafe("its directories are nested too deep")
        with open_directory(tree, parts) as directory, os.scandir(directory) as listing:
            for entry in listing:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((*parts, entry.name))


def _is_directory(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _unreadable(reason: str) -> WorkspaceError:
    return WorkspaceError("head_unreadable", f"the workspace's HEAD cannot be read: {reason}", retryable=True)


def _unsafe(reason: str) -> WorkspaceError:
    return WorkspaceError("unsafe_objects", f"the workspace's objects cannot be trusted: {reason}", retryable=True)
