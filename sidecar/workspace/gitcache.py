"""A bare cache of one remote repository: every workspace of that repository borrows its objects.

It owns fetching, pushing, the refs that keep borrowed objects alive, and the single point where an agent's objects cross
over (:meth:`GitCache.absorb`). A fetch writes straight to the refs that need it, so there is no shared tracking ref to race
for, and a base that was force-pushed away stays alive as long as one workspace is pinned on it. Nothing is ever collected
under a workspace: a prune beneath a live borrowing clone destroys it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from hub.wire.git import check_branch_name, check_url
from hub.wire.spec import Commit
from sidecar.files import put_in_place
from sidecar.workspace.git import Git, WorkspaceError
from sidecar.workspace.workdir import LEASES

COMMITS_LIMIT = 256
FILES_LIMIT = 256
"""Most commits of a result, and most files of one commit: limits of the protocol."""
ABSORB_LIMIT_BYTES = 2 * 1024**3
"""Largest pack that is taken over from one workspace."""
PATCH_LIMIT_BYTES = 16 * 1024 * 1024
LISTING_LIMIT_BYTES = 32 * 1024 * 1024
"""Longest list of the paths of a commit: about half a million of ordinary length."""
GC_LOOSE_OBJECTS = 4000

_PATCH = ("-p", "--cc", "-U0", "--text", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv")


class GitCache:
    """One cache directory. What touches the remote's refs or removes objects is serialised; reads need no lock.

    ``reader`` is the git that may look at what an agent owns; ``git`` never does.
    """

    def __init__(self, root: Path, url: str, git: Git, reader: Git) -> None:
        self.allow_file = check_url(url) == "file"
        slug = re.sub(r"[^a-z0-9]+", "-", url.rstrip("/").removesuffix(".git").rpartition("/")[2].lower()).strip("-")[:40]
        self.path = root / f"{slug or 'repo'}-{hashlib.sha256(url.encode()).hexdigest()[:16]}.git"
        self.url = url
        self._git = git
        self._reader = reader
        self._lock = asyncio.Lock()
        self._opened = False

    @property
    def objects(self) -> Path:
        """The directory that clones name in their alternates file."""
        return self.path / "objects"

    async def open(self) -> None:
        """Create the cache if it does not exist, or take over the one that an earlier process left."""
        if not self._opened:
            async with self._lock:
                await self._open()

    async def fetch(self, source: str, ref: str, *, keep: str | None = None) -> str | None:
        """Fetch ``source`` (a full ref of the remote) into ``ref``; returns its commit id.

        ``keep`` names a second ref to update, from which the next fetch knows what is already here. None means the remote
        has no branch at all. Raises ``ref_missing`` if it has others, or what :func:`sidecar.workspace.git.remote_error` says.
        """
        refspecs = [f"+{source}:{target}" for target in (ref, keep) if target is not None]
        try:
            options = ("-q", "--no-tags", "--no-write-fetch-head", "--end-of-options")
            async with self._lock:
                await self._git.talk(self.path, "fetch", *options, self.url, *refspecs, allow_file=self.allow_file)
        except WorkspaceError as fault:
            if fault.code != "ref_missing" or await self._remote_has_branches():
                raise
            return None
        return await self.resolve(ref)

    async def push(self, sha: str, branch: str, *, force: bool = False) -> None:
        """Make ``branch`` of the remote point at ``sha``. Doing it again changes nothing."""
        check_branch_name(branch)
        refspec = f"{'+' if force else ''}{sha}:refs/heads/{branch}"
        options = ("--porcelain", "--no-verify", "--end-of-options")
        await self._git.talk(self.path, "push", *options, self.url, refspec, allow_file=self.allow_file)

    async def resolve(self, name: str) -> str | None:
        """The commit id of a ref or expression of our own making, or None."""
        done = await self._git.run(self.path, "rev-parse", "--verify", "-q", f"{name}^{{commit}}", ok=(0, 1, 128))
        return done.output.decode().strip() or None

    async def point(self, ref: str, sha: str) -> None:
        """Create or move one of our refs."""
        await self._git.run(self.path, "update-ref", ref, sha)

    async def drop_under(self, prefix: str) -> None:
        """Delete all our refs beneath ``prefix``."""
        refs = await self._git.text(self.path, "for-each-ref", "--format=delete %(refname)", prefix)
        if refs:
            await self._git.run(self.path, "update-ref", "--stdin", stdin=f"{refs}\n".encode())

    async def shape(self, sha: str) -> str:
        """Tree and parents of a commit: everything about it but who, when and why."""
        return await self._git.text(self.path, "log", "-1", "--format=%T %P", sha, "--")

    async def absorb(self, objects: Path, head: str, known: tuple[str, ...], *, fsck: bool = True) -> None:
        """Take over everything reachable from ``head`` out of a checked object directory, verified and hashed anew.

        The one command that reads an agent's objects is pack-objects; what it writes is indexed with fsck, so from here on
        the cache is complete without the clone. ``fsck`` is False for what git made of an agent's files to save them:
        better kept as it is than lost. Raises ``bad_objects`` when they are missing, corrupt or refused by fsck.
        """
        if await self.resolve(head) == head:
            return
        wanted = "\n".join([head, *(f"^{sha}" for sha in known), ""]).encode()
        packing = ("pack-objects", "--revs", "--stdout", "-q", "--no-use-bitmap-index", "--delta-base-offset")
        try:
            with tempfile.TemporaryFile(dir=self.path) as pack:
                lent = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": quote_path(objects)}
                await self._reader.run(self.path, *packing, env=lent, stdin=wanted, stdout=pack)
                pack.seek(0)
                strict = ("--fsck-objects",) if fsck else ()
                indexing = ("index-pack", "--stdin", *strict, f"--max-input-size={ABSORB_LIMIT_BYTES}")
                await self._git.run(self.path, *indexing, stdin=pack)
        except WorkspaceError as fault:
            if fault.code != "git_failed":
                raise
            raise WorkspaceError("bad_objects", f"the agent's commits cannot be taken over: {fault}", retryable=True) from fault
        if await self.resolve(head) != head:
            raise WorkspaceError("bad_objects", "the workspace's HEAD is not a commit", retryable=True)

    async def check_extent(self, head: str) -> None:
        """Raise ``bad_objects`` for a commit with more paths than can be handled.

        Trees can contain each other, so a few kilobytes of them name any number of paths, all of which an index would hold
        in memory. A listing holds none of them.
        """
        try:
            await self._git.run(self.path, "ls-tree", "-r", "-z", "--name-only", head, limit_bytes=LISTING_LIMIT_BYTES)
        except WorkspaceError as fault:
            if fault.code != "git_output_too_large":
                raise
            raise WorkspaceError("bad_objects", "the agent's commit names too many paths", retryable=True) from fault

    async def contains(self, head: str, ancestor: str) -> bool:
        """Whether ``ancestor`` is ``head`` or in its history."""
        done = await self._git.run(self.path, "merge-base", "--is-ancestor", ancestor, head, ok=(0, 1))
        return done.returncode == 0

    async def commits(self, base: str | None, head: str) -> tuple[Commit, ...]:
        """The newest commits of ``base..head``, oldest first. A merge lists only the files it changed by itself."""
        since = _range(base, head)
        shas = (await self._git.text(self.path, "rev-list", "--topo-order", f"-{COMMITS_LIMIT}", *since)).split()[::-1]
        if not shas:
            return ()
        layout = ("-z", "--reverse", "--topo-order", "--format=%x02%H%x03%s", "--name-only", "--no-renames", "--cc")
        done = await self._git.run(self.path, "log", *layout, f"-{COMMITS_LIMIT}", *since)
        return _parse_log(done.output, shas)

    async def patch(self, base: str | None, head: str) -> bytes | None:
        """Everything that ``base..head`` adds or removes, commit by commit, as text, messages
        included; None when it is over 16 MiB.
        """
        try:
            layout = ("--reverse", "--format=commit %H%n%B", *_PATCH)
            done = await self._git.run(self.path, "log", *layout, *_range(base, head), limit_bytes=PATCH_LIMIT_BYTES)
        except WorkspaceError as fault:
            if fault.code == "git_output_too_large":
                return None
            raise
        return done.output

    async def tidy(self, is_borrowed: Callable[[], Awaitable[bool]]) -> None:
        """Forget leftover pins and repack when it is worth it, unless a workspace borrows (asked while no fetch can run)."""
        async with self._lock:
            if await is_borrowed():
                return
            await self.drop_under(LEASES)
            often = ("-c", f"gc.auto={GC_LOOSE_OBJECTS}", "-c", "gc.autoDetach=false")
            await self._git.run(self.path, *often, "gc", "--auto", "-q")

    async def _open(self) -> None:
        if self._opened:  # by the one we waited for
            return
        if await asyncio.to_thread(self.path.is_dir):
            await asyncio.to_thread(_remove_stale_locks, self.path)
        else:
            fresh = self.path.with_suffix(".new")
            await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
            await asyncio.to_thread(self.path.parent.mkdir, parents=True, exist_ok=True)
            await self._git.run(fresh, "init", "-q", "--bare", "--template=", "--initial-branch=none")
            await asyncio.to_thread(put_in_place, fresh, self.path)  # a crash before this leaves nothing that looks complete
        self._opened = True

    async def _remote_has_branches(self) -> bool:
        options = ("--heads", "--end-of-options")
        return bool((await self._git.talk(self.path, "ls-remote", *options, self.url, allow_file=self.allow_file)).strip())


def _range(base: str | None, head: str) -> tuple[str, ...]:
    return (head, "--") if base is None else (head, f"^{base}", "--")


def _parse_log(output: bytes, shas: list[str]) -> tuple[Commit, ...]:
    """Match a NUL-separated log with the ids expected, in order.

    A file name may hold any byte, so a line counts as a commit only if it carries the very id that comes next; no file can
    be named after a commit that contains it.
    """
    subjects: dict[str, str] = {}
    files: dict[str, list[str]] = {sha: [] for sha in shas}
    expected = iter(shas)
    following, current = next(expected), ""
    for token in output.split(b"\0"):
        if following and token.startswith(f"\x02{following}\x03".encode()):
            current, following = following, next(expected, "")
            subjects[current] = token.partition(b"\x03")[2].decode(errors="replace")[:512]
        elif token and current and len(files[current]) < FILES_LIMIT:
            files[current].append(token.removeprefix(b"\n").decode(errors="replace")[:4096])
    return tuple(Commit(sha=sha, subject=subjects.get(sha, ""), files=tuple(files[sha])) for sha in shas)


def quote_path(path: Path) -> str:
    """One entry of a colon-separated list, quoted the way git reads it."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _remove_stale_locks(path: Path) -> None:
    """Locks left by a git that was killed with the sidecar: nobody else works here, the state directory is locked."""
    for lock in [*path.glob("*.lock"), *(path / "refs").rglob("*.lock")]:
        lock.unlink(missing_ok=True)
