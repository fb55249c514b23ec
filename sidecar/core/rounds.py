"""What follows a run: another, corrective one, or the end and which. Pure.

The exit code alone decides nothing: what counts is why the run ended, what the agent's own last word was, what is in the
workspace, and what the checks say, in this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hub.ids import Outcome
from hub.wire.spec import RunError, Spec, VerificationReport
from sidecar.core.effects import StopReason
from sidecar.core.holding import Holding
from sidecar.core.prompt import dirty_correction, no_change_correction
from sidecar.core.records import Cause, Exited

CORRECTIONS = {"no_change": 1, "dirty": 1}
"""Corrective rounds for a missing commit and for a dirty tree; those for failed checks are the task's ``max_fix_rounds``."""


class State(Protocol):
    """What the workspace holds, as far as the decision needs it."""

    @property
    def advanced(self) -> bool:
        """Whether HEAD moved since the hand-over."""
        ...

    @property
    def dirty(self) -> tuple[str, ...]:
        """Uncommitted paths, the first of them."""
        ...

    @property
    def dirty_count(self) -> int:
        """How many there are."""
        ...


@dataclass(frozen=True, slots=True)
class Correct:
    """Run the agent again, saying what is wrong."""

    cause: Cause
    correction: str


@dataclass(frozen=True, slots=True)
class Conclude:
    """The assignment ends like this."""

    outcome: Outcome
    error: RunError | None = None


@dataclass(frozen=True, slots=True)
class Verify:
    """Run the checks, then ask again."""


def next_step(spec: Spec, held: Holding, state: State | None, feedback: str) -> Correct | Conclude | Verify:
    """What to do when no run is going on. ``feedback`` describes the failed report, if there is one."""
    if (ended := _ended_from_outside(held.stop, held.last)) is not None:
        return ended
    step = _by_result(spec, held, state, feedback)
    if isinstance(step, Correct) and held.stop is not None:  # without the lease no agent is woken again
        return _STOPPED[held.stop]
    return step


def _by_result(spec: Spec, held: Holding, state: State | None, feedback: str) -> Correct | Conclude | Verify:
    last = held.last
    if last is None:
        return _lost("not_started", "the agent was never started")
    if not last.end.ok:
        return Conclude(Outcome.FAILED, _error(last.end.code, last.end.message, retryable=last.end.retryable))
    if state is not None:
        if spec.needs_change and not state.advanced:
            if _used(held, "no_change") < CORRECTIONS["no_change"]:
                return Correct("no_change", no_change_correction())
            return Conclude(Outcome.FAILED, _error("no_change", "the agent ended without a commit"))
        if state.dirty_count and _used(held, "dirty") < CORRECTIONS["dirty"]:
            return Correct("dirty", dirty_correction(state.dirty, state.dirty_count))
    return _by_checks(spec, held, feedback)


def _by_checks(spec: Spec, held: Holding, feedback: str) -> Correct | Conclude | Verify:
    if spec.verification and held.report is None:
        return Verify()
    if held.report is None or held.report.report.passed:
        return Conclude(Outcome.SUCCEEDED)
    if _used(held, "checks") < spec.max_fix_rounds:
        return Correct("checks", feedback)
    return Conclude(Outcome.FAILED, _error("verification_failed", feedback))


def stopped(reason: StopReason | None) -> Conclude:
    """The end of work that was stopped while it waited for something."""
    return _STOPPED[reason or StopReason.LOST]


def after_checks(report: VerificationReport, feedback: str) -> Conclude:
    """The end of an internal check: it says whether a commit is good, so doing it again would say the same."""
    if report.passed:
        return Conclude(Outcome.SUCCEEDED)
    return Conclude(Outcome.FAILED, _error("checks_failed", feedback, retryable=False))


def fix_rounds(held: Holding) -> int:
    """Corrective rounds used, of all causes."""
    return sum(run.cause != "first" for run in held.runs)


def _lost(code: str, message: str) -> Conclude:
    return Conclude(Outcome.LOST, RunError(cls="lost", code=code, message=message))


_STOPPED = {
    StopReason.CANCEL: Conclude(Outcome.CANCELLED),
    StopReason.INTERRUPT: Conclude(Outcome.INTERRUPTED),
    StopReason.LOST: _lost("lease_lost", "the hub ended the lease"),
    StopReason.DRAIN: _lost("drained", "the sidecar was stopped"),
    StopReason.PARK: _lost("parked", "a question stayed open"),
}


def _ended_from_outside(stop: StopReason | None, last: Exited | None) -> Conclude | None:
    """A cancel or interrupt always counts; any other stop only if it cut the run short: a late success is worth keeping."""
    cut_short = last is None or last.stopped is not None
    if stop is not None and (cut_short or stop in {StopReason.CANCEL, StopReason.INTERRUPT}):
        return _STOPPED[stop]
    match last.stopped if last is not None else None:
        case None:
            return None
        case "wall":
            return Conclude(Outcome.FAILED, _error("wall_budget", "the agent used up its wall-clock budget"))
        case "deadline":
            return _lost("deadline", "the lease ran out unrenewed")
        case "lost":
            return _lost("shim_lost", "the run's shim died")
        case other:
            return _lost("stopped", f"the run was stopped from outside: {other}")


def _used(held: Holding, cause: Cause) -> int:
    return sum(run.cause == cause for run in held.runs)


def _error(code: str, message: str, *, retryable: bool = True) -> RunError:
    return RunError(cls="retryable" if retryable else "permanent", code=code, message=message[:4096])
