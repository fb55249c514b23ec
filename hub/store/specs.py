"""The spec an assignment carries: what a sidecar is told about a task when its lease is granted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from hub.store import salvage
from hub.store.base import Look, Reader, Record
from hub.wire.codec import decode_spec
from hub.wire.spec import Spec

FEEDBACK_ROWS = 5
FEEDBACK_BYTES = 65_536
VERIFICATIONS = 64
"""Checks of one attempt; more of a submitter's are left out, never one that is registered with the repository."""


Claim = tuple[int, int]
"""(task, lease epoch)."""
Specs = Mapping[Claim, Spec | LookupError | ValueError]
"""The spec of each claim, or why it has none."""


async def hydrate(reader: Reader, claims: Sequence[Claim]) -> Specs:
    """The wire specs of claims from their committed rows, read in one go."""
    return await reader.look(lambda look: read_specs(look, claims))


def read_specs(look: Look, claims: Sequence[Claim]) -> Specs:
    """The wire specs of claims; one that cannot be read does not keep the others from it."""
    found: dict[Claim, Spec | LookupError | ValueError] = {}
    for claim in claims:
        try:
            found[claim] = spec_of(look, *claim)
        except (LookupError, ValueError) as fault:
            found[claim] = fault
    return found


def spec_of(look: Look, n: int, lease_epoch: int) -> Spec:
    """The wire spec of a task for the claim ``lease_epoch``, from its committed rows.

    Carries the failure context and reviewers' words of the latest five feedback rows (newest last, together at most
    64 KiB), the head a rework starts from, what earlier attempts left that was not applied, the answers given so far, and
    the repository's registered checks before its
    own. Raises LookupError when the task or its repository has no row.
    """
    row = look.one("task_described", n=n)
    if row is None:
        raise LookupError(f"task {n} has no row")
    described: dict[str, Any] = orjson.loads(row["spec"])
    body = {key: described[key] for key in _DESCRIBED if key in described}
    repo, registered = _repository(look, row)
    if row["needs_change"]:
        # the checks that count for the tier come first; those of the submitter follow
        own = [check for check in body.get("verification", []) if check not in registered]
        body["verification"] = [*registered, *own][:VERIFICATIONS]
    body.update(
        task=n,
        lease_epoch=lease_epoch,
        title=row["title"],
        type=row["type"],
        access=row["access"],
        project=row["project"],
        repo=repo,
        needs_change=bool(row["needs_change"]),
        attempt=max(1, row["tries"]),
        conversation_id=row["conversation_id"],
    )
    if lease_epoch > 1:  # the first claim has no history
        body.update(
            feedback=_newest_within(look.all("task_feedback", n=n, lease_epoch=lease_epoch, limit=FEEDBACK_ROWS)),
            start=_start(look, n, lease_epoch),
            answers=_answers(look, n),
            salvage=salvage.offers(look, n, lease_epoch),
        )
    return decode_spec(orjson.dumps(body))


_DESCRIBED = (
    "description",
    "file_hints",
    "success_criteria",
    "verification",
    "budget",
    "model",
    "complexity",
    "max_fix_rounds",
    "metadata",
    "check",
)
"""Fields of the stored spec document that travel to the sidecar."""


def _repository(look: Look, row: Record) -> tuple[dict[str, str] | None, list[dict[str, Any]]]:
    """Where the task works, and the checks registered there."""
    if row["repo"] is None:
        return None, []
    found = look.one("repository_by_name", name=row["repo"])
    if found is None:
        raise LookupError(f"repository {row['repo']} has no row")
    where = {"name": row["repo"], "url": found["url"], "base": row["base"] or found["base"]}
    return where, orjson.loads(found["checks"])


def _start(look: Look, n: int, lease_epoch: int) -> dict[str, str] | None:
    rework = look.one("task_rework", n=n, lease_epoch=lease_epoch)
    if rework is None or rework["head_sha"] is None:
        return None
    return {"branch": rework["branch"] or "", "head_sha": rework["head_sha"]}


def _answers(look: Look, n: int) -> list[dict[str, str]]:
    questions = look.all("task_questions", n=n)
    return [
        {"qid": row["qid"], "text": row["text"][:4096], "answer": row["answer"][:4096]}
        for row in reversed(questions)
        if row["answer"] is not None
    ]


def _newest_within(rows: list[Record]) -> list[str]:
    """Texts of rows given newest first, as newest last; what does not fit any more is cut off, oldest first."""
    texts: list[str] = []
    room = FEEDBACK_BYTES
    for row in rows:
        text = row["text"].encode()[:room].decode(errors="ignore")
        if not text:
            break
        texts.append(text)
        room -= len(text.encode())
    return texts[::-1]
