"""Protocol §4: acceptance, timers, leases, declines, losses and their budgets."""

from __future__ import annotations

from typing import Any

import pytest

from hub.core import commands as c
from hub.core.decision import AckResult, Beaten, GrantLease, Okay, PushAssign, Revoke
from hub.core.lease import Terms
from hub.ids import SECOND, AgentState, Outcome, TaskState, Verdict
from tests.support.cluster import Hub, held, lease, new


def assigned(**fields: Any) -> tuple[Hub, int]:
    hub = Hub()
    hub.hello()
    [n] = hub.submit(**fields)
    assert hub.state(n) is TaskState.ASSIGNED
    return hub, n


def counted(hub: Hub, n: int) -> tuple[int, int, int, int]:
    task = hub.task(n)
    return task.tries, task.lost, task.claims, task.lease_epoch


def test_a_submit_that_finds_an_idle_agent_is_claimed_in_the_same_decision() -> None:
    hub = Hub()
    hub.hello()
    decision = hub.do(c.Submit(tasks=(new(),)))
    assert decision.claims == 1
    assert any(isinstance(effect, PushAssign) for _, _, effect in decision.effects)


def test_accept_begins_the_lease_and_said_again_grants_again() -> None:
    hub, n = assigned()
    hub.effects()
    hub.accept(n)
    hub.accept(n)
    assert hub.effects() == [GrantLease(n=n, lease_epoch=1)] * 2
    assert counted(hub, n) == (1, 0, 1, 1)
    assert hub.task(n).lease_until == hub.clock.mono + 240 * SECOND


def test_an_accept_said_again_begins_the_lease_again() -> None:
    """The sidecar counts its lease from the sending that is answered, so the hub must, too (found by the simulation: I15)."""
    hub, n = assigned()
    hub.accept(n)
    hub.later(10)
    hub.accept(n)
    assert hub.task(n).lease_until == hub.clock.mono + 240 * SECOND


def test_a_late_accept_is_revoked() -> None:
    hub, n = assigned()
    hub.later(31)
    hub.effects()
    hub.said(c.Accept, n=n, lease_epoch=1)
    assert Revoke(n=n, lease_epoch=1, code="not_yours") in hub.effects()


def test_an_unanswered_assign_is_sent_again_after_a_third_and_taken_back_at_the_end() -> None:
    hub, n = assigned()
    hub.effects()
    hub.later(9.9)
    assert hub.effects() == []
    hub.later(0.2)
    assert [effect.lease_epoch for effect in hub.effects(PushAssign)] == [1]
    hub.later(19.8)
    assert hub.state(n) is TaskState.ASSIGNED
    hub.later(0.2)
    assert hub.state(n) is TaskState.QUEUED
    assert counted(hub, n) == (0, 0, 0, 1), "the try is refunded, the fence is spent"


def test_a_timeout_silences_an_agent_until_it_is_heard_again() -> None:
    hub, n = assigned()
    hub.later(30)
    hub.clock.advance(1)
    [other] = hub.submit()
    assert hub.state(other) is TaskState.QUEUED
    hub.beat()
    assert hub.cluster.agents["w1"].task == n


def test_a_timeout_counts_only_against_an_agent_that_was_heard_after_the_offer() -> None:
    hub, _ = assigned()
    hub.later(30)
    assert hub.cluster.agents["w1"].strikes == (), "a dead link is nobody's fault"
    hub.beat()
    hub.clock.advance(1)
    hub.beat()
    hub.later(30)
    assert [strike.cause for strike in hub.cluster.agents["w1"].strikes] == ["accept_timeout"]


def test_a_lost_socket_changes_nothing_before_the_accept_deadline() -> None:
    hub, n = assigned()
    hub.said(c.Disconnected)
    hub.later(29)
    assert hub.state(n) is TaskState.ASSIGNED
    hub.later(2)
    assert hub.state(n) is TaskState.QUEUED


def test_after_a_hub_restart_the_accept_deadline_starts_at_readiness() -> None:
    hub, n = assigned()
    hub.clock.advance(25)
    hub.restart()
    hub.later(29)
    assert hub.state(n) is TaskState.ASSIGNED
    hub.later(2)
    assert hub.state(n) is TaskState.QUEUED


def test_an_agent_unseen_for_a_beat_and_a_half_is_given_nothing_until_it_speaks() -> None:
    hub = Hub()
    hub.hello()
    hub.later(31)
    [n] = hub.submit()
    assert hub.state(n) is TaskState.QUEUED
    hub.beat()
    assert hub.state(n) is TaskState.ASSIGNED


def test_a_pinned_task_waits_for_its_silent_agent_and_is_given_with_its_next_frame() -> None:
    """The silent agent stayed listed as idle, so its next frame did not look for work."""
    hub = Hub()
    hub.hello()
    hub.later(31)
    [n] = hub.submit(assign_to="w1")
    assert hub.state(n) is TaskState.QUEUED
    hub.beat()
    assert hub.state(n) is TaskState.ASSIGNED


@pytest.mark.parametrize(("retry_after_ms", "waits"), [(0, 1.0), (7000, 7.0)])
def test_a_decline_makes_the_agent_wait(retry_after_ms: int, waits: float) -> None:
    hub, n = assigned()
    hub.about(c.Decline, n, code="busy", retry_after_ms=retry_after_ms)
    assert hub.state(n) is TaskState.QUEUED
    assert counted(hub, n) == (0, 0, 0, 1)
    hub.later(waits - 0.1)
    assert hub.state(n) is TaskState.QUEUED
    hub.later(0.2)
    assert hub.state(n) is TaskState.ASSIGNED


def test_declines_double_up_to_a_minute() -> None:
    hub, n = assigned()
    waits = []
    for _ in range(8):
        hub.about(c.Decline, n, code="busy")
        waits.append((hub.cluster.agents["w1"].declined_until_mono - hub.clock.mono) / SECOND)
        hub.later(waits[-1])
        hub.beat()
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_decline_is_answered_with_its_commit() -> None:
    """The link used to answer it itself, before anything was durable."""
    hub, n = assigned()
    hub.grouping = True
    decision = hub.about(c.Decline, n, code="busy", re=5)
    assert Okay(re=5) in [effect for _, _, effect in decision.effects]
    assert decision.rows


def strike_out(hub: Hub, n: int, times: int = 3) -> None:
    for _ in range(times):
        hub.later(61)
        hub.beat()
        assert hub.cluster.agents["w1"].task == n
        hub.about(c.Decline, n, code="no_runtime")


def test_the_quarantine_ladder_is_ten_minutes_an_hour_and_a_person() -> None:
    hub, n = assigned()
    agent = hub.cluster.agents["w1"]
    hub.about(c.Decline, n, code="busy")
    for lasts, times in ((600, 3), (3600, 1)):
        strike_out(hub, n, times)
        assert agent.quarantined_until == hub.clock.wall + lasts * SECOND
        hub.later(lasts - 1)
        hub.beat()
        assert agent.task is None
        assert "quarantined until" in (hub.explain(n) or "")
        hub.later(2)
        hub.beat()
        assert agent.task == n
        hub.about(c.Decline, n, code="busy")
    strike_out(hub, n, 1)
    hub.later(100_000)
    hub.beat()
    assert agent.task is None
    assert "until resumed" in (hub.explain(n) or "")
    hub.restart()
    hub.hello()
    assert hub.cluster.agents["w1"].task is None, "a quarantine survives a restart"
    hub.do(c.ResumeAgent(agent="w1"))
    assert hub.cluster.agents["w1"].task == n
    assert hub.cluster.agents["w1"].quarantine_level == 0


@pytest.mark.parametrize("code", ["busy", "quiet", "rate_limited"])
def test_honest_reasons_are_no_strikes(code: str) -> None:
    hub, n = assigned()
    for _ in range(4):
        hub.about(c.Decline, n, code=code)
        hub.later(61)
        hub.beat()
    assert hub.cluster.agents["w1"].strikes == ()


def test_an_acceptance_clears_the_record() -> None:
    hub, n = assigned()
    for _ in range(2):
        hub.about(c.Decline, n, code="no_runtime")
        hub.later(61)
        hub.beat()
    hub.accept(n)
    agent = hub.cluster.agents["w1"]
    assert (agent.strikes, agent.decline_step, agent.quarantine_level) == ((), 0, 0)


def test_beats_renew_and_silence_expires_at_four_thirds_of_the_lease() -> None:
    hub = Hub()
    n = hub.working()
    hub.later(200)
    hub.beat()
    hub.later(239)
    assert hub.state(n) is TaskState.WORKING
    hub.later(2)
    assert hub.state(n) is TaskState.QUEUED
    assert counted(hub, n) == (0, 1, 1, 1)
    assert hub.task(n).cause == "lease_expired"


def test_a_renewal_writes_nothing_and_may_leave_early() -> None:
    hub = Hub()
    n = hub.working()
    decision = hub.said(c.Beat, leases=(lease(n, 1),), sent_mono=7, re=3)
    assert not decision.rows and not decision.events
    assert decision.early == (n,)
    [(_, _, told)] = decision.effects
    assert isinstance(told, Beaten) and told.leases[0].ok and (told.sent_mono, told.re) == (7, 3)


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_beat_about_another_fence_hears_lost_and_never_early(epoch: int) -> None:
    hub = Hub()
    n = hub.working()
    until = hub.task(n).lease_until
    hub.clock.advance(10)
    decision = hub.said(c.Beat, leases=(lease(n, epoch),))
    [(_, _, told)] = decision.effects
    assert not told.leases[0].ok
    assert decision.early is None
    assert hub.task(n).lease_until == until


def test_the_third_loss_is_the_last() -> None:
    hub = Hub()
    n = hub.working()
    for lost in (1, 2):
        hub.later(241)
        assert (hub.state(n), hub.task(n).lost) == (TaskState.QUEUED, lost)
        hub.beat()
        hub.accept(n)
    hub.later(241)
    assert (hub.state(n), hub.task(n).cause) == (TaskState.DEAD, "lease_expired")


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_wall_clock_jump_neither_expires_nor_extends_a_lease(seconds: int) -> None:
    """I17."""
    hub = Hub()
    n = hub.working()
    hub.clock.jump(seconds)
    hub.later(239)
    assert hub.state(n) is TaskState.WORKING
    hub.later(2)
    assert hub.state(n) is TaskState.QUEUED


def worn_out(**fields: Any) -> tuple[Hub, int]:
    """A task whose fiftieth claim is working."""
    hub = Hub()
    n = hub.working(**fields)
    for _ in range(49):
        hub.about(c.GiveBack, n, reason="drain")
        hub.beat()
        hub.accept(n)
    assert hub.task(n).claims == 50
    return hub, n


def test_no_give_back_outlives_fifty_claims() -> None:
    hub, n = worn_out()
    hub.about(c.GiveBack, n, reason="drain")
    assert (hub.state(n), hub.task(n).cause) == (TaskState.DEAD, "too_many_claims")


def test_no_parked_question_outlives_fifty_claims() -> None:
    hub, n = worn_out()
    hub.about(c.Ask, n, qid="q", text="?")
    hub.about(c.GiveBack, n, reason="parked")
    hub.do(c.Answer(n=n, text="go"))
    assert (hub.state(n), hub.task(n).cause) == (TaskState.DEAD, "too_many_claims")


def test_no_forced_assignment_outlives_fifty_claims() -> None:
    hub, n = worn_out()
    hub.hello("w2")
    hub.do(c.Assign(n=n, agent="w2", force=True))
    assert hub.result(n, Outcome.INTERRUPTED) is Verdict.APPLIED
    assert (hub.state(n), hub.task(n).cause) == (TaskState.DEAD, "too_many_claims")


def test_no_rework_outlives_fifty_claims() -> None:
    hub, n = worn_out(repo="app")
    hub.result(n, has_change=True)
    hub.do(c.Rework(n=n, lease_epoch=hub.task(n).lease_epoch, feedback="again"))
    assert (hub.state(n), hub.task(n).cause) == (TaskState.DEAD, "too_many_claims")


def test_a_requeue_gives_fifty_new_claims() -> None:
    hub, n = worn_out()
    hub.about(c.GiveBack, n, reason="drain")
    hub.do(c.Requeue(n=n))
    assert (hub.task(n).claims, hub.task(n).generation) == (0, 2)


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_question_blocks_and_its_answer_resumes() -> None:
    hub = Hub()
    n = hub.blocked()
    assert (hub.state(n), hub.cluster.agents["w1"].state) == (TaskState.BLOCKED, AgentState.BLOCKED)
    assert "question q waits" in (hub.explain(n) or "")
    hub.effects()
    hub.do(c.Answer(n=n, text="blue", actor="ann"))
    [control] = hub.effects()
    assert (control.kind, control.qid, control.text) == ("answer", "q", "blue")
    assert (hub.state(n), hub.cluster.agents["w1"].state) == (TaskState.WORKING, AgentState.WORKING)


def test_an_answered_question_said_again_is_not_asked_again() -> None:
    hub = Hub()
    n = hub.blocked()
    hub.do(c.Answer(n=n, text="blue"))
    hub.about(c.Ask, n, qid="q", text="which?", re=9)
    assert hub.state(n) is TaskState.WORKING
    assert Okay(re=9) in hub.effects()


def test_parking_gives_the_lease_up_and_moves_no_counter() -> None:
    hub = Hub()
    n = hub.blocked()
    tries = hub.task(n).tries
    hub.about(c.GiveBack, n, reason="parked", conversation_id="c-1", re=1)
    task = hub.task(n)
    assert (task.state, task.parked, task.holder, task.conversation_id) == (TaskState.BLOCKED, True, None, "c-1")
    assert (task.tries, task.lost) == (tries - 1, 0), "the claim that follows the answer spends it again"
    assert "parked" in (hub.explain(n) or "")
    hub.later(100_000)
    assert hub.state(n) is TaskState.BLOCKED, "without a lease nothing expires"
    hub.hello("w2")
    hub.hello("w1")
    hub.do(c.Answer(n=n, text="go"))
    assert hub.task(n).holder == "w1", "it returns to its agent and conversation"


def test_an_agent_resumed_after_parking_may_ask_the_same_question_again() -> None:
    """Its id was remembered as answered beyond the attempt: the question was obeyed and dropped, the agent waited for ever."""
    hub = Hub()
    n = hub.blocked()
    hub.about(c.GiveBack, n, reason="parked")
    hub.do(c.Answer(n=n, text="go"))
    hub.accept(n)
    hub.about(c.Ask, n, qid="q", text="which, again?")
    assert hub.state(n) is TaskState.BLOCKED


def test_parking_that_crosses_the_answer_queues_at_once() -> None:
    hub = Hub()
    n = hub.blocked()
    hub.do(c.Answer(n=n, text="blue"))
    hub.about(c.GiveBack, n, reason="parked")
    assert hub.task(n).lease_epoch == 2, "queued and claimed again"


# ── retries that avoid ───────────────────────────────────────────────────────────────────────────────────────────────────────


def avoiding() -> tuple[Hub, int]:
    """w1 failed; the retry is due and waits for w2, which is busy."""
    hub = Hub()
    n = hub.working()
    hub.hello("w2", capabilities=())
    [other] = hub.submit(title="other", assign_to="w2")
    hub.accept(other)
    hub.result(n, Outcome.FAILED)
    hub.later(3)
    assert hub.state(n) is TaskState.QUEUED
    return hub, n


def test_a_retry_avoids_the_agent_that_failed_for_a_while() -> None:
    hub, n = avoiding()
    hub.later(20)
    hub.beat("w1")
    hub.later(20)
    hub.beat("w1")
    assert hub.state(n) is TaskState.QUEUED
    hub.later(21)
    hub.beat("w1")
    assert hub.task(n).holder == "w1"


def test_a_retry_takes_the_other_agent_when_it_is_free() -> None:
    hub, n = avoiding()
    hub.result(hub.cluster.agents["w2"].task)
    assert hub.task(n).holder == "w2"


@pytest.mark.parametrize(
    "goes",
    [
        lambda hub: hub.said(c.Disconnected, "w2"),
        lambda hub: hub.do(c.PauseAgent(agent="w2")),
        lambda hub: hub.hello("w2", projects=("other",)),
    ],
    ids=["leaves", "is paused", "changes"],
)
def test_a_retry_stops_waiting_for_an_agent_that_is_not_to_be_had(goes: Any) -> None:
    """Only the timer, a minute later, or the safety pass would have offered it again."""
    hub, n = avoiding()
    goes(hub)
    assert hub.task(n).holder == "w1"


def test_a_second_avoidance_is_timed_anew() -> None:
    """The timer of the first one fired early, offered in vain and was never armed again."""
    hub = Hub(Terms(avoid_us=60 * SECOND))
    hub.clock.jitter = 0.0
    n = hub.working(max_tries=9)
    hub.hello("w2")
    for agent in ("w1", "w2"):
        assert hub.task(n).holder == agent
        if agent == "w2":
            hub.accept(n)
        hub.clock.advance(20)
        hub.beat("w1")
        hub.beat("w2")
        hub.result(n, Outcome.FAILED, agent)
        hub.later(0.001)
    assert hub.task(n).holder == "w1"
    hub.accept(n)
    [busy] = hub.submit(title="busy", assign_to="w2")
    hub.accept(busy)
    hub.result(n, Outcome.FAILED, "w1")
    hub.later(0.001)
    for _ in range(13):
        hub.later(5)
        hub.beat("w1")
        hub.beat("w2")
    assert hub.task(n).holder == "w1"


def test_pinned_work_behind_a_paused_project_is_not_forgotten() -> None:
    """Only the first pinned task was looked at: a paused project in front starved everything behind it."""
    hub = Hub()
    n = hub.working()
    hub.submit(new("paused", project="other", assign_to="w1"))
    [behind] = hub.submit(new("behind", assign_to="w1"))
    projects = dict(hub.cluster.projects) | {"other": (True, "auto")}
    hub.do(c.Registry(projects=projects, repos={}))
    hub.result(n)
    assert hub.task(behind).holder == "w1"


def test_a_silent_agent_in_front_does_not_hide_the_others_when_a_pause_ends() -> None:
    """The first of its class had nothing to say, so none of its equals was asked."""
    hub = Hub()
    for agent in ("w1", "w2"):
        hub.hello(agent)
    hub.do(c.Registry(projects={"default": (True, "auto")}, repos={}))
    [n] = hub.submit()
    hub.clock.advance(31)
    hub.beat("w2")
    hub.do(c.Registry(projects={"default": (False, "auto")}, repos={}))
    assert hub.task(n).holder == "w2"


def test_a_retry_that_avoids_the_first_agent_is_offered_to_the_others_when_a_pause_ends() -> None:
    hub, n = avoiding()
    busy = hub.cluster.agents["w2"].task
    hub.hello("w2", held=(held(busy, hub.task(busy).lease_epoch),))
    hub.do(c.Registry(projects={"default": (True, "auto")}, repos={}))
    hub.result(busy)
    assert hub.state(n) is TaskState.QUEUED
    hub.do(c.Registry(projects={"default": (False, "auto")}, repos={}))
    assert hub.task(n).holder == "w2"


def test_a_task_requeued_after_it_was_forgotten_has_one_place_in_the_queue() -> None:
    """Its stale entries of an earlier life became live again when the token counted from one."""
    hub = Hub()
    [n] = hub.submit(assign_to="w1")
    hub.do(c.Cancel(n=n))
    hub.later(301)
    assert n not in hub.cluster.tasks
    hub.do(c.Requeue(n=n))
    assert hub.cluster.ready.pinned_to("w1") == 1


def test_warm_and_rested_agents_come_first() -> None:
    hub = Hub()
    for agent in ("w1", "w2", "w3"):
        hub.hello(agent)
    [first] = hub.submit(repo="app")
    assert hub.task(first).holder == "w1"
    hub.accept(first)
    hub.result(first, Outcome.FAILED, error_class="permanent")
    [warm] = hub.submit(title="warm", repo="app")
    assert hub.task(warm).holder == "w1", "its workspace is warm"
    [cold] = hub.submit(title="cold")
    assert hub.task(cold).holder == "w2", "idle for longest"


def test_draining_claims_nothing_and_lets_everything_else_go_on() -> None:
    hub = Hub()
    n = hub.working()
    hub.do(c.Drain())
    [other] = hub.submit(title="other")
    hub.effects()
    hub.result(n)
    assert [type(effect) for effect in hub.effects()] == [AckResult]
    assert hub.state(other) is TaskState.QUEUED
    assert "draining" in (hub.explain(other) or "")
