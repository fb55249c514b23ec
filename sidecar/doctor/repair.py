"""What ``doctor --fix`` does: close a token file, stop and remove what no journal knows. It never acts on what it could not read."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from sidecar.app import StateInUseError, own_state, workspaces_of
from sidecar.doctor.state import Inventory, take_inventory
from sidecar.runs.runner import Runner
from sidecar.settings import Settings, SettingsError
from sidecar.workspace.git import WorkspaceError


def close_tokens(settings: Settings) -> list[str]:
    """Make token files their owner's alone; what was done, in words."""
    files = {agent.token_file or settings.token_file for agent in settings.agents}
    done = []
    for file in sorted(file for file in files if file is not None and is_open_token(file)):
        with contextlib.suppress(OSError):  # gone, or another's: the examination says so
            handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if _is_open(os.fstat(handle)):
                    os.fchmod(handle, 0o600)
                    done.append(f"closed {file} to others")
            finally:
                os.close(handle)
    return done


def is_open_token(file: Path) -> bool:
    """Whether :func:`close_tokens` would close it: a file of this user's own, by its one name, that others can get at."""
    try:
        return _is_open(file.lstat())
    except OSError:
        return False


def _is_open(found: os.stat_result) -> bool:
    mine = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
    return mine and bool(stat.S_IMODE(found.st_mode) & 0o077)


async def remove_left_overs(settings: Settings) -> list[str]:
    """Remove runs and workspaces that no journal knows; what was done, in words.

    Done while no sidecar can start, from an inventory taken under that lock; with anything unreadable in it nothing is
    removed. Uncommitted and unpushed work of a workspace is salvaged first, and one whose work cannot be stays.
    """
    try:
        with own_state(settings.state_dir):
            return await _remove(settings, take_inventory(settings.state_dir))
    except (StateInUseError, SettingsError) as fault:
        return [f"nothing was removed: {fault}"]


async def _remove(settings: Settings, found: Inventory) -> list[str]:
    if found.unreadable:
        return ["nothing was removed: a journal cannot be read"]
    done = []
    for root in sorted({run.parent for run in found.runs}):
        mine = {run.name for run in root.iterdir()} - {run.name for run in found.runs}
        done += [f"stopped and removed the run {root.parent.name}/{name}" for name in await Runner(root).stop_strangers(mine)]
    workspaces = workspaces_of(settings)
    for workspace in found.workspaces:
        try:
            await workspaces.release(workspace)
        except (WorkspaceError, OSError, RecursionError) as fault:
            done.append(f"kept {workspace.home}: {fault}")
        else:
            done.append(f"removed the workspace {Path(workspace.home).name}")
    return done
