"""Who may go where in a sidecar's directories. What is no coroutine blocks: call it from a thread.

Without an account of its own the agent is the sidecar's user, and everything is closed to others. With one::

    <state>/                 0710 root:agents   entered, not listed; files in it 0600
      agents/                0700 root          journals, runs, the sockets of shims
      workspaces/            0710 root:agents
        repos/               0750 root:agents   caches: read by the agents' git, written by ours
        work/                0710 root:agents
          t-<n>-<epoch>/     0710 root:agents   record and prompts
            tree/ tmp/ view/ 0700 agents        what the agent owns

A tree is made by git as root, before anybody else has seen it, and stays closed until the last of it is handed over.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sidecar.runs.account import Account
from sidecar.runs.process import run
from sidecar.workspace.git import WorkspaceError
from sidecar.workspace.workdir import Workspace

ENTERED, READ, CLOSED = 0o710, 0o750, 0o700
HAND_OVER_S = 120.0


def open_premises(state_dir: Path, account: Account) -> None:
    """Let the account in as far as it needs to go, and no other."""
    for place, mode in (
        (state_dir, ENTERED),
        (state_dir / "agents", CLOSED),
        (state_dir / "workspaces", ENTERED),
        (state_dir / "workspaces" / "repos", READ),
        (state_dir / "workspaces" / "work", ENTERED),
    ):
        place.mkdir(mode=CLOSED, parents=True, exist_ok=True)
        if mode is not CLOSED:
            os.chown(place, os.geteuid(), account.gid)
        place.chmod(mode)
    for entry in os.scandir(state_dir):
        if entry.is_file(follow_symlinks=False):
            Path(entry).chmod(0o600)


def make_home(workspace: Workspace, account: Account | None) -> None:
    """The directories of a new workspace. Nobody else can enter the tree yet."""
    workspace.home.mkdir(mode=CLOSED, parents=True)
    for place in (workspace.path, workspace.temporary, workspace.view, workspace.view / "objects"):
        place.mkdir(mode=CLOSED)
    if account is not None:
        os.chown(workspace.home, os.geteuid(), account.gid)
        workspace.home.chmod(ENTERED)


async def hand_over(workspace: Workspace, account: Account | None) -> None:
    """Make what the agent works with its own; doing it again costs one look. Raises ``not_handed_over``."""
    if account is None or not await asyncio.to_thread(_is_anothers, workspace, account):
        return
    # chown follows no link, however deep and wide the tree is, and changes the top last: until then nobody can come in.
    whose = f"{account.uid}:{account.gid}"
    argv = ("chown", "-R", "-h", "-P", whose, "--", *map(str, (workspace.view, workspace.temporary, workspace.path)))
    done = await run(argv, env={"PATH": os.environ.get("PATH", os.defpath)}, timeout_s=HAND_OVER_S)
    if done.returncode != 0:
        words = done.errors.decode(errors="replace").strip()[-500:]
        raise WorkspaceError("not_handed_over", f"{workspace.path} cannot be made {account.name}'s: {words}", retryable=True)


def _is_anothers(workspace: Workspace, account: Account) -> bool:
    if workspace.path.lstat().st_uid == account.uid:
        return False
    for place in (workspace.view, workspace.temporary, workspace.path):
        place.mkdir(mode=CLOSED, exist_ok=True)
        place.chmod(CLOSED)
    return True
