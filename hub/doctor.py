"""The doctor's part of the composition root: which rooms examine a running hub, and which can be examined without one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from hub.core.agent import Agent
from hub.edge.doctor import close_permissions, examine_certificate, examine_permissions
from hub.forge.doctor import examine_git
from hub.forge.git import Git
from hub.forge.local import LocalForge
from hub.services.doctor import Doctor, judge_agents
from hub.services.leftovers import Leftovers
from hub.settings import HubSettings
from hub.settings.tree import Listen
from hub.store.doctor import examine_files, examine_store, is_in_use
from hub.store.sqlite import SqliteStore
from hub.upkeep import Upkeep
from hub.wire.finding import Finding, warn


def open_doctor(
    settings: HubSettings,
    store: SqliteStore,
    forge: LocalForge,
    upkeep: Upkeep,
    quarantined: Callable[[], Sequence[Agent]],
) -> Doctor:
    """For a running hub."""
    data_dir = settings.data_dir
    leftovers = Leftovers(store.reader, {"local": forge})

    async def permissions() -> list[Finding]:
        return examine_permissions(data_dir)

    async def certificate() -> list[Finding]:
        return _certificate(settings.listen)

    async def agents() -> list[Finding]:
        return [judge_agents(quarantined())]

    async def close() -> None:
        close_permissions(data_dir)

    return Doctor(
        {
            "store": partial(examine_store, store),
            "keeping": upkeep.keeper.examine,
            "integrity": upkeep.integrity.examine,
            "backups": upkeep.backups.examine,
            "chores": upkeep.chores.examine,
            "permissions": permissions,
            "certificate": certificate,
            "git": partial(examine_git, forge.git),
            "leftovers": leftovers.examine,
            "agents": agents,
        },
        menders=(close, leftovers.mend),
    )


def examine_offline(settings: HubSettings, *, fix: bool) -> list[Finding]:
    """For a hub that does not run: what its directory and this machine tell. ``fix`` closes permissions, and nothing else."""
    data_dir, found = settings.data_dir, []
    if is_in_use(data_dir):
        cure = "name its address with --url or AGENTCOM_URL; if it is the right one, look at its log, and restart it"
        found.append(warn("process", f"a hub has {data_dir} in use, but does not answer", cure))
    elif fix:
        close_permissions(data_dir)
    found += [*examine_permissions(data_dir), *_certificate(settings.listen), *examine_files(data_dir)]
    return found + asyncio.run(examine_git(Git(environ=os.environ)))


def _certificate(listen: Listen) -> list[Finding]:
    if listen.tls_cert is None or listen.tls_key is None:
        return []
    return examine_certificate(listen.tls_cert, listen.tls_key, datetime.now(UTC))
