"""Make a fresh clone: fetch what it starts from, check it out, merge the base into a rework.

It is the last moment in which git may run inside the clone, because no agent has seen it yet.

The clone borrows the cache's objects and has no remote: an agent commits, the sidecar pushes. It has no template either, so
there are no hooks but those the agent may add for itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from hub.ids import LeaseEpoch
from hub.wire.git import UnsafeNameError, check_branch_name, check_ref_name
from hub.wire.spec import CheckJob, RepoRef, Salvaged, StartPoint
from sidecar.workspace.git import Git, WorkspaceError
from sidecar.workspace.gitcache import GitCache
from sidecar.workspace.workdir import Workspace, offer_ref

log = structlog.get_logger(__name__)


async def fetch_base(cache: GitCache, workspace: Workspace, repo: RepoRef) -> str | None:
    """The base branch as it is now, pinned for this lease; None in an empty repository."""
    source = f"refs/heads/{check_branch_name(repo.base)}"
    # Named by hash: the branches a and a/b of different times cannot both be refs.
    latest = f"refs/agentcom/base/{hashlib.sha256(repo.base.encode()).hexdigest()[:16]}"
    try:
        return await cache.fetch(source, workspace.lease_ref("pin"), keep=latest)
    except WorkspaceError as fault:
        raise _missing(fault, "base_missing", f"the repository has no branch {repo.base}") from None


async def fetch_start(cache: GitCache, workspace: Workspace, rework: StartPoint) -> str:
    """The previous head, pinned; the cache may still have it when its branch is gone."""
    ref = workspace.lease_ref("start")
    try:
        await cache.fetch(f"refs/heads/{check_branch_name(rework.branch)}", ref)
    except WorkspaceError as fault:
        if fault.code != "ref_missing":
            raise
    if await cache.resolve(rework.head_sha) != rework.head_sha:
        raise WorkspaceError("start_missing", f"{rework.head_sha} is not on {rework.branch} any more", retryable=False)
    await cache.point(ref, rework.head_sha)
    return rework.head_sha


async def fetch_offers(cache: GitCache, workspace: Workspace, offers: Sequence[Salvaged]) -> dict[LeaseEpoch, str]:
    """Salvaged work of earlier leases that the remote still has, pinned; {lease: commit}. What is gone or moved is left out.

    It is an offer: whatever goes wrong with it keeps nobody from the work.
    """
    found: dict[LeaseEpoch, str] = {}
    for offer in offers:
        if offer.branch is None:
            continue
        ref = workspace.lease_ref("offer", str(offer.lease_epoch))
        try:
            tip = await cache.fetch(f"refs/heads/{check_branch_name(offer.branch)}", ref)
            head = offer.head_sha or tip
            if head is not None and await cache.resolve(head) == head:
                await cache.point(ref, head)
                found[offer.lease_epoch] = head
        except (WorkspaceError, UnsafeNameError) as fault:
            log.info("salvage_not_offered", ref=offer.branch, code=fault.code, reason=str(fault))
    return found


async def fetch_check(cache: GitCache, workspace: Workspace, check: CheckJob) -> str:
    """Exactly the commit to check, pinned; another one under that name is refused."""
    source = check_ref_name(check.ref) if check.ref.startswith("refs/") else f"refs/heads/{check_branch_name(check.ref)}"
    try:
        found = await cache.fetch(source, workspace.lease_ref("pin"))
    except WorkspaceError as fault:
        raise _missing(fault, "check_missing", f"there is no {check.ref}") from None
    if found != check.sha:
        raise WorkspaceError("check_moved", f"{check.ref} is not {check.sha} any more", retryable=False)
    return check.sha


async def check_out(git: Git, workspace: Workspace, repo: RepoRef, borrowed: Path, start: str | None) -> None:
    """Create the clone on its branch (a check: detached) at ``start``; None leaves the branch unborn."""
    tree, git_dir = workspace.path, workspace.path / ".git"
    await git.run(git_dir, "init", "-q", "--template=", f"--initial-branch={workspace.branch}", work_tree=tree)
    await asyncio.to_thread((git_dir / "objects" / "info" / "alternates").write_bytes, os.fsencode(borrowed) + b"\n")
    for ref, sha in (
        (f"refs/remotes/origin/{repo.base}", workspace.base_sha),
        ("HEAD" if workspace.check else f"refs/heads/{workspace.branch}", start),
    ):
        if sha is not None:
            await git.run(git_dir, "update-ref", "--no-deref", ref, sha)
    if start is not None:
        await git.run(git_dir, "reset", "-q", "--hard", work_tree=tree)


async def show_offers(git: Git, workspace: Workspace, offers: Mapping[LeaseEpoch, str]) -> None:
    """Name them in the clone; what the agent does with these refs reaches nobody."""
    for lease_epoch, sha in offers.items():
        await git.run(workspace.path / ".git", "update-ref", offer_ref(workspace.task, lease_epoch), sha)


async def configure(git: Git, workspace: Workspace, settings: Sequence[tuple[str, str]]) -> None:
    """Write the clone's own configuration."""
    for key, value in settings:
        await git.run(workspace.path / ".git", "config", key, value)


async def merge_base(git: Git, workspace: Workspace, repo: RepoRef, base: str, identity: Mapping[str, str]) -> bool:
    """Merge the current base into a rework's head; True if that left a conflict in the tree, which is part of the task."""
    git_dir = workspace.path / ".git"
    message = f"Merge branch '{repo.base}' into {workspace.branch}"
    done = await git.run(
        git_dir, "merge", "-q", "--no-verify", "-m", message, base, work_tree=workspace.path, env=identity, ok=(0, 1, 2, 128)
    )
    if done.returncode == 0:
        return False
    if done.returncode == 1 and await asyncio.to_thread((git_dir / "MERGE_HEAD").exists):
        return True
    words = (done.output + done.errors).decode(errors="replace").strip()[-500:]
    raise WorkspaceError("merge_failed", f"the base cannot be merged into the previous work: {words}", retryable=False)


async def keep_index(workspace: Workspace) -> None:
    """Copy the fresh checkout's index to where the agent's git does not look: it knows which files need no reading."""
    await asyncio.to_thread(shutil.copyfile, workspace.path / ".git" / "index", workspace.view / "index")


def _missing(fault: WorkspaceError, code: str, message: str) -> WorkspaceError:
    return WorkspaceError(code, message, retryable=False) if fault.code == "ref_missing" else fault
