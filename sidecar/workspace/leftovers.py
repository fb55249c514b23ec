"""What an agent left uncommitted: find it, and turn it into a commit, without git ever running in the agent's clone.

git works in the cache with the clone as mere work tree and a private index, so that neither the clone's configuration nor
its index or hooks exist for it. Only plumbing is used, which never enters an embedded repository (``git status`` and ``git
add`` would run git inside it); those are reported and left out. Attributes of the work tree may name filters, but no
configuration defines one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sidecar.workspace.git import Git, WorkspaceError
from sidecar.workspace.gitcache import GitCache, quote_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """Paths that differ from a commit: ``written`` (changed or untracked), ``removed``, and ``embedded`` repositories."""

    written: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()
    embedded: tuple[bytes, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them, sorted, as file-system names (undecodable bytes as surrogates); embedded ones end in a slash."""
        return tuple(os.fsdecode(path) for path in sorted((*self.written, *self.removed, *self.embedded)))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkTree:
    """A clone's files seen from the cache, by a ``git`` that has the rights of the files' owner.

    ``index`` is private: a copy of the first checkout's, so that git need not read all. ``objects`` is where the owner's
    git writes when it may not write to the cache, which takes them over from there; None: it may.
    """

    git: Git
    cache: GitCache
    tree: Path
    index: Path
    objects: Path | None = None

    async def leftovers(self, head: str | None) -> Leftovers:
        """Compare the files with a commit of the cache (None: with nothing)."""
        await self._run("read-tree", *(("--reset", head) if head is not None else ("--empty",)))
        await self._run("update-index", "-q", "--refresh", ok=(0, 1))
        raw = await self._run("diff-files", "--raw", "-z", "--ignore-submodules=all", "--no-renames")
        written, removed, embedded = _parse_raw(raw)
        others = await self._run("ls-files", "-z", "--others", "--exclude-standard")
        for path in filter(None, others.split(b"\0")):
            (embedded if path.endswith(b"/") else written).append(path)
        return Leftovers(written=tuple(written), removed=tuple(removed), embedded=tuple(embedded))

    async def commit(self, leftovers: Leftovers, parent: str | None, message: str, identity: Mapping[str, str]) -> str | None:
        """Commit what :meth:`leftovers` found on top of ``parent``; None if that changes nothing. Raises ``salvage_failed``."""
        try:
            await self._run("update-index", "--force-remove", "-z", "--stdin", stdin=_list(leftovers.removed))
            adding = ("update-index", "--add", "--replace", "-z", "--stdin")
            await self._run(*adding, stdin=_list(leftovers.written))
            tree = (await self._run("write-tree")).decode().strip()
            if parent is not None and tree == await self.git.text(self.cache.path, "rev-parse", f"{parent}^{{tree}}"):
                return None
            parents = () if parent is None else ("-p", parent)
            made = await self._run("commit-tree", *parents, tree, env=identity, stdin=message.encode())
        except WorkspaceError as fault:
            raise WorkspaceError("salvage_failed", f"uncommitted work stays in {self.tree}: {fault}", retryable=True) from fault
        return made.decode().strip()

    async def _run(
        self, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, ok: tuple[int, ...] = (0,)
    ) -> bytes:
        settings = {"GIT_INDEX_FILE": str(self.index), **self._objects(), **(env or {})}
        return (await self.git.run(self.cache.path, *args, work_tree=self.tree, env=settings, stdin=stdin, ok=ok)).output

    def _objects(self) -> dict[str, str]:
        if self.objects is None:
            return {}
        lent = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": quote_path(self.cache.objects)}
        return {"GIT_OBJECT_DIRECTORY": str(self.objects), **lent}


def _parse_raw(raw: bytes) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """``:old-mode new-mode old-id new-id status NUL path NUL`` … into written, removed and embedded paths."""
    written: list[bytes] = []
    removed: list[bytes] = []
    embedded: list[bytes] = []
    tokens = iter(raw.split(b"\0"))
    for header, path in zip(tokens, tokens, strict=False):
        _, new_mode, _, _, status = header.split(b" ")
        if new_mode == b"160000":
            embedded.append(path + b"/")
        if status == b"D" or new_mode == b"160000":
            removed.append(path)
        else:
            written.append(path)
    return written, removed, embedded


def _list(paths: tuple[bytes, ...]) -> bytes:
    return b"".join(path + b"\0" for path in paths)
