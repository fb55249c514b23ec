"""Work that was not applied: what is kept, and what adopting or dropping it does to its task. Never applied twice, never ungated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from hub.core import commands as c
from hub.core.decision import TaskAnswer
from hub.core.errors import Refused
from hub.core.task import Edge
from hub.ids import LeaseEpoch, Outcome, TaskId, TaskState, Verdict
from tests.support.cluster import SHA, Hub, needs, new

OTHER = "cd" * 32
WORK = c.Work(branch="agentcom/t-1/1", base_sha="a" * 40, head_sha="b" * 40)
CHANGE = {"has_change": True, "branch": WORK.branch, "base_sha": WORK.base_sha, "head_sha": WORK.head_sha}


def adopt(
    hub: Hub, n: int, epoch: int = 1, *, work: c.Work | None = WORK, force: bool = False, by: str = "ann", sha256: str = SHA
) -> TaskAnswer:
    command = c.AdoptSalvage(actor=by, n=TaskId(n), lease_epoch=LeaseEpoch(epoch), sha256=sha256, work=work, force=force)
    answer = hub.do(command).answer
    assert isinstance(answer, TaskAnswer)
    return answer


def refused(hub: Hub, n: int, epoch: int = 1, **how: Any) -> Refused:
    before = hub.store.rows("SELECT * FROM task"), hub.store.rows("SELECT * FROM salvage")
    with pytest.raises(Refused) as refusal:
        adopt(hub, n, epoch, **how)
    hub.commit()
    assert (hub.store.rows("SELECT * FROM task"), hub.store.rows("SELECT * FROM salvage")) == before
    return refusal.value


def kept(hub: Hub, n: int) -> list[dict[str, Any]]:
    return hub.store.rows("SELECT * FROM salvage WHERE task = ? ORDER BY lease_epoch", n)


def body(**fields: Any) -> str:
    return orjson.dumps({"output": "what I found", "commits": [], "verification": None} | fields).decode()


def salvaged(*, queued: bool = False, **fields: Any) -> tuple[Hub, int]:
    """w1's lease 1 was lost, and its success came when the task was in other hands (or, ``queued``, in none but failed its checks)."""
    hub = Hub()
    fields = {"repo": "app"} | fields
    n = hub.working(**fields)
    hub.later(241)
    if queued:
        hub.do(c.PauseAgent(agent="w1"))  # type: ignore[arg-type]
    else:
        hub.beat()
        hub.accept(n)
    change = CHANGE if fields["repo"] else {}
    late = {"passed": False} if queued else {}
    hub.said(c.Report, n=n, lease_epoch=LeaseEpoch(1), outcome=Outcome.SUCCEEDED, sha256=SHA, body=body(), **change, **late)
    assert [row["state"] for row in kept(hub, n)] == ["open"]
    return hub, n


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_late_result_is_kept_with_what_it_names_and_why() -> None:
    hub, n = salvaged()
    [row] = kept(hub, n)
    assert (row["agent"], row["outcome"], row["branch"], row["head_sha"]) == ("w1", "succeeded", WORK.branch, WORK.head_sha)
    assert row["reason"] == "it came too late: lease 2 was the task's by then"
    assert "salvage.kept" in hub.events(n)


def test_the_commits_of_a_failed_run_are_kept_for_the_next() -> None:
    hub = Hub()
    n = hub.working(repo="app")
    assert hub.result(n, Outcome.FAILED, error_code="boom", **CHANGE) is Verdict.APPLIED
    [row] = kept(hub, n)
    assert (row["branch"], row["reason"], hub.state(n)) == (WORK.branch, "its attempt ended: boom", TaskState.SCHEDULED)


def test_what_an_applied_result_left_uncommitted_is_kept_without_its_commits() -> None:
    hub = Hub()
    n = hub.working(repo="app")
    hub.result(n, salvage_ref="agentcom/salvage/t-1/1", **CHANGE)
    [row] = kept(hub, n)
    assert (row["branch"], row["head_sha"], row["salvage_ref"]) == (None, None, "agentcom/salvage/t-1/1")
    assert (row["base_sha"], hub.state(n)) == ("a" * 40, TaskState.IN_REVIEW)


def test_what_a_cancelled_run_had_committed_is_kept() -> None:
    hub = Hub()
    n = hub.working(repo="app")
    hub.do(c.Cancel(n=TaskId(n)))
    hub.result(n, Outcome.CANCELLED, **CHANGE)
    assert (hub.state(n), [row["reason"] for row in kept(hub, n)]) == (TaskState.CANCELLED, ["stopped for cancelled"])


def test_a_success_and_a_plain_failure_leave_nothing() -> None:
    hub = Hub()
    n, m = hub.working(repo="app"), None
    hub.result(n, **CHANGE)
    m = hub.working()
    hub.result(m, Outcome.FAILED, error_code="boom")
    assert kept(hub, n) == kept(hub, m) == []


def test_the_same_result_of_an_unknown_task_is_kept_once_and_a_decision_about_it_stays() -> None:
    hub = Hub()
    hub.hello()
    said = {"n": 99, "lease_epoch": 3, "outcome": Outcome.SUCCEEDED, "sha256": SHA}
    hub.said(c.Report, **said)
    hub.do(c.DropSalvage(actor="ann", n=TaskId(99), lease_epoch=LeaseEpoch(3), reason="what is it?"))
    again = hub.said(c.Report, **said)
    assert again.effects[0][2].verdict is Verdict.DUPLICATE  # type: ignore[union-attr]
    assert [(row["state"], row["note"]) for row in kept(hub, 99)] == [("dropped", "what is it?")]


# ── adopting ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_adopted_commits_go_to_review_under_a_new_fence() -> None:
    hub, n = salvaged(queued=True)
    answer = adopt(hub, n)
    assert (answer.state, answer.lease_epoch) == (TaskState.IN_REVIEW, 2)
    [result] = hub.store.rows("SELECT * FROM result WHERE task = ?", n)
    assert (result["lease_epoch"], result["origin_epoch"], result["head_sha"]) == (2, 1, WORK.head_sha)
    [row] = kept(hub, n)
    assert (row["state"], row["applied_epoch"], row["decided_by"]) == ("applied", 2, "ann")
    assert hub.events(n)[-2:] == ["task.in_review", "salvage.applied"]


def test_whatever_the_old_lease_still_says_stays_stale() -> None:
    hub, n = salvaged(queued=True)
    adopt(hub, n)
    again = hub.said(c.Report, n=n, lease_epoch=LeaseEpoch(1), outcome=Outcome.SUCCEEDED, sha256=OTHER, **CHANGE)
    assert again.effects[0][2].verdict is Verdict.DUPLICATE  # type: ignore[union-attr]
    assert hub.task(n).lease_epoch == 2


def test_an_output_ends_a_task_that_needs_no_commits() -> None:
    hub = Hub()
    n = hub.working(type="research")
    hub.later(241)
    hub.beat()
    hub.accept(n)
    hub.said(c.Report, n=n, lease_epoch=LeaseEpoch(1), outcome=Outcome.SUCCEEDED, sha256=SHA, body=body())
    hub.about(c.GiveBack, n, reason="drain")
    hub.do(c.PauseAgent(agent="w1"))  # type: ignore[arg-type]
    [m] = hub.submit(depends_on=(needs(n),))
    answer = adopt(hub, n, work=None, force=True)
    assert answer.state is TaskState.DONE
    [result] = hub.store.rows("SELECT output FROM result WHERE task = ?", n)
    assert (result["output"], hub.state(m)) == ("what I found", TaskState.QUEUED)


def test_said_again_it_changes_nothing_also_after_a_restart() -> None:
    hub, n = salvaged(queued=True)
    first = adopt(hub, n)
    seq = hub.store.last_seq
    assert adopt(hub, n, by="bob") == first
    hub.restart()
    before = hub.store.last_seq
    assert adopt(hub, n) == first
    assert hub.store.last_seq == before >= seq


def test_of_two_at_once_one_wins() -> None:
    """Both were decided on the same committed row: the second must see what the first did, not what was read."""
    hub, n = salvaged(queued=True)
    command = c.AdoptSalvage(actor="ann", n=TaskId(n), lease_epoch=LeaseEpoch(1), work=WORK)
    asked = hub.scheduler.wanted_facts(command)
    assert asked is not None
    facts = c.Facts(salvage=tuple(hub.store.rows("SELECT * FROM salvage WHERE task = ?", n)))
    hub.grouping = True
    hub.group.append(first := hub.scheduler.apply(replace(command, facts=facts), hub.clock.stamp()))
    second = hub.scheduler.apply(replace(command, actor="bob", facts=facts), hub.clock.stamp())
    assert second.answer == first.answer
    assert not second.rows, "it is the same adoption"
    drop = c.DropSalvage(actor="bob", n=TaskId(n), lease_epoch=LeaseEpoch(1), reason="no", facts=facts)
    with pytest.raises(Refused) as refusal:
        hub.scheduler.apply(drop, hub.clock.stamp())
    assert refusal.value.code == "applied"


def test_another_record_of_a_task_that_took_one_is_refused() -> None:
    hub, n = salvaged(queued=True)
    hub.do(c.ResumeAgent(agent="w1"))  # type: ignore[arg-type]
    hub.accept(n)
    hub.result(n, Outcome.FAILED, error_class="permanent", error_code="boom", sha256=OTHER, **CHANGE)
    adopt(hub, n, 1)
    assert refused(hub, n, 2, sha256=OTHER).code == "in_review"


def test_commits_of_one_record_are_never_adopted_as_another_of_its_lease() -> None:
    hub, n = salvaged(queued=True)
    assert refused(hub, n, sha256=OTHER).code == "other_record"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_running_attempt_is_stopped_first_if_that_is_forced(restarted: bool) -> None:
    hub, n = salvaged()
    problem = refused(hub, n)
    assert (problem.code, problem.hint) == ("leased", "--force stops it first")
    answer = adopt(hub, n, force=True)
    assert answer.pending
    assert kept(hub, n)[0]["state"] == "applying"
    if restarted:
        hub.restart()
        hub.hello(held=())
        assert hub.state(n) is TaskState.IN_REVIEW, "the agent is gone: nothing is left to stop"
    else:
        assert adopt(hub, n, force=True).pending, "said again it is the same"
        hub.result(n, Outcome.CANCELLED, sha256=OTHER)
    assert (hub.state(n), hub.task(n).lease_epoch) == (TaskState.IN_REVIEW, 3)
    assert (kept(hub, n)[0]["state"], kept(hub, n)[0]["decided_by"]) == ("applied", "ann")


def test_a_cancel_meanwhile_wins_and_the_record_is_open_again() -> None:
    hub, n = salvaged()
    adopt(hub, n, force=True)
    hub.do(c.Cancel(n=TaskId(n)))
    hub.result(n, Outcome.CANCELLED, sha256=OTHER)
    assert (hub.state(n), kept(hub, n)[0]["state"]) == (TaskState.CANCELLED, "open")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_finished_task_begins_a_new_generation(restarted: bool) -> None:
    hub, n = salvaged(queued=True)
    hub.do(c.Cancel(n=TaskId(n)))
    if restarted:
        hub.restart()
    assert adopt(hub, n).state is TaskState.IN_REVIEW
    assert hub.task(n).generation == 2


def test_a_held_task_and_one_that_waits_for_its_retry_take_it() -> None:
    hub, n = salvaged(queued=True)
    hub.do(c.Hold(n=TaskId(n)))
    assert adopt(hub, n).state is TaskState.IN_REVIEW
    other = Hub()
    m = other.working(repo="app")
    other.result(m, Outcome.FAILED, error_code="boom", **CHANGE)
    assert other.state(m) is TaskState.SCHEDULED
    assert adopt(other, m).state is TaskState.IN_REVIEW


def test_what_cannot_be_a_result_is_refused_with_the_reason() -> None:
    hub, n = salvaged(queued=True)
    problem = refused(hub, n, work=None)
    assert problem.code == "nothing_to_apply"
    assert "needs a change; the next attempt is told of it anyway" in problem.message
    assert refused(hub, n, 7).code == "unknown_salvage"
    assert refused(hub, 99).code == "unknown_salvage"
    hub.do(c.DropSalvage(actor="ann", n=TaskId(n), lease_epoch=LeaseEpoch(1), reason="bad"))
    assert refused(hub, n).code == "dropped"


def test_a_malformed_body_is_nobodys_result() -> None:
    hub = Hub()
    n = hub.working(type="research")
    hub.result(n, Outcome.FAILED, error_class="retryable", error_code="malformed_result", body="{]")
    assert refused(hub, n, work=None).code == "nothing_to_apply"


def test_commits_never_become_a_change_of_a_task_that_may_make_none() -> None:
    hub = Hub()
    n = hub.working(type="research", access="read_only", repo="app")
    hub.later(241)
    hub.beat()
    hub.accept(n)
    hub.said(c.Report, n=n, lease_epoch=LeaseEpoch(1), outcome=Outcome.SUCCEEDED, sha256=SHA, body=body(), **CHANGE)
    hub.about(c.GiveBack, n, reason="drain")
    hub.do(c.PauseAgent(agent="w1"))  # type: ignore[arg-type]
    assert adopt(hub, n, force=True).state is TaskState.DONE
    assert hub.store.rows("SELECT branch, head_sha FROM result WHERE task = ?", n) == [{"branch": None, "head_sha": None}]


def test_a_task_of_which_nothing_is_known_takes_nothing() -> None:
    hub = Hub()
    hub.hello()
    hub.said(c.Report, n=99, lease_epoch=LeaseEpoch(3), outcome=Outcome.SUCCEEDED, sha256=SHA)
    assert refused(hub, 99, 3).code == "unknown_task"


def test_a_task_whose_needs_are_open_takes_nothing() -> None:
    hub = Hub()
    n = hub.working(repo="app")
    hub.later(241)
    hub.do(c.PauseAgent(agent="w1"))  # type: ignore[arg-type]
    hub.said(c.Report, n=n, lease_epoch=LeaseEpoch(1), outcome=Outcome.SUCCEEDED, passed=False, sha256=SHA, **CHANGE)
    [m] = hub.submit(new("open"))
    hub.do(c.Cancel(n=TaskId(n)))
    task = hub.task(n)
    task.edges = (Edge(TaskId(m), "skip"),)
    assert refused(hub, n).code == "wrong_state"


def test_a_drop_is_remembered_with_its_reason_and_said_again_changes_nothing() -> None:
    hub, n = salvaged(queued=True)
    command = c.DropSalvage(actor="ann", n=TaskId(n), lease_epoch=LeaseEpoch(1), reason="worse than the other")
    hub.do(command)
    seq = hub.store.last_seq
    hub.do(command)
    [row] = kept(hub, n)
    assert (row["state"], row["note"], row["decided_by"], hub.store.last_seq) == ("dropped", "worse than the other", "ann", seq)
    assert "salvage.dropped" in hub.events(n)
