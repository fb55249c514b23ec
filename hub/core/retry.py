"""What follows the end of a run: done, review, another try, or dead. Pure decisions over counters.

Source: semantics (Retry) and protocol §5 (Outcomes). ``tries`` was raised at the claim and may be refunded here; ``lost`` counts
infrastructure losses and has its own budget.
"""

from __future__ import annotations

from dataclasses import dataclass

from hub.core.task import MAX_CLAIMS, MAX_LOST
from hub.ids import SECOND, Outcome, TaskState

BASE_US = 5 * SECOND
CAP_US = 3600 * SECOND


def backoff_us(tries: int, jitter: float) -> int:
    """Full jitter over min(1 h, 5 s·2ⁿ) after ``tries`` tries (AWS architecture blog, "Exponential Backoff and Jitter")."""
    ceiling = min(CAP_US, BASE_US << min(max(tries - 1, 0), 12))
    return max(1, int(ceiling * jitter))


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended, as far as the next step depends on it."""

    outcome: Outcome
    has_change: bool = False
    needs_change: bool = False
    verified: bool | None = None
    error_class: str | None = None
    error_code: str | None = None
    retry_after_us: int | None = None


@dataclass(frozen=True, slots=True)
class Next:
    """The next state of the task and what it costs."""

    to: TaskState
    cause: str
    refund: bool = False
    lost: bool = False
    delay_us: int | None = None
    avoid: bool = False


def after(ended: Ended, *, tries: int, max_tries: int, lost: int, claims: int, jitter: float) -> Next:
    """Decide what becomes of a task whose run ended (cancelling is decided before this)."""
    step = _step(ended, tries, max_tries, lost, jitter)
    if step.to in (TaskState.QUEUED, TaskState.SCHEDULED) and claims >= MAX_CLAIMS:
        return Next(TaskState.DEAD, "too_many_claims")
    return step


def _step(ended: Ended, tries: int, max_tries: int, lost: int, jitter: float) -> Next:
    match ended.outcome:
        case Outcome.SUCCEEDED:
            return _success(ended, tries, max_tries, jitter)
        case Outcome.FAILED if ended.error_class == "permanent":
            return Next(TaskState.DEAD, ended.error_code or "failed")
        case Outcome.FAILED if ended.error_class == "lost":
            return after_loss(lost, ended.error_code or "lost")
        case Outcome.RATE_LIMITED:
            return _rate_limited(ended, tries, jitter)
        case Outcome.FAILED if ended.error_class == "rate_limited":
            return _rate_limited(ended, tries, jitter)
        case Outcome.FAILED:
            return _again(ended.error_code or "failed", tries, max_tries, jitter)
        case _:
            # lost, or stopped without our asking: an infrastructure loss, whatever the sidecar calls it
            return after_loss(lost, ended.error_code or ended.outcome.value)


def after_loss(lost: int, cause: str) -> Next:
    """A working agent was lost: queued with the try refunded, dead at the third."""
    if lost + 1 >= MAX_LOST:
        return Next(TaskState.DEAD, cause, lost=True)
    return Next(TaskState.QUEUED, cause, refund=True, lost=True)


def _success(ended: Ended, tries: int, max_tries: int, jitter: float) -> Next:
    if ended.verified is False:
        return _again("verification_failed", tries, max_tries, jitter)
    if ended.has_change:
        return Next(TaskState.IN_REVIEW, "succeeded")
    if ended.needs_change:
        return _again("no_change", tries, max_tries, jitter)
    return Next(TaskState.DONE, "succeeded")


def _again(code: str, tries: int, max_tries: int, jitter: float) -> Next:
    if tries >= max_tries:
        return Next(TaskState.DEAD, code)
    return Next(TaskState.SCHEDULED, code, delay_us=backoff_us(tries, jitter), avoid=True)


def _rate_limited(ended: Ended, tries: int, jitter: float) -> Next:
    delay = ended.retry_after_us if ended.retry_after_us is not None else backoff_us(tries, jitter)
    return Next(TaskState.SCHEDULED, "rate_limited", refund=True, delay_us=max(1, delay))
