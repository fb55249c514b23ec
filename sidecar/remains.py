"""Workspaces that earlier processes left behind: which of them nobody needs any more, and their removal."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path

import structlog

from sidecar.core.records import Key
from sidecar.journal import read_journals
from sidecar.workspace.git import WorkspaceError
from sidecar.workspace.workdir import is_orphan, remove_home
from sidecar.workspace.workspaces import Workspaces

log = structlog.get_logger(__name__)


def set_aside(work: Path) -> list[Path]:
    """Rename the workspaces without a record, which nobody ever worked in, and return all that wait to be removed."""
    homes = sorted(work.iterdir()) if work.is_dir() else []
    for home in homes:
        if not home.name.startswith(".") and not any(home.glob("*.json")):
            with contextlib.suppress(OSError):
                home.rename(work / f".{uuid.uuid4().hex}")
    return sorted(work.glob(".*"))


async def remove(left_over: list[Path]) -> None:
    """Remove what was set aside; what cannot be is tried again by the next start."""
    for home in left_over:
        try:
            await asyncio.to_thread(remove_home, home)
        except (WorkspaceError, OSError, RecursionError) as fault:
            log.warning("workspace_stays", home=home.name, reason=str(fault))


async def release_strangers(workspaces: Workspaces, agents: Path, holds: Callable[[Key], bool]) -> None:
    """Release workspaces no journal beneath ``agents`` knows: their assignments were settled when the last process ended.

    These are the journals of all agents, also of one that is not configured any more and runs on under its shim; while one
    cannot be read, or is missing, nobody knows what it holds. ``holds``: what this process's agents have taken since.
    """
    try:
        found = await workspaces.all()  # before the journals: what is in this list was written down first
        held, faults = await asyncio.to_thread(read_journals, agents)
    except (WorkspaceError, OSError, RecursionError) as fault:
        log.warning("workspaces_stay", reason=str(fault))
        return
    if faults:
        log.warning("workspaces_stay", reason="; ".join(faults)[:1000])
        return
    known = frozenset[Key]().union(*held.values())
    for workspace in found:
        key = Key(workspace.task, workspace.lease_epoch)
        if key in known or holds(key):
            continue
        if is_orphan(workspace, held):
            log.warning("workspace_stays", task=key.task, reason=f"it is the work of {workspace.agent}, which has no journal")
            continue
        try:
            await workspaces.release(workspace)
        except (WorkspaceError, OSError, RecursionError) as fault:
            log.warning("workspace_stays", task=key.task, reason=str(fault))
