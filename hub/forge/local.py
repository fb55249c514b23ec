"""The local forge: a bare repository by path or address, and plain git as the only protocol.

Everything happens in the hub's own bare clone of each repository: objects are fetched with fsck, merged without a work tree and pushed
with a lease. The clone has no hooks, no attributes and no configuration but ours, its HEAD names no branch (so newer gits find no
attributes through it either), and nothing in it is ever checked out. It is a cache: deleting it costs a fetch.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hub.core.change import Candidate, LoggedCommit
from hub.core.content import examine
from hub.core.risk import FileFact, Measured
from hub.forge import measure
from hub.forge.base import BaseMoved, ForgeError, Merged, PushRejected, Remote, RemoteUnavailable, Unusable
from hub.forge.durable import make_room, put_in_place, reopen
from hub.forge.git import Done, Git
from hub.wire.git import UnsafeNameError, check_branch_name, check_url, identity_env

PATCH_BYTES = 8 * 1024 * 1024
"""Most diff text that is examined for what it may hide; a larger change counts as not examined."""
FILES_LIMIT = 5_000
REWRITE_FILES = 200
"""Files whose old length is looked up; with more of them the deleted lines alone decide the tier."""
REWRITE_DELETED = 5
"""Deleted lines from which the old length of a file is looked up."""
IDENTITY = ("AgentCom", "gatekeeper@agentcom.invalid")

_MOVED = re.compile(r"\[rejected\]|stale info|cannot lock ref|failed to update ref|reference already exists")
_REFUSED = re.compile(r"\[remote rejected\]|pre-receive hook declined|hook declined|protected branch")
_UNSAFE = re.compile(r"fsck error|index-pack failed|bad object|missing blob|error in object|unpack-objects failed")
_NO_REF = re.compile(r"couldn't find remote ref")
_NO_ENTRY = re.compile(r"Authentication failed|Permission denied|could not read (?:Username|Password)|Host key verif| 40[13]\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalForge:
    """Clones live under ``root`` as ``<name>.git``; the hub that owns ``root`` is the only one that writes there."""

    root: Path
    git: Git
    _ready: set[str] = field(default_factory=set)
    _turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    # ── the remote ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def probe(self, remote: Remote, base: str) -> None:
        """See :meth:`hub.forge.base.Forge.probe`."""
        self._branch(base)
        if self._allows_file(remote):
            await self._refuse_checked_out(remote, base)
        done = await self.git.talk(None, "ls-remote", "--heads", "--", remote.url, allow_file=True)
        self._check_answer("ls-remote", done)
        branches = [ref.removeprefix("refs/heads/") for ref in done.text.split()[1::2]]
        if base not in branches:
            others = f"it has {', '.join(branches[:5])}: name its base" if branches else "push a first commit to it"
            raise Unusable(f"the repository has no branch {base!r}; {others}", code="base_missing")

    async def fetch(self, remote: Remote, branch: str) -> str | None:
        """See :meth:`hub.forge.base.Forge.fetch`."""
        ref = f"refs/remotes/origin/{self._branch(branch)}"
        clone = await self._clone(remote)
        async with self._turns[remote.name]:  # two fetches of one branch would lock its ref against each other
            done = await self.git.talk(
                clone,
                *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--refmap="),
                *("--", remote.url, f"+refs/heads/{branch}:{ref}"),
                allow_file=self._allows_file(remote),
            )
        if done.code != 0 and _NO_REF.search(done.errors):
            return None
        self._check_answer("fetch", done)
        return (await self.git.plumb(clone, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")).text

    async def publish(self, remote: Remote, branch: str, sha: str) -> None:
        """See :meth:`hub.forge.base.Forge.publish`."""
        done = await self._push(remote, "--force", "--", remote.url, f"{sha}:refs/heads/{self._branch(branch)}")
        self._check_push(done, remote)

    async def push_base(self, remote: Remote, base: str, *, expected: str, sha: str) -> None:
        """See :meth:`hub.forge.base.Forge.push_base`."""
        if not await self.contains(remote, sha, expected):
            raise Unusable(f"{sha} does not contain {expected}: pushing it would drop work", code="not_a_descendant")
        ref = f"refs/heads/{self._branch(base)}"
        done = await self._push(remote, f"--force-with-lease={ref}:{expected}", "--", remote.url, f"{sha}:{ref}")
        self._check_push(done, remote)

    async def delete(self, remote: Remote, branches: Sequence[tuple[str, str]]) -> None:
        """See :meth:`hub.forge.base.Forge.delete`."""
        refs = {f"refs/heads/{self._branch(branch)}": sha for branch, sha in branches}
        leases = [f"--force-with-lease={ref}:{sha}" for ref, sha in refs.items()]
        await self._push(remote, *leases, "--", remote.url, *(f":{ref}" for ref in refs))

    async def heads(self, remote: Remote, prefix: str) -> Mapping[str, str]:
        """See :meth:`hub.forge.base.Forge.heads`."""
        pattern = f"refs/heads/{self._branch(prefix + 'x').removesuffix('x')}*"
        done = await self.git.talk(None, "ls-remote", "--", remote.url, pattern, allow_file=self._allows_file(remote))
        self._check_answer("ls-remote", done)
        if done.truncated:
            raise ForgeError("the remote has more branches than are read", code="too_many_branches")
        pairs = (line.split("\t") for line in done.text.splitlines())
        return {ref.removeprefix("refs/heads/"): sha for sha, ref in pairs if ref.startswith(f"refs/heads/{prefix}")}

    def kept(self) -> Sequence[str]:
        """See :meth:`hub.forge.base.Forge.kept`."""
        return sorted(path.name.removesuffix(".git") for path in self.root.glob("*.git"))

    async def forget(self, name: str) -> None:
        """See :meth:`hub.forge.base.Forge.forget`."""
        self._ready.discard(name)
        gone = self.root / f"{name}.dropped"  # at once, so that nobody finds half a clone
        with suppress(FileNotFoundError):
            (self.root / f"{name}.git").rename(gone)
            await asyncio.to_thread(shutil.rmtree, gone)

    async def _push(self, remote: Remote, *args: str) -> Done:
        clone = await self._clone(remote)
        always = ("push", "--porcelain", "--no-verify", "--no-follow-tags", "--no-signed", "--recurse-submodules=no")
        return await self.git.talk(clone, *always, *args, allow_file=self._allows_file(remote))

    # ── objects ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def has(self, remote: Remote, sha: str) -> bool:
        """See :meth:`hub.forge.base.Forge.has`."""
        clone = await self._clone(remote)
        return (await self.git.plumb(clone, "cat-file", "-e", f"{sha}^{{commit}}", ok=(0, 1, 128))).code == 0

    async def contains(self, remote: Remote, tip: str, sha: str) -> bool:
        """See :meth:`hub.forge.base.Forge.contains`."""
        clone = await self._clone(remote)
        done = await self.git.plumb(clone, "merge-base", "--is-ancestor", "--end-of-options", sha, tip, ok=(0, 1, 128))
        if done.code == 128 and await self.has(remote, sha):
            raise ForgeError(f"git merge-base: {done.words}", code="git_failed")
        return done.code == 0

    async def merge_bases(self, remote: Remote, one: str, other: str) -> tuple[str, ...]:
        """See :meth:`hub.forge.base.Forge.merge_bases`."""
        clone = await self._clone(remote)
        return tuple((await self.git.plumb(clone, "merge-base", "--all", one, other, ok=(0, 1))).text.split())

    async def log(self, remote: Remote, base: str, head: str, *, limit: int) -> tuple[LoggedCommit, ...]:
        """See :meth:`hub.forge.base.Forge.log`."""
        clone = await self._clone(remote)
        done = await self.git.plumb(clone, *measure.LOG, f"--max-count={limit}", head, f"^{base}", "--")
        return measure.commits(done.output)

    async def tree_of(self, remote: Remote, commit: str) -> str:
        """See :meth:`hub.forge.base.Forge.tree_of`."""
        return (await self.git.plumb(await self._clone(remote), "rev-parse", "--verify", f"{commit}^{{tree}}")).text

    async def merge(self, remote: Remote, base: str, head: str) -> Merged:
        """See :meth:`hub.forge.base.Forge.merge`."""
        clone = await self._clone(remote)
        options = ("--write-tree", "-z", "--name-only", "--no-messages")
        done = await self.git.plumb(clone, "merge-tree", *options, base, head, ok=(0, 1))
        tree, *paths = done.output.decode(errors="backslashreplace").rstrip("\0").split("\0")
        if done.code == 0:
            return Merged(tree=tree)
        return Merged(tree=None, conflicts=tuple(dict.fromkeys(paths)))

    async def commit(self, remote: Remote, plan: Candidate) -> str:
        """See :meth:`hub.forge.base.Forge.commit`."""
        clone = await self._clone(remote)
        dates = {"GIT_AUTHOR_DATE": f"@{plan.date_s} +0000", "GIT_COMMITTER_DATE": f"@{plan.date_s} +0000"}
        parents = [arg for parent in plan.parents for arg in ("-p", parent)]
        done = await self.git.plumb(
            clone,
            *("commit-tree", *parents, "-F", "-", plan.tree),
            stdin=plan.message.encode(errors="replace"),
            env={**identity_env(*IDENTITY), **dates},
        )
        return done.text

    async def measure(self, remote: Remote, old: str, new: str) -> Measured:
        """See :meth:`hub.forge.base.Forge.measure`."""
        clone = await self._clone(remote)
        raw = await self.git.plumb(clone, *measure.RAW, old, new)
        if raw.truncated:
            return Measured(complete=False)
        files = measure.files(raw.output)
        if len(files) > FILES_LIMIT:
            return Measured(files=files[:FILES_LIMIT], complete=False)
        patch = await self.git.plumb(clone, *measure.PATCH, "-U0", old, new, limit_bytes=PATCH_BYTES)
        return Measured(
            files=await self._with_old_lines(clone, old, files),
            findings=examine(patch.output.decode(errors="replace")),
            complete=not patch.truncated,
        )

    async def diff(self, remote: Remote, old: str, new: str, *, limit_bytes: int) -> str:
        """See :meth:`hub.forge.base.Forge.diff`."""
        done = await self.git.plumb(await self._clone(remote), *measure.PATCH, old, new, limit_bytes=limit_bytes)
        text = done.output.decode(errors="replace")
        return f"{text}\n… cut off after {limit_bytes} bytes\n" if done.truncated else text

    async def _with_old_lines(self, clone: Path, old: str, files: tuple[FileFact, ...]) -> tuple[FileFact, ...]:
        wanted = [file for file in files if file.status in {"M", "R", "T"} and file.deleted >= REWRITE_DELETED]
        if not wanted or len(wanted) > REWRITE_FILES:
            return files
        paths = [file.old_path or file.path for file in wanted]
        counted = await self.git.plumb(clone, *measure.LINES, measure.EMPTY_TREE, old, "--", *paths)
        known = measure.lines(counted.output)
        return tuple(replace(file, old_lines=known.get(file.old_path or file.path)) for file in files)

    # ── the clone ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _clone(self, remote: Remote) -> Path:
        clone = self.root / f"{remote.name}.git"
        async with self._turns[remote.name]:  # the gatekeeper's first look and a person's may come together
            if remote.name not in self._ready:
                try:
                    await self._open(clone)
                except OSError as trouble:
                    raise ForgeError(f"the clone {clone} cannot be made: {trouble.strerror}", code="clone_failed") from trouble
                self._ready.add(remote.name)
        return clone

    async def _open(self, clone: Path) -> None:
        if await asyncio.to_thread(reopen, clone):
            return
        fresh = await asyncio.to_thread(make_room, clone)
        init = ("init", "--quiet", "--bare", "--template=", "--object-format=sha1", "--initial-branch=agentcom/none")
        await self.git.plumb(None, *init, "--", os.fspath(fresh))
        await asyncio.to_thread(put_in_place, fresh, clone)

    async def _refuse_checked_out(self, remote: Remote, base: str) -> None:
        path = Path(unquote(urlsplit(remote.url).path) if remote.url.startswith("file:") else remote.url)
        git_dir = path / ".git" if (path / ".git").exists() else path
        done = await self.git.plumb(git_dir, "worktree", "list", "--porcelain", ok=(0, 128))
        if done.code != 0:
            raise Unusable(f"there is no git repository at {path}", code="not_a_repository")
        if f"branch refs/heads/{base}" in done.text.splitlines():
            raise Unusable(
                f"{base} is checked out in {path}, so it cannot be pushed to; register a bare clone of it"
                f" (git clone --bare {path} {path}.git) or free the branch (git -C {path} switch --detach)",
                code="base_checked_out",
            )

    # ── judging what git said ──────────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def _branch(name: str) -> str:
        try:
            return check_branch_name(name)
        except UnsafeNameError as unsafe:
            raise Unusable(str(unsafe), code=unsafe.code) from unsafe

    @staticmethod
    def _allows_file(remote: Remote) -> bool:
        try:
            return check_url(remote.url) == "file"
        except UnsafeNameError as unsafe:
            raise Unusable(str(unsafe), code=unsafe.code) from unsafe

    def _check_answer(self, command: str, done: Done) -> None:
        if done.timed_out:
            raise RemoteUnavailable(f"no answer to git {command} within {self.git.talk_timeout_s:.0f} s")
        if done.code == 0:
            return
        if _UNSAFE.search(done.errors):
            raise Unusable(f"git {command}: {done.words}", code="unsafe_objects")
        code = "auth_failed" if _NO_ENTRY.search(done.errors) else None
        raise RemoteUnavailable(f"git {command}: {done.words}", code=code)

    def _check_push(self, done: Done, remote: Remote) -> None:
        if done.code == 0 and not done.timed_out:
            return
        if "branch is currently checked out" in done.words:
            cure = "register a bare clone of it or check out another branch there"
            raise PushRejected(f"the branch is checked out in {remote.url}; {cure}", code="base_checked_out")
        if _MOVED.search(done.words):
            raise BaseMoved(f"git push: {done.words}")
        if _REFUSED.search(done.words):
            raise PushRejected(f"git push: {done.words}")
        self._check_answer("push", done)
