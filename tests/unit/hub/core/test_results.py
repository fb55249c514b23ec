"""Protocol §5: the verdict on a result, in its order; what each outcome costs; salvage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hub.core import commands as c
from hub.core.decision import AckResult
from hub.core.retry import Ended, after, backoff_us
from hub.ids import SECOND, Outcome, TaskState, Verdict
from tests.support.cluster import SHA, Hub

OTHER = "cd" * 32


def report(hub: Hub, agent: str = "w1", **fields: Any) -> Verdict:
    fields = {"outcome": Outcome.SUCCEEDED, "sha256": SHA, "lease_epoch": 1} | fields
    decision = hub.said(c.Report, agent, **fields)
    [verdict] = [effect.verdict for _, _, effect in decision.effects if isinstance(effect, AckResult)]
    return verdict


def salvaged(hub: Hub, n: int) -> list[tuple[int, str]]:
    rows = hub.store.rows("SELECT lease_epoch, sha256 FROM salvage WHERE task = ? ORDER BY lease_epoch, sha256", n)
    return [(row["lease_epoch"], row["sha256"]) for row in rows]


# ── the order of the questions ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("restarted", [False, True])
def test_1_a_result_said_twice_is_a_duplicate(restarted: bool) -> None:
    hub = Hub()
    n = hub.working()
    assert report(hub, n=n) is Verdict.APPLIED
    if restarted:
        hub.restart()
        hub.hello()
    assert report(hub, n=n) is Verdict.DUPLICATE
    assert hub.events(n).count("task.done") == 1


def test_1_another_body_for_an_ended_attempt_keeps_the_first_and_leaves_a_note() -> None:
    hub = Hub()
    n = hub.working()
    report(hub, n=n)
    assert report(hub, n=n, sha256=OTHER) is Verdict.DUPLICATE
    assert "result.conflict" in hub.events(n)


def test_2_the_open_holder_is_applied_even_before_its_accept_was_heard() -> None:
    hub = Hub()
    hub.hello()
    [n] = hub.submit()
    assert report(hub, n=n) is Verdict.APPLIED
    assert hub.task(n).claims == 1
    assert hub.state(n) is TaskState.DONE


def expired(**fields: Any) -> tuple[Hub, int]:
    """w1's lease ended without a word; nobody has the task."""
    hub = Hub()
    n = hub.working(**fields)
    hub.later(241)
    hub.do(c.PauseAgent(agent="w1"))
    assert hub.state(n) is TaskState.QUEUED
    return hub, n


@pytest.mark.parametrize("restarted", [False, True])
def test_3_a_late_success_of_an_expired_lease_is_applied(restarted: bool) -> None:
    hub, n = expired()
    if restarted:
        hub.restart()
        hub.hello()
    assert report(hub, n=n) is Verdict.APPLIED
    assert (hub.state(n), hub.task(n).cause) == (TaskState.DONE, "late")
    assert report(hub, n=n) is Verdict.DUPLICATE


def test_3_a_late_change_goes_to_review() -> None:
    hub, n = expired(repo="app")
    assert report(hub, n=n, has_change=True, branch="b", head_sha="b" * 40) is Verdict.APPLIED
    assert hub.state(n) is TaskState.IN_REVIEW


@pytest.mark.parametrize(
    "why",
    [{"outcome": Outcome.FAILED, "has_change": True}, {"passed": False}, {"has_change": False}],
    ids=["failed", "unverified", "without the change it needs"],
)
def test_3_a_late_result_that_is_no_full_success_is_salvaged(why: dict[str, Any]) -> None:
    hub, n = expired(repo="app")
    assert report(hub, **({"n": n, "has_change": True} | why)) is Verdict.SALVAGED
    assert hub.state(n) is TaskState.QUEUED


def test_4_a_late_success_after_the_task_was_given_away_is_salvaged() -> None:
    hub = Hub()
    n = hub.working()
    hub.later(241)
    hub.beat()
    assert hub.task(n).lease_epoch == 2
    assert report(hub, n=n) is Verdict.SALVAGED
    assert hub.state(n) is TaskState.ASSIGNED
    assert salvaged(hub, n) == [(1, SHA)]
    assert report(hub, n=n) is Verdict.DUPLICATE, "and said again it is known"


def test_4_a_late_failure_is_merely_stale() -> None:
    hub, n = expired()
    assert report(hub, n=n, outcome=Outcome.FAILED) is Verdict.STALE
    assert salvaged(hub, n) == []


def test_4_another_agents_fence_is_stale() -> None:
    hub = Hub()
    n = hub.working()
    hub.hello("w2")
    before = hub.task(n).row()
    assert report(hub, "w2", n=n) is Verdict.STALE
    assert hub.task(n).row() == before
    assert "result.foreign" in hub.events(n)


def test_4_an_unknown_task_is_salvaged() -> None:
    hub = Hub()
    hub.hello()
    assert report(hub, n=4711, lease_epoch=3) is Verdict.SALVAGED
    assert salvaged(hub, 4711) == [(3, SHA)]


def test_4_a_task_long_out_of_memory_is_settled_on_its_attempt_row() -> None:
    hub = Hub()
    n = hub.working()
    hub.do(c.Cancel(n=n))
    report(hub, n=n, outcome=Outcome.CANCELLED)
    hub.later(301)
    assert n not in hub.cluster.tasks
    hub.beat()
    assert report(hub, n=n, outcome=Outcome.CANCELLED) is Verdict.DUPLICATE


@pytest.mark.parametrize("late", [False, True])
def test_a_lie_about_a_fence_to_come_does_not_spoil_it(late: bool) -> None:
    """The digest was remembered for that fence, and its honest holder was later told duplicate."""
    hub = Hub()
    n = hub.working()
    hub.hello("w2", capabilities=("x",))
    assert report(hub, "w2", n=n, lease_epoch=2, sha256=OTHER) is Verdict.SALVAGED
    hub.about(c.GiveBack, n, reason="drain")
    hub.accept(n)
    assert hub.task(n).lease_epoch == 2
    holder = str(hub.task(n).holder)
    if late:
        for agent in ("w1", "w2"):
            hub.do(c.PauseAgent(agent=agent))  # type: ignore[arg-type]
        hub.later(241)
        assert hub.state(n) is TaskState.QUEUED
    assert report(hub, holder, n=n, lease_epoch=2) is Verdict.APPLIED


def test_facts_read_before_an_expiry_was_committed_do_not_reopen_the_attempt() -> None:
    """The salvage wrote the old attempt row back, open."""
    hub = Hub()
    n = hub.working()
    stale = hub.store.rows("SELECT * FROM attempt WHERE task = ?", n)[0]
    hub.later(241)
    hub.do(c.PauseAgent(agent="w1"))
    command = c.Report(
        agent="w1", session_epoch=1, n=n, lease_epoch=1, outcome=Outcome.SUCCEEDED, sha256=SHA, facts=c.Facts(attempt=stale)
    )
    decision = hub.scheduler.apply(command, hub.clock.stamp())
    hub.group.append(decision)
    hub.commit()
    [row] = hub.store.rows("SELECT ended_at, outcome FROM attempt WHERE task = ?", n)
    assert row["ended_at"] is not None and row["outcome"] == "lost"


def test_a_success_while_stopping_is_salvaged_and_the_task_cancelled() -> None:
    hub = Hub()
    n = hub.working()
    assert hub.do(c.Cancel(n=n)).answer.pending
    assert report(hub, n=n) is Verdict.SALVAGED
    assert hub.state(n) is TaskState.CANCELLED
    assert salvaged(hub, n) == [(1, SHA)]


def test_the_cause_of_a_stop_outlives_what_the_agent_says_meanwhile() -> None:
    """A question asked while stopping became the cause of the cancellation."""
    hub = Hub()
    n = hub.working()
    hub.do(c.Cancel(n=n))
    hub.about(c.Ask, n, qid="q", text="really?")
    report(hub, n=n, outcome=Outcome.CANCELLED)
    assert (hub.state(n), hub.task(n).cause) == (TaskState.CANCELLED, "cancel")


def test_a_malformed_body_of_the_holder_is_kept_raw_and_fails_the_run() -> None:
    """Its raw body was thrown away when the result was applied."""
    hub = Hub()
    n = hub.working()
    verdict = report(
        hub, n=n, outcome=Outcome.FAILED, error_class="retryable", error_code="malformed_result", body='{"raw": 1}'
    )
    assert verdict is Verdict.APPLIED
    assert (hub.state(n), hub.task(n).cause) == (TaskState.SCHEDULED, "malformed_result")
    assert hub.store.rows("SELECT body FROM salvage WHERE task = ?", n) == [{"body": '{"raw": 1}'}]


# ── outcomes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

SUCCESS = Ended(Outcome.SUCCEEDED)
FAILED = Ended(Outcome.FAILED, error_class="retryable", error_code="boom")


@pytest.mark.parametrize(
    ("ended", "tries", "lost", "expected"),
    [
        (SUCCESS, 1, 0, "done succeeded"),
        (replace(SUCCESS, has_change=True), 1, 0, "in_review succeeded"),
        (replace(SUCCESS, needs_change=True), 1, 0, "scheduled no_change"),
        (replace(SUCCESS, needs_change=True), 3, 0, "dead no_change"),
        (replace(SUCCESS, has_change=True, verified=False), 1, 0, "scheduled verification_failed"),
        (replace(SUCCESS, has_change=True, verified=False), 3, 0, "dead verification_failed"),
        (FAILED, 1, 0, "scheduled boom"),
        (FAILED, 2, 0, "scheduled boom"),
        (FAILED, 3, 0, "dead boom"),
        (replace(FAILED, error_class="permanent"), 1, 0, "dead boom"),
        (replace(FAILED, error_class="rate_limited"), 3, 0, "scheduled rate_limited refunded"),
        (replace(FAILED, error_class="lost"), 3, 0, "queued boom refunded lost"),
        (Ended(Outcome.RATE_LIMITED), 3, 0, "scheduled rate_limited refunded"),
        (Ended(Outcome.LOST), 3, 0, "queued lost refunded lost"),
        (Ended(Outcome.LOST), 1, 1, "queued lost refunded lost"),
        (Ended(Outcome.LOST), 1, 2, "dead lost lost"),
        (Ended(Outcome.INTERRUPTED), 1, 0, "queued interrupted refunded lost"),
        (Ended(Outcome.CANCELLED), 1, 2, "dead cancelled lost"),
    ],
)
def test_what_each_outcome_costs(ended: Ended, tries: int, lost: int, expected: str) -> None:
    nxt = after(ended, tries=tries, max_tries=3, lost=lost, claims=1, jitter=0.5)
    said = f"{nxt.to} {nxt.cause}" + " refunded" * nxt.refund + " lost" * nxt.lost
    assert said == expected
    assert (nxt.delay_us is not None) == (nxt.to is TaskState.SCHEDULED)


@pytest.mark.parametrize(
    "ended", [FAILED, Ended(Outcome.LOST), Ended(Outcome.RATE_LIMITED), replace(SUCCESS, needs_change=True)]
)
def test_nothing_is_tried_again_after_fifty_claims(ended: Ended) -> None:
    nxt = after(ended, tries=1, max_tries=3, lost=0, claims=50, jitter=0.5)
    assert (nxt.to, nxt.cause) == (TaskState.DEAD, "too_many_claims")


def test_the_backoff_is_full_jitter_over_a_doubling_ceiling_of_an_hour() -> None:
    assert [backoff_us(tries, 1.0) // SECOND for tries in (1, 2, 3, 10, 11, 60)] == [5, 10, 20, 2560, 3600, 3600]
    assert backoff_us(3, 0.25) == 5 * SECOND
    assert backoff_us(1, 0.0) == 1


def test_a_rate_limits_own_delay_wins() -> None:
    hub = Hub()
    n = hub.working()
    hub.result(n, Outcome.RATE_LIMITED, retry_after_ms=90_000)
    task = hub.task(n)
    assert (task.state, task.tries, task.not_before) == (TaskState.SCHEDULED, 0, hub.clock.wall + 90 * SECOND)


def test_a_failure_carries_its_context_to_the_next_attempt() -> None:
    hub = Hub()
    n = hub.working()
    hub.result(n, Outcome.FAILED, error_code="boom", error_message="it broke", output="x" * 20_000 + "the end")
    [row] = hub.store.rows("SELECT text, source FROM feedback WHERE task = ?", n)
    assert row["source"] == "failure" and "boom" in row["text"] and "it broke" in row["text"]
    assert row["text"].endswith("the end") and len(row["text"]) < 17_000


def test_a_retry_runs_again_until_the_tries_are_used_up() -> None:
    hub = Hub()
    n = hub.working(max_tries=2)
    hub.result(n, Outcome.FAILED, error_code="boom")
    assert "because of boom" in (hub.explain(n) or "")
    hub.later(6)
    hub.beat()
    hub.accept(n)
    hub.result(n, Outcome.FAILED, error_code="boom")
    assert (hub.state(n), hub.task(n).tries) == (TaskState.DEAD, 2)
