"""Salvaged work: list, show, apply, drop. Applying is a result under a new fence; what comes of a change is the gatekeeper's."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, Field

from hub.core.errors import Refused
from hub.edge.http.access import READS, Hub, Operator
from hub.edge.http.fields import Body, Filters, SomeNote, TaskRef
from hub.edge.http.reading import JsonRoute
from hub.edge.http.salvage_documents import SalvageDetail, SalvageOut, SalvagePage
from hub.edge.http.task_commands import LATER
from hub.edge.http.task_documents import TaskAnswerOut
from hub.ids import LeaseEpoch, salvage_ref
from hub.store import salvage

router = APIRouter(prefix="/salvage", tags=["salvage"], route_class=JsonRoute)

Lease = Annotated[LeaseEpoch, Path(ge=0, le=2**62)]


def _cursor(text: str) -> str:
    salvage.read_cursor(text)
    return text


class SalvageFilters(Filters):
    """Which records, and which page of them. ``open``: only what waits for a decision and whose task is not done."""

    task: TaskRef | None = None
    open: bool = False
    cursor: Annotated[str, Field(max_length=128), AfterValidator(_cursor)] | None = None
    limit: int = Field(default=50, ge=1, le=200)


class ApplyBody(Body):
    """``force``: stop the attempt that is running first."""

    force: bool = False


class DropBody(Body):
    """Why nobody needs it."""

    reason: SomeNote


@router.get("", dependencies=[READS])
async def listing(hub: Hub, asked: Annotated[SalvageFilters, Query()]) -> SalvagePage:
    """Work that was not applied, newest task first."""
    before = salvage.FIRST_PAGE if asked.cursor is None else salvage.read_cursor(asked.cursor)
    found, following = await salvage.page(hub.reader, task=asked.task, undecided=asked.open, before=before, limit=asked.limit)
    return SalvagePage(salvage=[SalvageOut.model_validate(entry) for entry in found], next=following)


@router.get("/{task}/{lease_epoch}", dependencies=[READS])
async def show(task: TaskRef, lease_epoch: Lease, hub: Hub) -> SalvageDetail:
    """What was kept of one lease, what its commits change, and who was told of it."""
    kept = await salvage.find(hub.reader, task, lease_epoch)
    if kept is None:
        name = salvage_ref(task, lease_epoch)
        raise Refused(404, "unknown_salvage", f"nothing is kept of {name}", hint="agentcom salvage list")
    return SalvageDetail.of(kept, await hub.salvage.look(kept), *await salvage.told(hub.reader, kept))


@router.post("/{task}/{lease_epoch}/apply", responses=LATER)
async def apply(
    task: TaskRef, lease_epoch: Lease, caller: Operator, hub: Hub, response: Response, body: ApplyBody | None = None
) -> TaskAnswerOut:
    """Adopt it: commits go to review under a new fence, the output of a task that needs no commits ends it."""
    force = body is not None and body.force
    done = await hub.salvage.apply(task, lease_epoch, by=caller.name, force=force)
    response.status_code = 202 if done.pending else 200
    return TaskAnswerOut.model_validate(done)


@router.post("/{task}/{lease_epoch}/drop")
async def drop(task: TaskRef, lease_epoch: Lease, body: DropBody, caller: Operator, hub: Hub) -> SalvageDetail:
    """Close the record: the next attempt is not told of it. Its branch stays where it is."""
    await hub.salvage.drop(task, lease_epoch, by=caller.name, reason=body.reason)
    return await show(task, lease_epoch, hub)
