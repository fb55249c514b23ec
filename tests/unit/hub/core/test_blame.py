"""Whose fault it was: the table, and when there is enough of it."""

from __future__ import annotations

import pytest

from hub.core.blame import (
    FOREVER,
    MAX_REMEMBERED,
    QUARANTINE_US,
    Blame,
    Strike,
    add,
    blame,
    dumped,
    is_enough,
    loaded,
    until,
)
from hub.ids import SECOND, LeaseEpoch, Outcome, StrikeOf, TaskId


@pytest.mark.parametrize(
    ("outcome", "code", "cls", "took_s", "said"),
    [
        (Outcome.SUCCEEDED, None, None, 0, Blame.SOUND),
        (Outcome.FAILED, "cannot_start", "retryable", 0, Blame.AGENT),
        (Outcome.FAILED, "git_missing", "retryable", 0, Blame.AGENT),
        (Outcome.FAILED, "remote_unreachable", "retryable", 90, Blame.DOUBTFUL),
        (Outcome.FAILED, "agent_failed", "retryable", 1, Blame.DOUBTFUL),
        (Outcome.FAILED, "agent_failed", "retryable", 30, Blame.SOUND),
        (Outcome.FAILED, "agent_failed", "retryable", None, Blame.SOUND),
        (Outcome.FAILED, "verification_failed", "retryable", 1, Blame.SOUND),
        (Outcome.FAILED, "a word of the agent's own", "permanent", 1, Blame.SOUND),
        (Outcome.FAILED, "quota", "rate_limited", 1, Blame.NOBODY),
        (Outcome.FAILED, "quota", "lost", 1, Blame.DOUBTFUL),
        (Outcome.RATE_LIMITED, None, None, 1, Blame.NOBODY),
        (Outcome.LOST, "agent_restarted", None, None, Blame.DOUBTFUL),
        (Outcome.LOST, "shim_lost", "lost", 400, Blame.DOUBTFUL),
        (Outcome.LOST, "drained", "lost", 400, Blame.NOBODY),
        (Outcome.CANCELLED, None, None, 1, Blame.NOBODY),
        (Outcome.INTERRUPTED, None, None, 1, Blame.NOBODY),
    ],
)
def test_how_a_run_ended_says_whose_fault_it_was(
    outcome: Outcome, code: str | None, cls: str | None, took_s: int | None, said: Blame
) -> None:
    took_us = None if took_s is None else took_s * SECOND
    assert blame(outcome, code, error_class=cls, took_us=took_us, instant_us=5 * SECOND) is said


def about(task: int, of: StrikeOf = StrikeOf.RUN, *, sure: bool = False, tries: int = 1, generation: int = 1) -> Strike:
    return Strike(of, TaskId(task), generation, LeaseEpoch(1), "agent_failed", 7, sure, tries)


def test_a_doubtful_end_counts_once_per_task_and_keeps_what_it_cost() -> None:
    strikes = add(add(add((), about(1)), about(2)), about(1))
    assert [(strike.task, strike.tries) for strike in strikes] == [(2, 1), (1, 2)]
    assert len(add(strikes, about(1, generation=2))) == 3, "another generation is another piece of work"
    assert len(add(add((), about(1, sure=True)), about(1, sure=True))) == 2, "what is surely the agent's counts each time"


def test_three_of_a_kind_are_enough_and_one_on_trial() -> None:
    strikes = (about(1), about(2), about(3, StrikeOf.OFFER))
    assert not is_enough(strikes, StrikeOf.RUN, 0, 3)
    assert is_enough((*strikes, about(4)), StrikeOf.RUN, 0, 3)
    assert is_enough(strikes, StrikeOf.RUN, 1, 3)
    assert not is_enough((*strikes, about(4)), StrikeOf.RUN, 1, 0), "0 quarantines none"


def test_the_ladder_ends_with_a_person() -> None:
    assert [until(level, 5) for level in range(4)] == [5 + QUARANTINE_US[0], 5 + QUARANTINE_US[1], FOREVER, FOREVER]


def test_what_is_remembered_is_bounded_and_read_back() -> None:
    strikes: tuple[Strike, ...] = ()
    for task in range(1, 30):
        strikes = add(strikes, about(task))
    assert [strike.task for strike in strikes] == list(range(30 - MAX_REMEMBERED, 30))
    assert loaded(dumped(strikes)) == strikes
