"""Changes: list, show, diff, approve, reject. An approval names the head that was seen, so it can never cover another one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BeforeValidator, Field
from starlette.responses import PlainTextResponse

from hub.core.errors import Refused
from hub.edge.auth import Identity
from hub.edge.http.access import READS, Hub, Review
from hub.edge.http.doors import Doors
from hub.edge.http.fields import Body, ChangeId_, ChangeRef, Filters, Moment, Name, Note, Out, Sha, SomeNote, TaskId_, words
from hub.edge.http.reading import JsonRoute
from hub.ids import ChangeId, ChangeState, LeaseEpoch, Scope, Tier, change_ref
from hub.store.changes import FIRST_PAGE, ChangeRecord, get_change, list_changes

router = APIRouter(prefix="/changes", tags=["changes"], route_class=JsonRoute)

StateWord = Annotated[ChangeState, BeforeValidator(words(ChangeState))]


class ChangeOut(Out):
    """A proposed merge: what it would bring, how risky it is and why, and where it stands.

    ``origin_epoch`` is the lease that made the work, where somebody adopted it under another one.
    """

    id: ChangeId_
    task: TaskId_
    lease_epoch: LeaseEpoch
    origin_epoch: LeaseEpoch | None
    repo: str
    state: ChangeState
    title: str
    tier: Tier | None
    reasons: list[str]
    cause: str | None
    labels: list[str]
    base: str
    branch: str
    base_sha: str
    head_sha: str
    stat: dict[str, Any]
    check_task: TaskId_ | None
    merged_sha: str | None
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, change: ChangeRecord) -> ChangeOut:
        """From its record."""
        return cls.model_validate(change)


class ReviewOut(Out):
    """One reviewer's word on one head."""

    reviewer: str
    head_sha: str
    verdict: str
    person: bool
    comment: str
    at: Moment


class ChangeDetail(ChangeOut):
    """A change with its text, commits and reviews (oldest first)."""

    body: str
    commits: list[dict[str, Any]]
    reviews: list[ReviewOut]


class ChangePage(Out):
    """Newest first. ``next`` is the cursor of the following page; a page can be short, the list ends when it is null."""

    changes: list[ChangeOut]
    next: str | None


class ApproveBody(Body):
    """What was seen. ``confirmed``: a person looked at exactly this; an operator's token approves only so."""

    head_sha: Sha
    comment: Note = ""
    confirmed: bool = False


class RejectBody(Body):
    """Why: the next attempt is told. ``final`` ends the task instead of sending it back."""

    reason: SomeNote
    final: bool = False


class ChangeFilters(Filters):
    """Which changes, and which page of them."""

    state: StateWord | None = None
    repo: Name | None = None
    cursor: int = Field(default=FIRST_PAGE, ge=1, le=FIRST_PAGE)
    limit: int = Field(default=50, ge=1, le=200)


@router.get("", dependencies=[READS])
async def listing(hub: Hub, asked: Annotated[ChangeFilters, Query()]) -> ChangePage:
    """Changes, newest first."""
    found, following = await list_changes(
        hub.reader, state=asked.state, repo=asked.repo, before=asked.cursor, limit=asked.limit
    )
    changes = [ChangeOut.of(change) for change in found]
    return ChangePage(changes=changes, next=None if following is None else str(following))


@router.get("/{change}", dependencies=[READS])
async def show(change: ChangeRef, hub: Hub) -> ChangeDetail:
    """One change with commits and reviews."""
    return ChangeDetail.model_validate(await _find(hub, change))


@router.get("/{change}/diff", dependencies=[READS], response_class=PlainTextResponse)
async def diff(change: ChangeRef, hub: Hub) -> PlainTextResponse:
    """The change against its base, as a unified diff."""
    text = await hub.gatekeeper.diff(change)
    # names in a repository need not be UTF-8
    return PlainTextResponse(text.encode(errors="replace"), headers={"X-Content-Type-Options": "nosniff"})


@router.post("/{change}/approve", status_code=202)
async def approve(change: ChangeRef, body: ApproveBody, caller: Review, hub: Hub) -> ChangeDetail:
    """Approve exactly the head that was seen; checks and merge follow in the gatekeeper's own time."""
    _check_confirmed(caller, confirmed=body.confirmed)
    await hub.gatekeeper.approve(change, by=caller.name, person=caller.person, head_sha=body.head_sha, comment=body.comment)
    return await show(change, hub)


@router.post("/{change}/reject", status_code=202)
async def reject(change: ChangeRef, body: RejectBody, caller: Review, hub: Hub) -> ChangeDetail:
    """Send the task back with the reason, or with ``final`` end it."""
    await hub.gatekeeper.reject(change, by=caller.name, person=caller.person, reason=body.reason, final=body.final)
    return await show(change, hub)


def _check_confirmed(caller: Identity, *, confirmed: bool) -> None:
    """An operator's token may lie where agents can read it, so it approves only with a person's explicit word besides."""
    if not caller.may(Scope.APPROVER) and not confirmed:
        raise Refused(
            403,
            "confirmation_needed",
            "an operator's token approves a change only with a person's confirmation",
            hint="use `agentcom change approve` in a terminal, or a token with the scope approver",
        )


async def _find(hub: Doors, change: ChangeId) -> ChangeRecord:
    found = await get_change(hub.reader, change)
    if found is None:
        raise Refused(404, "unknown_change", f"there is no change {change_ref(change)}", hint="agentcom change list")
    return found
