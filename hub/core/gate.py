"""What must happen next to a change, as data.

Pure: the gatekeeper gathers a :class:`Situation`, this module decides, the gatekeeper carries it out. The order is the
rule: mend what is wrong, get the approval the tier demands, wait for the repository's one merge slot, let the registered
checks pass on exactly what would be merged, merge.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hub.core.review import Review, standing
from hub.core.risk import Assessment, ChangeFacts, Measured, Policy, Ripple, Verified

CHECK_RUNS = 3
"""How often a check is run that is lost each time, before a person is asked."""
CHECK_LOST = "check_lost"
"""Cause of a change whose check gave no answer that often."""


class Check(StrEnum):
    """The check task of the present candidate."""

    NONE = "none"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    LOST = "lost"
    """It ended without an answer: its agent was lost, had no workspace, never came."""
    CANCELLED = "cancelled"


class Report(StrEnum):
    """What the agent machine reported of the verification of the head."""

    PASSED = "passed"
    PASSED_REGISTERED = "passed_registered"
    """Passed, the repository's registered checks among them."""
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What is known about the tree that would be merged.

    ``same_tree``: it is the tree of the head the agent machine verified, because the base has not moved under it.
    ``registered``: the repository has registered checks. ``base_note`` names the bases for the reader.
    """

    report: Report
    same_tree: bool
    registered: bool
    check: Check = Check.NONE
    base_note: str = ""

    @property
    def settled(self) -> bool:
        """No check needs to run before the merge: it passed, it was waived, or there is none that could."""
        if self.check in {Check.PASSED, Check.CANCELLED} or not self.registered:
            return True
        return self.same_tree and self.report is Report.PASSED_REGISTERED


def facts(measured: Measured, proof: Proof, *, ripple: tuple[Ripple, ...] = (), unknown: tuple[str, ...] = ()) -> ChangeFacts:
    """Put together what the tier depends on: the verification is that of the tree that would be merged."""
    verification, registered, note = _verification(proof)
    return ChangeFacts(
        measured=measured,
        verification=verification,
        registered=registered,
        verification_note=note,
        ripple=ripple,
        unknown=unknown,
    )


def _verification(proof: Proof) -> tuple[Verified, bool, str]:
    if proof.check is Check.PASSED:
        return Verified.PASSED, True, "the registered checks passed on the merge candidate"
    if proof.check is Check.CANCELLED:
        return Verified.MISSING, False, "the check of the merge candidate was cancelled"
    if proof.report is Report.FAILED:
        return Verified.FAILED, False, "the agent machine reported failed checks"
    if not proof.settled:
        return Verified.REQUIRED, True, "the registered checks must pass on the merge candidate"
    if proof.report is Report.MISSING:
        return Verified.MISSING, False, "no check was run and the repository has none registered"
    if not proof.same_tree:
        return Verified.MISSING, False, f"{proof.base_note}, and the repository has no registered checks to verify the merge"
    return Verified.PASSED, proof.report is Report.PASSED_REGISTERED, "the checks passed on exactly this tree"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that the next step depends on.

    ``faults`` are what the author must mend (conventions, conflicts, a stale base, failed checks). ``reworks`` counts the
    returns so far, ``check_run`` is the number of the next run of a lost check. ``held_by`` says what keeps the
    merge slot or the repository, if anything does. ``blocked_at`` is when an approved merge could not be made (refused by the
    remote, checks lost), until somebody tries again.
    """

    policy: Policy
    assessment: Assessment
    proof: Proof
    head_sha: str
    reviews: tuple[Review, ...] = ()
    authors: frozenset[str] = frozenset()
    faults: tuple[str, ...] = ()
    reworks: int = 0
    check_run: int = 0
    held_by: str | None = None
    blocked_at: int | None = None


@dataclass(frozen=True, slots=True)
class SendBack:
    """Return the task to the queue with this feedback."""

    feedback: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing happens until somebody decides; ``cause`` is a stable code, ``why`` a sentence."""

    cause: str
    why: str


@dataclass(frozen=True, slots=True)
class Queue:
    """Ready, but another change or a pause is in the way."""

    why: str


@dataclass(frozen=True, slots=True)
class RunChecks:
    """Let the registered checks run on the candidate (or go on running)."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Merge the candidate."""


Step = SendBack | Wait | Queue | RunChecks | Merge


def next_step(at: Situation) -> Step:
    """Decide. Total and without memory: the same situation gives the same step, also after a restart."""
    if at.faults:
        if at.reworks >= at.policy.max_rework:
            return Wait("rework_limit", f"it was returned {at.reworks} times already and still: {'; '.join(at.faults)}"[:2000])
        return SendBack("\n".join(at.faults))
    approval = standing(
        at.assessment.tier,
        at.policy,
        at.reviews,
        head_sha=at.head_sha,
        authors=at.authors,
        blocked_at=at.blocked_at,
    )
    if not approval.met:
        return Wait(approval.cause, approval.why)
    lost = at.proof.check is Check.LOST and not at.proof.settled
    if lost and at.check_run % CHECK_RUNS == 0:  # what a person then approves again is worth as many runs more
        return Wait(CHECK_LOST, f"its check ended without an answer {CHECK_RUNS} times; approve it again to repeat it")
    if at.held_by is not None:
        return Queue(at.held_by)
    return Merge() if at.proof.settled else RunChecks()
