"""What ``doctor --fix`` does: close a token file, stop and remove what no journal knows. It never acts on what it could not read."""

from __future__ import annotations

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
    for file in sorted(file for file in files if file is not None and file.is_file()):
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            file.chmod(0o600)
            done.append(f"closed {file} to others")
    return done


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
