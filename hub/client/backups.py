"""Backups over HTTP: make one, list them, have one checked."""

from __future__ import annotations

from typing import TypedDict

from hub.client.transport import Transport, part

TIMEOUT_S = 3600.0
"""A large store takes its time, and the answer comes when the copy is verified."""


class Backup(TypedDict):
    """A backup in the hub's own directory. One with a ``fault`` is none; what is not known of it is None.

    ``holds_key``: whoever has it has the hub's key.
    """

    name: str
    path: str
    fault: str | None
    reason: str | None
    created_at: str | None
    verified_at: str | None
    bytes: int | None
    schema_version: int | None
    version: str | None
    hub_epoch: int | None
    last_event: int | None
    last_task: int | None
    tasks: dict[str, int] | None
    holds_key: bool


class BackupList(TypedDict):
    """Newest first."""

    backups: list[Backup]


class BackupApi(Transport):
    """Make, list and verify backups of a running hub; an administrator's. Going back to one needs no hub: ``agentcom backup restore``."""

    async def backups(self) -> BackupList:
        """What is in the directory of backups."""
        return await self.ask(BackupList, "GET", "/backups")

    async def create_backup(self) -> Backup:
        """Make one now; returns when it is verified."""
        return await self.ask(Backup, "POST", "/backups", timeout_s=TIMEOUT_S)

    async def verify_backup(self, backup: str) -> Backup:
        """Open one and check it in full; ``fault`` says what is wrong with it."""
        return await self.ask(Backup, "POST", f"/backups/{part(backup)}/verify", timeout_s=TIMEOUT_S)
