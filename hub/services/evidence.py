"""What the forge finds out about a change, and what the rules make of it.

Nothing here changes anything; the same rows and the same remote give the same judgement, so the gatekeeper can be stopped
anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson

from hub.core.change import COMMITS_LIMIT, Account, LoggedCommit, Proposal, body, breaches, encode_intent
from hub.core.gate import CHECK_LOST, Check, Proof, Report, Situation, facts
from hub.core.risk import Assessment, Measured, Ripple, assess
from hub.forge.base import Forge, RemoteUnavailable, Unusable
from hub.ids import Access, ChangeState
from hub.services.case import Case, reported
from hub.store.changes import ChangeRecord
from hub.wire.git import assignment_branch, salvage_branch, trailers

STAT_FILES = 1_000
"""Files listed in a change's statistics; ripple of a larger change is seen up to there."""
PUSH_REJECTED = "push_rejected"
"""Cause of a change that was approved and that the remote refused."""
BLOCKED = (PUSH_REJECTED, CHECK_LOST)
"""Causes of an approved change that could not be merged for no fault of its own: only a new approval tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the forge found: ``tree`` is what a merge would give, ``same_tree`` that it is exactly the head's tree.

    ``merged_already``: the base has the head's commits already. ``head_lost``: the recorded head is nowhere to be found.
    """

    base_now: str
    tree: str | None = None
    same_tree: bool = False
    measured: Measured = Measured()
    commits: tuple[LoggedCommit, ...] = ()
    faults: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    merged_already: bool = False
    head_lost: bool = False


class BaseUnreachable(RemoteUnavailable):
    """The base branch cannot be fetched now: nothing can be said about any change to it."""


class HeadUnreachable(RemoteUnavailable):
    """The base branch was fetched, but this change's own branch cannot be."""


async def fetch_base(forge: Forge, case: Case) -> str | None:
    """The base branch's head, None if the remote has no such branch; raises :class:`BaseUnreachable` and ForgeError."""
    try:
        return await forge.fetch(case.remote, case.change.base)
    except RemoteUnavailable as fault:
        raise BaseUnreachable(fault.message, code=fault.code) from fault


async def fetch_head(forge: Forge, case: Case) -> bool:
    """Whether the recorded head is here after asking for its branch; raises :class:`HeadUnreachable` and ForgeError."""
    try:
        found = await forge.fetch(case.remote, case.change.branch)
    except RemoteUnavailable as fault:
        raise HeadUnreachable(fault.message, code=fault.code) from fault
    return found is not None and await forge.has(case.remote, case.change.head_sha)


async def gather(forge: Forge, case: Case) -> Evidence:
    """Fetch and measure.

    Raises ForgeError: :class:`Unusable` ``read_only`` and ``base_missing`` (there is nothing to merge into) are for people,
    :class:`BaseUnreachable` and :class:`HeadUnreachable` tell which branch could not be fetched.
    """
    change, remote = case.change, case.remote
    if case.task["access"] != Access.WRITE:
        raise Unusable("its task may only read, so nothing it brings is merged: reject it for good", code="read_only")
    base_now = await fetch_base(forge, case)
    if base_now is None:
        raise Unusable(f"the remote has no branch {change.base!r} to merge into", code="base_missing")
    if not await _has_head(forge, case):
        fault = f"the recorded head {change.head_sha or '(none)'} is not on {change.branch or '(no branch)'} any more"
        return Evidence(base_now=base_now, faults=(fault,), head_lost=True)
    commits = await forge.log(remote, base_now, change.head_sha, limit=COMMITS_LIMIT + 1)
    if not commits and await _has_own_commits(forge, case):
        known = f"its commits are on {change.base} already: approving it records that"
        unchanged = await forge.tree_of(remote, base_now)
        return Evidence(base_now=base_now, tree=unchanged, same_tree=True, unknown=(known,), merged_already=True)
    bases = await forge.merge_bases(remote, base_now, change.head_sha)
    faults = list(await _stale(forge, case, bases, base_now))
    tree: str | None = None
    if bases:
        merged = await forge.merge(remote, base_now, change.head_sha)
        tree = merged.tree
        if tree is None:
            shown = ", ".join(merged.conflicts[:20])
            faults.append(f"it conflicts with {change.base} at {base_now[:12]} in: {shown}; merge the base and resolve that")
    # what cannot be merged is measured from where it began, for whoever decides on it
    old = bases[0] if bases and tree is None else base_now
    measured = await forge.measure(remote, old, tree or change.head_sha)
    unknown = (f"merging it would change nothing on {change.base}",) if tree is not None and not measured.files else ()
    return Evidence(
        base_now=base_now,
        tree=tree,
        same_tree=tree is not None and tree == await forge.tree_of(remote, change.head_sha),
        measured=measured,
        commits=commits,
        faults=tuple(faults),
        unknown=unknown,
    )


async def _has_head(forge: Forge, case: Case) -> bool:
    """Only the recorded head counts: a branch that moved on is fetched for it, never followed."""
    change = case.change
    if not change.head_sha or await forge.has(case.remote, change.head_sha):
        return bool(change.head_sha)
    if change.branch not in _own_branches(change):  # a foreign name is not even asked for
        return False
    return await fetch_head(forge, case)


def _own_branches(change: ChangeRecord) -> tuple[str, ...]:
    """Where its work may be: on the branch of the lease that made it; adopted, it may be what that lease left uncommitted."""
    if change.origin_epoch is None:
        return (assignment_branch(change.task, change.lease_epoch),)
    return assignment_branch(change.task, change.origin_epoch), salvage_branch(change.task, change.origin_epoch)


async def _has_own_commits(forge: Forge, case: Case) -> bool:
    change = case.change
    if not change.base_sha or not await forge.has(case.remote, change.base_sha):
        return False
    return bool(await forge.log(case.remote, change.base_sha, change.head_sha, limit=1))


async def _stale(forge: Forge, case: Case, bases: tuple[str, ...], base_now: str) -> tuple[str, ...]:
    """A merge from before the recorded base would silently revert newer work (semantics, Merge)."""
    change = case.change
    if not bases:
        return (f"it shares no history with {change.base}",)
    for found in bases:
        if not change.base_sha or not await forge.contains(case.remote, found, change.base_sha):
            words = f"it joins {change.base} at {found[:12]}, before the base it was made from ({change.base_sha[:12]})"
            return (f"{words}; {change.base} is at {base_now[:12]} now: merge it",)
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The rules' view: the situation to decide on, and the change with everything measured written into it."""

    situation: Situation
    measured_change: ChangeRecord


def judge(case: Case, evidence: Evidence, ripples: tuple[Ripple, ...]) -> Judgement:
    """Apply the rules of core to what was found."""
    change, candidate = case.change, case.candidate
    # A check speaks of one commit on one base and of the checks registered then; anything else it said is about another merge.
    current = (
        candidate is not None
        and candidate.expected_base == evidence.base_now
        and candidate.tree == evidence.tree
        and candidate.checks == case.checks_digest
    )
    check = case.check if current else Check.NONE
    proof = Proof(
        report=reported(case),
        same_tree=evidence.same_tree,
        registered=bool(case.checks),
        check=check,
        base_note=f"{change.base} moved from {change.base_sha[:12]} to {evidence.base_now[:12]} since",
    )
    assessment = assess(facts(evidence.measured, proof, ripple=ripples, unknown=evidence.unknown), case.policy)
    measured_change = _written(case, evidence, assessment, proof)
    check_run = 0
    if candidate is not None and check is Check.LOST:  # struck off: the next run is another task
        check_run = candidate.check_run + 1
        intent = encode_intent(replace(candidate, check_run=check_run))
        measured_change = replace(measured_change, check_task=None, intent=intent)
    faults = evidence.faults
    if not evidence.head_lost and not evidence.merged_already:
        faults = (*faults, *_broken(measured_change, evidence))
    if check is Check.FAILED:
        faults = (*faults, f"The registered checks failed on the merge with {change.base}:\n{case.check_log}")
    situation = Situation(
        policy=case.policy,
        assessment=assessment,
        proof=proof,
        head_sha=change.head_sha,
        reviews=change.reviews,
        authors=case.authors,
        faults=faults,
        reworks=case.task["rework"],
        check_run=check_run,
        held_by=_held_by(case),
        blocked_at=change.updated_at if _is_blocked(change) else None,
    )
    return Judgement(situation=situation, measured_change=measured_change)


def _verification(proof: Proof) -> tuple[str, ...]:
    """What was verified where, for the reader of the change."""
    told = {
        Report.PASSED_REGISTERED: "passed on the agent machine, the repository's registered checks among them",
        Report.PASSED: "passed on the agent machine",
        Report.FAILED: "failed on the agent machine",
        Report.MISSING: "the agent machine reported no check",
    }[proof.report]
    return (told,) if proof.check is Check.NONE else (told, f"the check of the merge candidate: {proof.check.value}")


def _is_blocked(change: ChangeRecord) -> bool:
    return change.state is ChangeState.WAITING and (change.cause or "").startswith(BLOCKED)


def _held_by(case: Case) -> str | None:
    if case.task["paused"]:
        return f"repository {case.change.repo} is paused"
    # not which one: it stays in line, and is not written again, when the next one takes the slot
    return None if case.slot is None else "another change of the repository is being merged first"


def _broken(change: ChangeRecord, evidence: Evidence) -> tuple[str, ...]:
    own = _own_branches(change)
    return breaches(
        Proposal(
            base=change.base,
            branch=change.branch,
            expected_branch=change.branch if change.branch in own else own[0],
            trailers=trailers(change.task, change.lease_epoch),
            commits=evidence.commits,
            title=change.title,
            body=change.body,
        )
    )


def _written(case: Case, evidence: Evidence, assessment: Assessment, proof: Proof) -> ChangeRecord:
    """The change with its tier, reasons, statistics and words up to date."""
    change, task, measured = case.change, case.task, evidence.measured
    account = Account(
        task=change.task,
        trailers=trailers(change.task, change.lease_epoch),
        task_title=task["title"],
        description=str(orjson.loads(task["spec"]).get("description") or ""),
        created_by=task["created_by"],
        agent=task["agent"] or "an unknown agent",
        origin_epoch=change.origin_epoch,
        commits=evidence.commits,
        verification=_verification(proof),
        assessment=assessment,
    )
    files = [
        {"path": path, "status": file.status, "added": file.added, "deleted": file.deleted}
        for file in measured.files
        for path in file.paths
    ]
    told: dict[str, Any] = {entry["sha"]: list(entry.get("files", ())) for entry in change.commits}
    commits = [{"sha": c.sha, "subject": c.subject[:512], "files": told.get(c.sha, [])} for c in evidence.commits]
    stat = {"added": measured.added, "deleted": measured.deleted, "files": files[:STAT_FILES], "complete": measured.complete}
    labels = [label for label in change.labels if not label.startswith("tier:")] + [f"tier:{assessment.tier.value}"]
    return replace(
        change,
        body=body(account),
        tier=assessment.tier,
        reasons=assessment.reasons,
        stat=stat,
        labels=tuple(labels),
        commits=tuple(commits) or change.commits,
        candidate_base=evidence.base_now,
    )
