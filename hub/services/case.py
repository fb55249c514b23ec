"""The rows of one change: loaded together, read into the rules' words. Nothing here changes anything."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

import orjson
from pydantic import TypeAdapter, ValidationError

from hub.core.change import Candidate, decode_intent
from hub.core.gate import Check, Report
from hub.core.risk import Measured, Policy, Ripple, parse_policy
from hub.forge.base import Remote
from hub.ids import CheckStatus, TaskState, change_ref, task_ref
from hub.store.base import Reader, Record
from hub.store.changes import ChangeRecord, get_change
from hub.wire.spec import Verification, VerificationReport

LOG_CHARS = 32_768
"""What the next attempt is told of failed checks: the end of it."""

CHECKS_FAILED = frozenset({"checks_failed", "verification_failed"})
"""Causes of a dead check whose answer was no; with every other cause (lost, no workspace, never claimed) it gave no answer."""

_checks: TypeAdapter[tuple[Verification, ...]] = TypeAdapter(tuple[Verification, ...])
_report: TypeAdapter[VerificationReport] = TypeAdapter(VerificationReport)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The rows of one change. ``slot`` is the change that holds the repository's merge slot, if another does."""

    change: ChangeRecord
    task: Record
    remote: Remote
    policy: Policy
    checks: tuple[Verification, ...]
    authors: frozenset[str]
    slot: int | None
    check: Check
    check_log: str

    @property
    def in_review(self) -> bool:
        """Whether the task still waits for exactly this change."""
        return bool(self.task["state"] == TaskState.IN_REVIEW and self.task["lease_epoch"] == self.change.lease_epoch)

    @property
    def checks_digest(self) -> str:
        """Tells the registered checks from what they were before an edit."""
        return hashlib.sha256(orjson.dumps(self.checks)).hexdigest()

    @property
    def candidate(self) -> Candidate | None:
        """The merge commit recorded for this change."""
        return candidate_of(self.change)


def candidate_of(change: ChangeRecord) -> Candidate | None:
    """The merge commit recorded in the change's row."""
    intent = decode_intent(change.intent) if change.intent is not None else None
    return intent if isinstance(intent, Candidate) else None


async def load_case(reader: Reader, change_id: int) -> Case | None:
    """Everything committed about a change, or None if there is none."""
    change = await get_change(reader, change_id)
    if change is None:
        return None
    task = await reader.one("change_task", task=change.task, lease_epoch=change.lease_epoch)
    assert task is not None, "a change references its task"
    authors = await reader.all("change_authors", task=change.task, lease_epoch=change.lease_epoch)
    slot = await reader.one("change_slot", repo=change.repo, id=change.id)
    check, check_log = await _check(reader, change)
    return Case(
        change=change,
        task=task,
        remote=Remote(change.repo, task["url"]),
        policy=parse_policy(task["policy"]),
        checks=_checks.validate_json(task["checks"]),
        authors=frozenset(author["agent"] for author in authors),
        slot=None if slot is None else slot["id"],
        check=check,
        check_log=check_log,
    )


def reported(case: Case) -> Report:
    """What the agent machine said of this head. A report in which nothing passed proves nothing."""
    try:
        report = _report.validate_json(case.task["verification"] or "null")
    except ValidationError:
        return Report.MISSING
    passed = {(check.kind, check.target) for check in report.checks if check.status is CheckStatus.PASS}
    if not report.passed:
        return Report.FAILED
    if not passed:
        return Report.MISSING
    registered = {(check.kind, (shlex.join(check.argv) or check.target)[:4096]) for check in case.checks}
    return Report.PASSED_REGISTERED if registered and registered <= passed else Report.PASSED


async def ripple(reader: Reader, case: Case, measured: Measured) -> tuple[Ripple, ...]:
    """Paths of this change that other live changes or running tasks touch or name."""
    own = {path for file in measured.files for path in file.paths}
    found: list[Ripple] = []
    for row in await reader.all("change_neighbours", repo=case.change.repo, id=case.change.id):
        theirs = (file["path"] for file in orjson.loads(row["stat"]).get("files", ()))
        found += [Ripple(path=path, by=change_ref(row["id"])) for path in _overlap(own, theirs)]
    for row in await reader.all("change_running_tasks", repo=case.change.repo, task=case.change.task):
        hints = (hint.get("path", "") for hint in orjson.loads(row["spec"]).get("file_hints") or ())
        found += [Ripple(path=path, by=task_ref(row["n"])) for path in _overlap(own, hints)]
    return tuple(found)


def _overlap(own: set[str], named: Iterable[str]) -> list[str]:
    """A name that is a directory covers what is in it."""
    places = {name.removeprefix("./").strip("/") for name in named} - {""}
    return sorted(path for path in own if path in places or any(path.startswith(f"{place}/") for place in places))


async def _check(reader: Reader, change: ChangeRecord) -> tuple[Check, str]:
    row = None if change.check_task is None else await reader.one("change_check", task=change.check_task)
    if row is None:
        return Check.NONE, ""
    match TaskState(row["state"]):
        case TaskState.DONE:
            return Check.PASSED, ""
        case TaskState.CANCELLED:
            return Check.CANCELLED, ""
        case TaskState.DEAD if row["cause"] in CHECKS_FAILED:
            return Check.FAILED, _check_log(row)
        case TaskState.DEAD:
            return Check.LOST, ""
        case _:
            return Check.RUNNING, ""


def _check_log(row: Record) -> str:
    """What the next attempt is told: each check that did not pass with the end of its output."""
    lines = [f"cause: {row['cause']}"]
    try:
        checks = _report.validate_json(row["verification"] or "null").checks
    except ValidationError:
        checks = ()
    lines += [
        f"{check.kind} {check.target}: {check.status}\n{check.output}"
        for check in checks
        if check.status not in {CheckStatus.PASS, CheckStatus.SKIP}
    ]
    if row["error"]:
        lines.append(str(orjson.loads(row["error"]).get("message", "")))
    return "\n".join([*lines, row["output"] or ""])[-LOG_CHARS:].strip()
