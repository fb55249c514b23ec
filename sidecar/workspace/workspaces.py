"""One directory per (task, lease epoch) in which an agent works: made from the current base, read back without trusting it.

Before the run the clone is ours: it borrows the objects of the repository's cache and starts from what the base branch is
*now* (``checkout``). After the run it is the agent's, configuration and hooks included, and no git runs inside it any more:
HEAD is read from its files (``gitdir``), its new objects are taken over into the cache under fsck (``gitcache``), uncommitted
files are seen from the cache (``leftovers``), and the push leaves from the cache. Work is never deleted: what was neither
pushed nor committed becomes a commit on a local salvage ref before a workspace goes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hub.ids import LeaseEpoch, TaskId, task_ref
from hub.wire.git import (
    UnsafeNameError,
    assignment_branch,
    check_ref_name,
    identity_env,
    salvage_branch,
    trailers,
)
from hub.wire.spec import CheckJob, RepoRef, Salvaged, Spec, StartPoint
from sidecar.runs.account import Account
from sidecar.workspace.checkout import (
    check_out,
    configure,
    fetch_base,
    fetch_check,
    fetch_offers,
    fetch_start,
    keep_index,
    merge_base,
    show_offers,
)
from sidecar.workspace.git import Git, WorkspaceError
from sidecar.workspace.gitcache import GitCache
from sidecar.workspace.gitdir import check_objects, check_tree, read_head
from sidecar.workspace.leftovers import Leftovers, WorkTree
from sidecar.workspace.premises import hand_over, make_home
from sidecar.workspace.workdir import (
    GitIdentity,
    Workspace,
    WorkState,
    home_of,
    list_records,
    read_record,
    remove_home,
    write_record,
)

__all__ = ["GitIdentity", "WorkState", "Workspace", "WorkspaceError", "Workspaces"]

DIRTY_LIMIT = 256
"""Most uncommitted paths that are listed."""
_UNTRUSTED = frozenset({"head_unreadable", "unsafe_objects", "bad_objects"})
"""Codes that say what the agent did to its repository; its files can be saved all the same."""


class Workspaces:
    """All workspaces of one sidecar, beneath ``root`` (which only this process may use).

    ``urls`` maps repository names to this machine's own addresses. Methods raise :class:`WorkspaceError`. Different
    workspaces may be used at once, also of one repository; one workspace is used by one caller at a time.

    With an ``account`` agents are that user: trees become its own, and git reads them with its rights.
    """

    def __init__(
        self,
        root: Path,
        *,
        identity: GitIdentity,
        urls: Mapping[str, str] | None = None,
        git_timeout_s: float = 120,
        account: Account | None = None,
    ) -> None:
        self._root = root.resolve()
        self._urls = dict(urls or {})
        self._identity = identity
        self._identity_env = identity_env(identity.name, identity.email)
        self._account = account
        self._git = Git(environ=dict(os.environ), timeout_s=git_timeout_s)
        self._reader = replace(self._git, account=account)
        self._caches: dict[str, GitCache] = {}
        self._preparing: set[Path] = set()

    async def prepare(self, spec: Spec, agent: str = "") -> Workspace:
        """The workspace of this lease of ``agent``, made now unless it already is: fetch, branch from the current base, check out.

        A rework starts from the previous head with the base merged in (``conflict`` says that the tree holds the marks of a
        conflict, which is part of the task). A ``check`` gets exactly its commit. Codes: ``remote_unreachable``,
        ``auth_failed``, ``base_missing``, ``start_missing``, ``check_missing``, ``check_moved``, ``merge_failed``,
        ``invalid_url``, ``invalid_branch``, ``git_missing`` and others of git itself.
        """
        home = home_of(self._root, spec.task, spec.lease_epoch)
        done = await asyncio.to_thread(read_record, home)
        if done is not None:
            await hand_over(done, self._account)  # it may be from a time without that account
            return done
        await asyncio.to_thread(remove_home, home)  # without its record it was never given to an agent
        workspace = Workspace(
            path=home / "tree",
            task=spec.task,
            lease_epoch=spec.lease_epoch,
            branch=assignment_branch(spec.task, spec.lease_epoch),
            check=spec.check is not None,
            agent=agent,
        )
        self._preparing.add(home)
        try:
            await asyncio.to_thread(make_home, workspace, self._account)
            if spec.repo is not None:
                repo = replace(spec.repo, url=self._urls.get(spec.repo.name, spec.repo.url))
                workspace = await self._clone(replace(workspace, repo=repo), repo, spec.start, spec.check)
                workspace = await self._offer(workspace, repo, spec.salvage)
            await hand_over(workspace, self._account)
            await asyncio.to_thread(write_record, workspace)
        except UnsafeNameError as fault:
            raise WorkspaceError(fault.code, str(fault), retryable=False) from fault
        finally:
            self._preparing.discard(home)
        return workspace

    async def find(self, task: TaskId, lease_epoch: LeaseEpoch) -> Workspace | None:
        """The complete workspace of a lease, as an earlier process may have left it."""
        return await asyncio.to_thread(read_record, home_of(self._root, task, lease_epoch))

    async def all(self) -> tuple[Workspace, ...]:
        """Every complete workspace on disk."""
        return await asyncio.to_thread(list_records, self._root)

    def agent_env(self, workspace: Workspace) -> dict[str, str]:
        """What the agent's environment gets: who commits, for which lease, and a git that never waits for a person."""
        return {
            **self._identity_env,
            "AGENTCOM_TASK": task_ref(workspace.task),
            "AGENTCOM_LEASE_EPOCH": str(workspace.lease_epoch),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_EDITOR": "true",
            **({} if self._account is None else {"TMPDIR": str(workspace.temporary)}),
        }

    async def inspect(self, workspace: Workspace) -> WorkState | None:
        """What the agent has done so far; None without a repository. Codes: those of an untrusted clone, ``git_failed``."""
        if workspace.repo is None:
            return None
        cache = await self._cache(workspace.repo.url)
        head = await self._take_head(workspace, cache)
        base = workspace.base_sha
        dirty = (await self._work_tree(workspace, cache).leftovers(head)).paths
        return WorkState(
            head_sha=head,
            commits=() if head is None else await cache.commits(base, head),
            advanced=head != workspace.start_sha,
            contains_base=base is None or (head is not None and await cache.contains(head, base)),
            dirty=dirty[:DIRTY_LIMIT],
            dirty_count=len(dirty),
            patch=b"" if head is None else await cache.patch(base, head),
        )

    async def push(self, workspace: Workspace, head_sha: str) -> None:
        """Push ``head_sha`` as the lease's branch. Idempotent.

        Codes: ``rejected``, ``push_failed``, ``remote_unreachable``, ``auth_failed``, and those of an untrusted clone.
        """
        cache = await self._cache_of(workspace)
        await self._absorb(workspace, cache, head_sha)
        await cache.push(head_sha, workspace.branch)
        await cache.point(workspace.lease_ref("pushed"), head_sha)

    async def salvage(self, workspace: Workspace, *, commits: bool = False) -> str | None:
        """Commit what was left uncommitted to a local ref that outlives the workspace; the ref, or None if there is nothing.

        ``commits`` also keeps commits that were not pushed, even when nothing is uncommitted. If the agent's repository
        cannot be read, its files are kept as seen from where it started. Doing it again changes nothing.
        """
        if workspace.repo is None:
            return None
        cache = await self._cache(workspace.repo.url)
        try:
            head = await self._take_head(workspace, cache)
        except WorkspaceError as fault:
            if fault.code not in _UNTRUSTED:
                raise
            head = workspace.start_sha
        tree = self._work_tree(workspace, cache)
        found = await tree.leftovers(head)
        kept = await tree.commit(found, head, _salvage_message(workspace, found), self._identity_env)
        if kept is not None and tree.objects is not None:
            await cache.absorb(tree.objects, kept, () if head is None else (head,), fsck=False)
        pushed = await cache.resolve(workspace.lease_ref("pushed"))
        if kept is None and commits and head not in {workspace.start_sha, pushed}:
            kept = head
        if kept is None:
            return None
        ref = f"refs/agentcom/salvage/{task_ref(workspace.task)}/{workspace.lease_epoch}"
        before = await cache.resolve(ref)
        if before is None or await cache.shape(before) != await cache.shape(kept):
            await cache.point(ref, kept)
        return ref

    async def push_salvage(self, workspace: Workspace, ref: str) -> str:
        """Offer a salvage ref on the remote; returns the name of its branch. Idempotent."""
        cache = await self._cache_of(workspace)
        sha = await cache.resolve(check_ref_name(ref))
        if sha is None:
            raise WorkspaceError("salvage_missing", f"there is no {ref}", retryable=False)
        branch = salvage_branch(workspace.task, workspace.lease_epoch)
        await cache.push(sha, branch, force=True)
        return branch

    async def release(self, workspace: Workspace) -> None:
        """Remove the workspace and its pin.

        Unpushed and uncommitted work is salvaged first (a check has none worth keeping); if that fails nothing is removed.
        Idempotent, also after a removal that was cut short.
        """
        complete = await asyncio.to_thread(read_record, workspace.home) is not None
        if complete and not workspace.check:
            await self.salvage(workspace, commits=True)
        await asyncio.to_thread(remove_home, workspace.home)
        if workspace.repo is not None:
            cache = await self._cache(workspace.repo.url)
            await cache.drop_under(workspace.lease_ref())
            await cache.tidy(lambda: self._is_borrowed(cache))

    async def _clone(self, workspace: Workspace, repo: RepoRef, rework: StartPoint | None, check: CheckJob | None) -> Workspace:
        cache = await self._cache(repo.url)
        if check is not None:
            start: str | None = await fetch_check(cache, workspace, check)
            base = await cache.resolve(f"{start}^1")
        else:
            base = await fetch_base(cache, workspace, repo)
            start = await fetch_start(cache, workspace, rework) if rework is not None else base
        workspace = replace(workspace, base_sha=base)
        await check_out(self._git, workspace, repo, cache.objects, start)
        await configure(self._git, workspace, self._clone_settings())
        conflict = False
        if rework is not None and base is not None:
            conflict = await merge_base(self._git, workspace, repo, base, self._identity_env)
        if start is not None:
            start = await self._git.text(workspace.path / ".git", "rev-parse", "HEAD")
            await self._absorb(workspace, cache, start)  # a merge was made in the clone
            await cache.point(workspace.lease_ref("start"), start)
            await keep_index(workspace)
        return replace(workspace, start_sha=start, conflict=conflict)

    async def _offer(self, workspace: Workspace, repo: RepoRef, offers: Sequence[Salvaged]) -> Workspace:
        found = await fetch_offers(await self._cache(repo.url), workspace, offers)
        await show_offers(self._git, workspace, found)
        return replace(workspace, offered=tuple(found))

    def _clone_settings(self) -> tuple[tuple[str, str], ...]:
        """Identity for tools that drop the environment; no signing (it asks for a passphrase), no background collection."""
        return (
            ("user.name", self._identity.name),
            ("user.email", self._identity.email),
            ("commit.gpgSign", "false"),
            ("tag.gpgSign", "false"),
            ("gc.auto", "0"),
        )

    async def _cache(self, url: str) -> GitCache:
        if url not in self._caches:
            self._caches[url] = GitCache(self._root / "repos", url, self._git, self._reader)
        cache = self._caches[url]
        await cache.open()
        return cache

    async def _cache_of(self, workspace: Workspace) -> GitCache:
        if workspace.repo is None:
            raise WorkspaceError("no_repository", f"{task_ref(workspace.task)} has no repository", retryable=False)
        return await self._cache(workspace.repo.url)

    async def _is_borrowed(self, cache: GitCache) -> bool:
        try:
            urls = {workspace.repo.url for workspace in await self.all() if workspace.repo is not None}
        except WorkspaceError:  # an unreadable record may be a borrower's
            return True
        return bool(self._preparing) or cache.url in urls

    def _work_tree(self, workspace: Workspace, cache: GitCache) -> WorkTree:
        objects = None if self._account is None else workspace.view / "objects"
        return WorkTree(git=self._reader, cache=cache, tree=workspace.path, index=workspace.view / "index", objects=objects)

    async def _take_head(self, workspace: Workspace, cache: GitCache) -> str | None:
        await asyncio.to_thread(check_tree, workspace.path)
        head = await asyncio.to_thread(read_head, workspace.path)
        if head is not None:
            await self._absorb(workspace, cache, head)
            await cache.check_extent(head)
        elif workspace.start_sha is not None:
            raise WorkspaceError("head_unreadable", "HEAD names a branch without commits", retryable=True)
        return head

    async def _absorb(self, workspace: Workspace, cache: GitCache, head: str) -> None:
        if await cache.resolve(head) != head:
            objects = await asyncio.to_thread(check_objects, workspace.path, cache.objects)
            known = tuple({sha for sha in (workspace.base_sha, workspace.start_sha) if sha is not None})
            await cache.absorb(objects, head, known)


def _salvage_message(workspace: Workspace, found: Leftovers) -> str:
    left_out = "".join(f"Left out, a repository of its own: {os.fsdecode(path)!r}\n" for path in found.embedded[:32])
    lease = trailers(workspace.task, workspace.lease_epoch)
    return f"Salvage uncommitted work of {task_ref(workspace.task)}\n\n{left_out}{left_out and chr(10)}{lease}\n"
