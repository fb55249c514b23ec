"""Changes and reviews: the gatekeeper's memory, and what the doors show of it.

A change is saved against the version that was read (its state and ``updated_at``), so that the gatekeeper, which works on it for
seconds, and a reviewer, who decides in between, never overwrite each other. Everything outstanding is derived from rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
from pydantic import Json

from hub.core.change import Burial, Return, apply, encode_intent
from hub.core.errors import Refused
from hub.core.review import REJECTED, Review, Reviewer, check_review
from hub.core.rows import EventRow
from hub.ids import ChangeId, ChangeState, LeaseEpoch, TaskId, Tier, change_ref
from hub.store.base import Operation, Reader, Tx
from hub.store.decode import decoder

FIRST_PAGE = 2**62
SCAN_ROWS = 2_000
"""Rows one page may look at; a sparse filter gives a short page."""
CHUNK_ROWS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRecord:
    """One change. Times are microseconds UTC.

    ``origin_epoch`` is the lease that made the work, where it was adopted under ``lease_epoch``; None where that is the same.

    ``stat``: {added, deleted, files: [{path, status, added, deleted}], complete}. ``cause`` says why it is in its state.
    ``candidate_base`` is the base it was last measured against, ``intent`` what the gatekeeper is about to do (JSON of
    ``hub.core.change.Intent``), ``reviews`` is filled by :func:`get_change` alone.
    """

    id: ChangeId
    task: TaskId
    lease_epoch: LeaseEpoch
    origin_epoch: LeaseEpoch | None
    repo: str
    state: ChangeState
    title: str
    body: str
    labels: Json[tuple[str, ...]]
    base: str
    branch: str
    base_sha: str
    head_sha: str
    commits: Json[tuple[Mapping[str, Any], ...]]
    stat: Json[Mapping[str, Any]]
    tier: Tier | None
    reasons: Json[tuple[str, ...]]
    cause: str | None
    check_task: TaskId | None
    candidate_sha: str | None
    candidate_base: str | None
    intent: str | None
    merged_sha: str | None
    created_at: int
    updated_at: int
    reviews: tuple[Review, ...] = ()


read_change = decoder(ChangeRecord)
_read_review = decoder(Review)


class ChangeMoved(Refused):
    """The change is not as it was when the caller read it; read again and decide again."""

    def __init__(self, change: int) -> None:
        super().__init__(409, "change_moved", f"{change_ref(change)} was decided on in the meantime", retry_after_s=0)


# ── reads ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def get_change(reader: Reader, change: int) -> ChangeRecord | None:
    """One change with its reviews, oldest first, or None."""
    row = await reader.one("change_by_id", id=change)
    if row is None:
        return None
    reviews = await reader.all("change_reviews", change=change)
    return replace(read_change(row), reviews=tuple(_read_review(review) for review in reviews))


async def list_changes(
    reader: Reader, *, state: ChangeState | None = None, repo: str | None = None, before: int = FIRST_PAGE, limit: int = 50
) -> tuple[list[ChangeRecord], int | None]:
    """Newest first below the cursor, and the cursor of the next page (None at the end).

    Looks at no more than :data:`SCAN_ROWS` rows.
    """
    query, params = ("change_page", {}) if state is None else ("change_page_by_state", {"state": state})
    found: list[ChangeRecord] = []
    for _ in range(SCAN_ROWS // CHUNK_ROWS):
        rows = await reader.all(query, before=before, limit=CHUNK_ROWS, **params)
        for row in rows:
            before = row["id"]
            if repo is None or row["repo"] == repo:
                found.append(read_change(row))
                if len(found) == limit:
                    return found, before
        if len(rows) < CHUNK_ROWS:
            return found, None
    return found, before


# ── operations ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a change is opened with; the rest is measured later."""

    task: TaskId
    lease_epoch: LeaseEpoch
    origin_epoch: LeaseEpoch | None
    repo: str
    title: str
    labels: tuple[str, ...]
    base: str
    branch: str
    base_sha: str
    head_sha: str
    commits: str


def open_change(new: Opening) -> Operation[int]:
    """Open the change of one result, once; the id. A repeat answers the same id and changes nothing."""

    def operation(tx: Tx) -> int:
        known = tx.one("change_of_attempt", task=new.task, lease_epoch=new.lease_epoch)
        if known is not None:
            return int(known["id"])
        last = tx.one("change_last_id")
        change = 1 + (int(last["id"]) if last is not None else 0)
        fields = asdict(new) | {"labels": _json(new.labels)}
        tx.run("change_insert", id=change, now=tx.now, **fields)
        data = {"change": change, "repo": new.repo, "title": new.title}
        tx.emit(
            EventRow(
                tx.now,
                "change.opened",
                "gatekeeper",
                task=new.task,
                lease_epoch=new.lease_epoch,
                to_state=ChangeState.OPEN,
                data=_json(data),
            )
        )
        return change

    return operation


def save_change(seen: ChangeRecord, new: ChangeRecord, *, actor: str = "gatekeeper") -> Operation[None]:
    """Write what became of ``seen``; nothing at all when nothing differs.

    Raises :class:`ChangeMoved` if the row is no longer as it was seen, IllegalTransition if the table has no such edge.
    """

    def operation(tx: Tx) -> None:
        row = tx.one("change_by_id", id=seen.id)
        if row is None or row["state"] != seen.state or row["updated_at"] != seen.updated_at:
            raise ChangeMoved(seen.id)
        if replace(new, reviews=(), updated_at=seen.updated_at) == replace(seen, reviews=()):
            return
        _write(tx, seen, new, actor)

    return operation


def review_change(
    change: int, by: Reviewer, *, verdict: str, comment: str, head_sha: str | None, final: bool = False
) -> Operation[None]:
    """Record a review; a rejection also sends the task back or, ``final``, buries it (the commands are then outstanding).

    Raises :class:`Refused`: 404 ``unknown_change``, 403 ``final_needs_person``, and what ``hub.core.review.check_review``
    says.
    """

    def operation(tx: Tx) -> None:
        row = tx.one("change_by_id", id=change)
        if row is None:
            raise Refused(404, "unknown_change", f"there is no change {change_ref(change)}", hint="agentcom change list")
        seen = read_change(row)
        authors = {author["agent"] for author in tx.all("change_authors", task=seen.task, lease_epoch=seen.lease_epoch)}
        check_review(by, state=seen.state, tier=seen.tier, current_head=seen.head_sha, head_sha=head_sha, authors=authors)
        if final and not by.person:
            raise Refused(403, "final_needs_person", "only a person rejects a change for good")
        tx.run(
            "review_save",
            change=change,
            reviewer=by.name,
            head_sha=seen.head_sha,
            verdict=verdict,
            person=int(by.person),
            comment=comment,
            now=tx.now,
        )
        _note(tx, seen, f"change.{verdict}", by.name, {"person": by.person, "head_sha": seen.head_sha})
        if verdict == REJECTED:
            _write(tx, seen, _rejected(seen, by, comment, final=final), by.name)

    return operation


def _rejected(seen: ChangeRecord, by: Reviewer, comment: str, *, final: bool) -> ChangeRecord:
    if final:
        intent = encode_intent(Burial(cause=f"rejected by {by.name}: {comment}"[:1000]))
        return replace(seen, state=ChangeState.CLOSED, cause=f"rejected for good by {by.name}: {comment}"[:1000], intent=intent)
    intent = encode_intent(Return(feedback=f"Rejected by {by.name}:\n{comment}"))
    return replace(seen, state=ChangeState.REWORK, cause=f"rejected by {by.name}: {comment}"[:1000], intent=intent)


def _write(tx: Tx, seen: ChangeRecord, new: ChangeRecord, actor: str) -> None:
    if new.state is not seen.state:
        apply(seen.state, new.state)
    tx.run(
        "change_save",
        id=new.id,
        state=new.state,
        body=new.body,
        labels=_json(new.labels),
        commits=_json(new.commits),
        stat=_json(new.stat),
        tier=new.tier,
        reasons=_json(new.reasons),
        cause=new.cause,
        check_task=new.check_task,
        candidate_sha=new.candidate_sha,
        candidate_base=new.candidate_base,
        intent=new.intent,
        merged_sha=new.merged_sha,
        # a later version is always told apart, also within one group of the writer
        now=max(tx.now, seen.updated_at + 1),
    )
    kind = f"change.{new.state}" if new.state is not seen.state else "change.updated"
    data = {"tier": new.tier, "reasons": list(new.reasons), "merged_sha": new.merged_sha, "check_task": new.check_task}
    _note(tx, new, kind, actor, data, from_state=seen.state)


def _note(
    tx: Tx, change: ChangeRecord, kind: str, actor: str, data: Mapping[str, Any], *, from_state: ChangeState | None = None
) -> None:
    tx.emit(
        EventRow(
            tx.now,
            kind,
            actor,
            task=change.task,
            lease_epoch=change.lease_epoch,
            from_state=from_state,
            to_state=change.state if from_state is not None else None,
            cause=change.cause,
            data=_json({"change": change.id, "repo": change.repo, **data}),
        )
    )


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
