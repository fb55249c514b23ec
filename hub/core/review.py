"""Who may approve a change, and when its reviews suffice.

Pure. A tier-3 change is a person's decision; tier 2 needs one reviewer who did not write it; tier 1 merges alone where
the repository's policy says so. A review counts for one head only: new commits need a new review.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from hub.core.errors import Refused
from hub.core.risk import Policy
from hub.ids import ChangeState, Tier

REVIEWABLE = frozenset({ChangeState.OPEN, ChangeState.CHECKING, ChangeState.WAITING})
"""States in which a change can be approved or rejected; once a merge is intended only git decides."""

APPROVED = "approved"
REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One reviewer's newest word on one head. ``at`` in microseconds UTC; ``person`` False for an agent."""

    reviewer: str
    head_sha: str
    verdict: str
    person: bool
    comment: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Whether the reviews suffice.

    ``cause`` is the stable code of what is missing, ``why`` its sentence; both are empty if ``met``.
    """

    met: bool
    cause: str = ""
    why: str = ""


def standing(
    tier: Tier, policy: Policy, reviews: Iterable[Review], *, head_sha: str, authors: Collection[str], blocked_at: int | None
) -> Standing:
    """Judge the reviews of the present head.

    ``authors`` are the agents whose work the change contains: their approval is none. ``blocked_at`` is set when the
    change could not be merged although it was approved: only a person's approval given after that tries again.
    """
    valid = [review for review in reviews if review.head_sha == head_sha and review.verdict == APPROVED]
    by_person = any(review.person and (blocked_at is None or review.at >= blocked_at) for review in valid)
    if by_person:
        return Standing(met=True)
    if blocked_at is not None:
        return Standing(met=False, cause="blocked", why="a person approves it again to make another attempt")
    if tier is Tier.HIGH:
        return Standing(met=False, cause="person_needed", why="tier 3 needs the approval of a person")
    if tier is Tier.LOW and policy.auto_merge_tier1:
        return Standing(met=True)
    if any(review.reviewer not in authors for review in valid):
        return Standing(met=True)
    why = "tier 2 needs" if tier is Tier.MEDIUM else "this repository does not merge tier 1 by itself: it needs"
    return Standing(met=False, cause="review_needed", why=f"{why} the approval of another agent or a person")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewer:
    """The authenticated identity that reviews."""

    name: str
    person: bool


def check_review(
    by: Reviewer, *, state: ChangeState, tier: Tier | None, current_head: str, head_sha: str | None, authors: Collection[str]
) -> None:
    """Refuse a review that cannot count.

    Raises :class:`Refused`: 409 ``wrong_state``, 409 ``not_assessed``, 409 ``head_moved``, 403 ``own_work``,
    403 ``person_needed``. ``head_sha`` None skips the comparison (a rejection may be of whatever is there).
    """
    if state not in REVIEWABLE:
        raise Refused(409, "wrong_state", f"a change that is {state} can no longer be reviewed")
    if head_sha is not None and head_sha != current_head:
        moved = f"the change is at {current_head}, not at {head_sha}"
        raise Refused(409, "head_moved", moved, hint="look at the present diff and review that")
    if by.person:
        return
    if by.name in authors:
        raise Refused(403, "own_work", "an agent does not review a change that contains its own work")
    if tier is None:
        raise Refused(409, "not_assessed", "the change has no risk tier yet", retry_after_s=1)
    if tier is Tier.HIGH:
        raise Refused(403, "person_needed", "a change of tier 3 is a person's decision")
