"""Salvaged work as the HTTP API shows it, beside its task and by itself."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hub.core.risk import Measured
from hub.edge.http.doors import Sight
from hub.edge.http.fields import Moment, Out, TaskId_
from hub.ids import LeaseEpoch, Outcome, SalvageState, TaskState
from hub.store.salvage import OUTPUT_CHARS, SalvageRecord

STAT_FILES = 200


class SalvageOut(Out):
    """Work kept although it was not applied, by task and lease (``t-17/3``).

    ``branch`` names commits, ``salvage_ref`` the branch of what was left uncommitted. ``title`` and ``task_state`` are null
    for a task that is not known here. ``note`` says why it was dropped; it was adopted under ``applied_epoch``.
    """

    id: str = Field(validation_alias="ref")
    task: TaskId_
    lease_epoch: LeaseEpoch
    title: str | None
    task_state: TaskState | None
    state: SalvageState
    at: Moment
    agent: str | None
    reason: str
    outcome: Outcome
    branch: str | None
    base_sha: str | None
    head_sha: str | None
    salvage_ref: str | None
    decided_by: str | None
    decided_at: Moment | None
    note: str | None
    applied_epoch: LeaseEpoch | None


class SalvagePage(Out):
    """Newest task first. ``next`` is the cursor of the following page."""

    salvage: list[SalvageOut]
    next: str | None


class SalvageDetail(SalvageOut):
    """A record with what its result said and what is left of it.

    ``output`` is the end of what was said (of a malformed result: of its raw body). ``stat`` is what its commits change,
    null where there is nothing to see, for which ``stat_missing`` gives the reason. ``feedback`` is what the next attempt
    was told of how this one ended, ``told`` are the leases that were told of this record.
    """

    error: dict[str, Any] | None
    output: str
    commits: list[dict[str, Any]]
    stat: dict[str, Any] | None
    stat_missing: str
    feedback: str | None
    told: list[LeaseEpoch]

    @classmethod
    def of(cls, kept: SalvageRecord, sight: Sight, feedback: str | None, told: tuple[LeaseEpoch, ...]) -> SalvageDetail:
        """From its record, what the forge sees, and whom it was told."""
        body = kept.told()
        output = str(body["output"]) if "output" in body else kept.body
        shown = SalvageOut.model_validate(kept).model_dump()
        if sight.work is not None:  # what was left uncommitted is named by where its branch is now
            shown["head_sha"] = shown["head_sha"] or sight.work.head_sha
        return cls(
            **shown,
            error=body.get("error"),
            output=output[-OUTPUT_CHARS:],
            commits=body.get("commits") or [],
            stat=None if sight.measured is None else _stat(sight.measured),
            stat_missing=sight.why,
            feedback=feedback,
            told=list(told),
        )


def _stat(measured: Measured) -> dict[str, Any]:
    files = [
        {"path": file.path, "status": file.status, "added": file.added, "deleted": file.deleted} for file in measured.files
    ]
    complete = measured.complete and len(files) <= STAT_FILES
    return {"added": measured.added, "deleted": measured.deleted, "files": files[:STAT_FILES], "complete": complete}
