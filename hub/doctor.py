"""The doctor's part of the composition root: which rooms examine a running hub, and which can be examined without one."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path

from hub.core.finding import Finding, warn
from hub.edge.doctor import close_permissions, examine_permissions
from hub.forge.doctor import examine_git
from hub.forge.git import Git
from hub.forge.local import LocalForge
from hub.services.doctor import Doctor
from hub.services.leftovers import Leftovers
from hub.store.doctor import examine_files, examine_store, is_in_use
from hub.store.sqlite import SqliteStore


def open_doctor(data_dir: Path, store: SqliteStore, forge: LocalForge) -> Doctor:
    """For a running hub."""
    leftovers = Leftovers(store.reader, {"local": forge})

    async def permissions() -> list[Finding]:
        return examine_permissions(data_dir)

    async def close() -> None:
        close_permissions(data_dir)

    return Doctor(
        {
            "store": partial(examine_store, store),
            "permissions": permissions,
            "git": partial(examine_git, forge.git),
            "leftovers": leftovers.examine,
        },
        menders=(close, leftovers.mend),
    )


def examine_offline(data_dir: Path, *, fix: bool) -> list[Finding]:
    """For a hub that does not run: what its directory and this machine tell. ``fix`` closes permissions, and nothing else."""
    found = []
    if is_in_use(data_dir):
        cure = "name its address with --url or AGENTCOM_URL; if it is the right one, look at its log, and restart it"
        found.append(warn("process", f"a hub has {data_dir} in use, but does not answer", cure))
    elif fix:
        close_permissions(data_dir)
    found += [*examine_permissions(data_dir), *examine_files(data_dir)]
    return found + asyncio.run(examine_git(Git(environ=os.environ)))
