"""Backups of the running hub: make one, list them, have one checked. To go back to one the hub must be stopped."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, Field

from hub.edge.http.access import ADMINS, Admin, Hub
from hub.edge.http.fields import Moment, Out, matching
from hub.edge.http.reading import JsonRoute
from hub.ids import BackupReason
from hub.store.backups import NAME, Backup, account_of

router = APIRouter(prefix="/backups", tags=["backups"], route_class=JsonRoute)

BackupRef = Annotated[
    str,
    Field(description="the moment it was begun", examples=["20270115T080000Z"]),
    AfterValidator(matching(NAME, "a backup's name is the moment it was begun, like 20270115T080000Z")),
]


class BackupOut(Out):
    """A backup in the hub's own directory. What has a ``fault`` is none, and what is not known of it is null.

    ``last_event`` and ``last_task`` are the newest it holds, ``tasks`` counts its tasks by state. ``holds_key``: whoever has it has
    the hub's key.
    """

    name: str
    path: str
    fault: str | None
    reason: BackupReason | None = None
    created_at: Moment | None = None
    verified_at: Moment | None = None
    bytes: int | None = None
    schema_version: int | None = None
    version: str | None = None
    hub_epoch: int | None = None
    last_event: int | None = None
    last_task: int | None = None
    tasks: dict[str, int] | None = None
    holds_key: bool = False


class BackupList(Out):
    """Newest first."""

    backups: list[BackupOut]


@router.get("", dependencies=[ADMINS])
async def listing(hub: Hub) -> BackupList:
    """What is in the directory of backups, also what looks like a backup and is none."""
    return BackupList(backups=[_out(backup) for backup in await hub.backups.every()])


@router.post("", status_code=201)
async def create(caller: Admin, hub: Hub) -> BackupOut:
    """Make one now, verified before it is named; the answer comes when it is there. Work goes on meanwhile."""
    return _out(await hub.backups.create(BackupReason.ASKED, caller.name))


@router.post("/{backup}/verify")
async def verify(backup: BackupRef, caller: Admin, hub: Hub) -> BackupOut:
    """Compare its files with their digests, open it, check it in full; ``fault`` says what is wrong with it."""
    return _out(await hub.backups.verify(backup, caller.name))


def _out(backup: Backup) -> BackupOut:
    return BackupOut.model_validate(account_of(backup))
