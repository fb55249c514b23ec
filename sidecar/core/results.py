"""The result frame of an assignment: composed, made to fit a frame, sealed with its digest. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson

from hub.ids import Outcome
from hub.wire.codec import result_digest
from hub.wire.frames import Result
from hub.wire.spec import Commit, RunError, Usage, VerificationReport
from sidecar.core.records import Key

RESULT_BYTES = 200_000
"""Leaves room for the envelope below the frame's limit."""
OUTPUT_CHARS = 32_768

_SHRINKING: tuple[Callable[[Result], Result], ...] = (
    lambda result: replace(result, commits=tuple(replace(commit, files=commit.files[:32]) for commit in result.commits)),
    lambda result: replace(result, commits=tuple(replace(commit, files=()) for commit in result.commits)),
    lambda result: replace(result, output=result.output[-4096:]),
    lambda result: replace(result, verification=_terse(result.verification)),
    lambda result: replace(result, commits=result.commits[-64:]),
)
"""What is left out of a result that is too large, least missed first. Everything about the code is in the branch anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What a result says about the code: nothing, unless it was pushed."""

    branch: str | None = None
    base_sha: str | None = None
    head_sha: str | None = None
    commits: tuple[Commit, ...] = ()
    salvage_ref: str | None = None


def compose(
    key: Key,
    outcome: Outcome,
    error: RunError | None,
    *,
    delivered: Delivered,
    report: VerificationReport | None = None,
    output: str = "",
    usage: Usage | None = None,
    conversation_id: str | None = None,
) -> Result:
    """The sealed result, small enough for a frame."""
    result = Result(
        task=key.task,
        lease_epoch=key.lease_epoch,
        outcome=outcome,
        error=error,
        output=output[-OUTPUT_CHARS:],
        branch=delivered.branch,
        base_sha=delivered.base_sha,
        head_sha=delivered.head_sha,
        commits=delivered.commits[-256:],
        verification=report,
        usage=usage,
        salvage_ref=delivered.salvage_ref,
        conversation_id=conversation_id,
        sha256="",
    )
    for shrink in _SHRINKING:
        if len(orjson.dumps(result)) <= RESULT_BYTES:
            break
        result = shrink(result)
    return replace(result, sha256=result_digest(result))


def _terse(report: VerificationReport | None) -> VerificationReport | None:
    if report is None:
        return None
    return replace(report, checks=tuple(replace(check, target=check.target[:256], output="") for check in report.checks))
