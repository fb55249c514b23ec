"""Who may go where in a sidecar's directories. What is no coroutine blocks: call it from a thread.

Without an account of its own the agent is the sidecar's user, and everything is closed to others. With one::

    <state>/                 0710 root:agents   entered, not listed; our files in it 0600
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
import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sidecar.files import make_directory
from sidecar.runs.account import Account
from sidecar.runs.process import run
from sidecar.workspace.git import WorkspaceError
from sidecar.workspace.workdir import Workspace

ENTERED, READ, CLOSED = 0o710, 0o750, 0o700
HAND_OVER_S = 120.0
OWN_FILES = frozenset({"lock", "install_id", "token", "secret", "join.json", "join.lock", "join.log"})
"""What a sidecar, and joining, keep in the state directory itself."""
BEFORE_INSTALLED = frozenset({"lock", "join.lock", "join.log"})
"""Of these, what may be there before the installation has an id."""
NAMED = 5
"""How many strange things a fault names."""


def state_faults(state_dir: Path) -> list[str]:
    """Why a directory cannot be this process's state directory; reading changes nothing and follows no link in it.

    What another user made, or could still write into, says what git and the journals do: root must never take it over.
    A directory that holds other things than a sidecar's would lose them.
    """
    if not os.path.lexists(state_dir):
        return []
    faults = [fault for place in _premises(state_dir) if (fault := _foreign(place, state_dir))]
    names = {path.name for path in state_dir.iterdir()} if not faults else set()
    strange = sorted(name for name in names - BEFORE_INSTALLED if not (name.startswith(".") and name.endswith(".new")))
    if strange and "install_id" not in names:
        faults.append(f"it has no install_id, and holds {', '.join(strange[:NAMED])}: name an empty directory, or a new one")
    return faults[:NAMED]


def _premises(state_dir: Path) -> Iterator[Path]:
    """The directory and everything in it that trust is put in by its place; what an agent owns lies deeper."""
    yield state_dir
    for place in (
        state_dir,
        *(
            state_dir / "agents",
            state_dir / "workspaces",
            state_dir / "workspaces" / "repos",
            state_dir / "workspaces" / "work",
        ),
    ):
        if place.is_dir() and not place.is_symlink():
            yield from place.iterdir()
    yield from (state_dir / "agents").glob("*/*")


def _foreign(place: Path, state_dir: Path) -> str | None:
    whole = place == state_dir
    name = "it" if whole else str(place.relative_to(state_dir))
    with contextlib.suppress(FileNotFoundError):  # gone since it was listed
        looks = (
            [place.lstat(), place.stat()] if whole else [place.lstat()]
        )  # the directory itself may be named by a link of ours
        if others := {look.st_uid for look in looks} - {os.geteuid()}:
            return f"{name} was another user's (uid {others.pop()}): name another state_dir"
        found = looks[-1]
        if stat.S_ISLNK(found.st_mode):
            return f"{name} is a link: name another state_dir"
        if os.geteuid() == 0 and (found.st_mode & 0o002 or (found.st_mode & 0o020 and found.st_gid != os.getegid())):
            return f"others may write to {name}: name another state_dir"
    return None


def open_premises(state_dir: Path, account: Account) -> None:
    """Let the account in as far as it needs to go, and no other."""
    for place, mode in (
        (state_dir, ENTERED),
        (state_dir / "agents", CLOSED),
        (state_dir / "workspaces", ENTERED),
        (state_dir / "workspaces" / "repos", READ),
        (state_dir / "workspaces" / "work", ENTERED),
    ):
        make_directory(place, CLOSED)
        if mode is not CLOSED:
            os.chown(place, os.geteuid(), account.gid)
        place.chmod(mode)
    for name in OWN_FILES:
        file = state_dir / name
        if file.is_file() and not file.is_symlink():
            file.chmod(0o600)


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
