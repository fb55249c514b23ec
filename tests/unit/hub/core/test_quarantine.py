"""Protocol §4.3, §4.6: a broken agent is kept from the queue at no cost for its tasks; a bad task is not blamed on agents."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from hub.core import commands as c
from hub.core.decision import PushAssign
from hub.core.task import MAX_CLAIMS
from hub.ids import SECOND, Outcome, TaskState
from tests.support.cluster import Hub

BROKEN = {"error_class": "retryable", "error_code": "cannot_start"}
ABRUPT = {"error_class": "retryable", "error_code": "agent_failed"}


def fleet(*agents: str) -> Hub:
    hub = Hub()
    for agent in agents:
        hub.hello(agent)
    return hub


def ends(hub: Hub, n: int, outcome: Outcome = Outcome.FAILED, after_s: float = 1, **fields: Any) -> None:
    """Whoever holds the task runs it for a while, and it ends so."""
    hub.accept(n)
    hub.clock.advance(after_s)
    hub.result(n, outcome, **fields)


def loses(hub: Hub, n: int) -> None:
    """Whoever holds the task restarts and knows nothing of it."""
    hub.accept(n)
    hub.hello(str(hub.task(n).holder), boot=f"after {n}")


def again(hub: Hub, n: int) -> None:
    """Time passes until somebody holds the task."""
    for _ in range(60):
        if hub.task(n).holder is not None:
            return
        hub.later(5)
        for agent in list(hub.cluster.agents):
            hub.beat(agent)
    raise AssertionError(f"t-{n}: {hub.explain(n)}")


def quarantined(hub: Hub, agent: str) -> bool:
    known = hub.cluster.agents[agent]
    return known.quarantined_until is not None and known.quarantined_until > hub.clock.wall


def the_event(hub: Hub) -> dict[str, Any]:
    [row] = hub.store.rows("SELECT cause, data FROM event WHERE kind = 'agent.quarantined'")
    return {"cause": row["cause"], **orjson.loads(row["data"])}


# ── an agent that cannot work ────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_agent_whose_program_cannot_start_fails_three_tasks_for_free_and_is_kept_from_the_rest() -> None:
    hub = fleet("w1")
    tasks = hub.submit(*(c.NewTask(title=f"{i}", spec="{}", body_hash=f"{i}", max_tries=1) for i in range(10)))
    for n in tasks[:3]:
        ends(hub, n, **BROKEN)
    assert quarantined(hub, "w1")
    assert [hub.task(n).tries for n in tasks] == [0] * 10
    assert not [n for n in tasks if hub.task(n).terminal], "not even with a single try is a task lost to it"
    assert the_event(hub) == {
        "cause": "cannot_start",
        "of": "run",
        "level": 1,
        "until": hub.clock.wall + 600 * SECOND,
        "tasks": [f"t-{n}" for n in tasks[:3]],
    }
    said = hub.explain(tasks[9]) or ""
    assert "w1 is quarantined until" in said and "cannot_start" in said and "agentcom agent resume w1" in said


def test_one_task_is_enough_when_it_is_surely_the_agents_fault() -> None:
    hub = fleet("w1")
    [n] = hub.submit(max_tries=1)
    for _ in range(3):
        again(hub, n)
        ends(hub, n, **BROKEN)
    assert quarantined(hub, "w1") and hub.task(n).tries == 0


def test_a_task_that_cannot_be_started_goes_to_another_agent() -> None:
    hub = fleet("w1", "w2")
    [n] = hub.submit(max_tries=1)
    first = hub.task(n).holder
    ends(hub, n, **BROKEN)
    again(hub, n)
    assert hub.task(n).holder != first
    ends(hub, n, Outcome.SUCCEEDED)
    assert hub.state(n) is TaskState.DONE


def test_no_refund_lets_a_task_loop_for_ever() -> None:
    hub = fleet("w1")
    [n] = hub.submit(max_tries=1)
    for _ in range(MAX_CLAIMS):
        hub.do(c.ResumeAgent(agent="w1"))
        again(hub, n)
        ends(hub, n, **BROKEN)
    assert (hub.state(n), hub.task(n).cause) == (TaskState.DEAD, "too_many_claims")


def test_programs_that_die_at_once_on_three_different_tasks_are_broken_and_the_tries_come_back() -> None:
    hub = fleet("w1")
    tasks = hub.submit(*(c.NewTask(title=f"{i}", spec="{}", body_hash=f"{i}", max_tries=3) for i in range(3)))
    for n in tasks[:2]:
        ends(hub, n, **ABRUPT)
        assert hub.task(n).tries == 1, "so far it is doubtful"
    ends(hub, tasks[2], **ABRUPT)
    assert quarantined(hub, "w1")
    assert [hub.task(n).tries for n in tasks] == [0, 0, 0]
    assert [row["tries"] for row in hub.store.rows("SELECT tries FROM task")] == [0, 0, 0]


def test_what_is_given_back_is_of_the_generation_that_paid() -> None:
    hub = fleet("w1")
    [again_by_hand] = hub.submit(title="first", max_tries=1)
    ends(hub, again_by_hand, **ABRUPT)
    [second] = hub.submit(title="second")
    hub.hello("w2")
    hub.do(c.Requeue(n=again_by_hand))
    assert (hub.task(again_by_hand).holder, hub.task(again_by_hand).tries) == ("w2", 1)
    ends(hub, second, **ABRUPT)
    [third] = hub.submit(title="third")
    ends(hub, third, **ABRUPT)
    assert quarantined(hub, "w1")
    assert hub.task(again_by_hand).tries == 1, "its new generation has lost nothing to w1"


def test_a_program_that_ran_for_a_while_or_used_tokens_is_not_broken() -> None:
    hub = fleet("w1")
    for i, fields in enumerate([{"after_s": 6}, {"usage": "{}"}] * 3):
        [n] = hub.submit(title=f"{i}", max_tries=1)
        again(hub, n)
        ends(hub, n, **ABRUPT, **fields)
    assert hub.cluster.agents["w1"].strikes == ()


def test_a_success_ends_the_row() -> None:
    hub = fleet("w1")
    for i, outcome in enumerate([Outcome.FAILED, Outcome.FAILED, Outcome.SUCCEEDED, Outcome.FAILED, Outcome.FAILED]):
        [n] = hub.submit(title=f"{i}", max_tries=1)
        again(hub, n)
        ends(hub, n, outcome, **(ABRUPT if outcome is Outcome.FAILED else {}))
    assert not quarantined(hub, "w1") and len(hub.cluster.agents["w1"].strikes) == 2


# ── a task that cannot be done ───────────────────────────────────────────────────────────────────────────────────────────────


def test_one_bad_task_quarantines_nobody() -> None:
    hub = fleet("w1")
    [n] = hub.submit(max_tries=3)
    for _ in range(3):
        again(hub, n)
        ends(hub, n, **ABRUPT)
    assert hub.state(n) is TaskState.DEAD
    assert not quarantined(hub, "w1") and len(hub.cluster.agents["w1"].strikes) == 1


def test_a_task_that_fails_on_two_trusted_agents_is_the_tasks_fault_and_both_are_acquitted() -> None:
    hub = fleet("w1", "w2")
    [n] = hub.submit(max_tries=2)
    for _ in range(2):
        again(hub, n)
        ends(hub, n, **ABRUPT)
    assert (hub.state(n), hub.task(n).tries) == (TaskState.DEAD, 2)
    assert [agent.strikes for agent in hub.cluster.agents.values()] == [(), ()]


def test_an_agent_on_trial_is_no_witness_against_a_task() -> None:
    hub = fleet("w1")
    for i in range(3):
        [n] = hub.submit(title=f"{i}", max_tries=9)
        again(hub, n)
        ends(hub, n, **ABRUPT)
    assert quarantined(hub, "w1")
    hub.hello("w2")
    again(hub, n)
    assert hub.task(n).holder == "w2"
    ends(hub, n, **ABRUPT)
    assert len(hub.cluster.agents["w2"].strikes) == 1, "w1 failed at it, too, but w1 fails at everything"


def test_a_task_lost_three_times_on_sound_agents_is_dead_and_stays_dead() -> None:
    hub = fleet("w1", "w2", "w3")
    [n] = hub.submit(max_tries=1)
    for _ in range(3):
        again(hub, n)
        loses(hub, n)
    assert (hub.state(n), hub.task(n).lost) == (TaskState.DEAD, 3)
    assert len(hub.store.rows("SELECT * FROM attempt WHERE task = ? AND outcome = 'lost'", n)) == 3
    hub.effects()
    hub.later(200)
    hub.restart()
    for agent in ("w1", "w2", "w3"):
        hub.hello(agent, boot="last")
    assert hub.state(n) is TaskState.DEAD and not hub.effects(PushAssign)
    assert not any(quarantined(hub, agent) for agent in ("w1", "w2", "w3"))


def test_losses_on_an_agent_that_loses_everything_are_not_the_tasks() -> None:
    hub = fleet("w1")
    tasks = hub.submit(*(c.NewTask(title=f"{i}", spec="{}", body_hash=f"{i}", max_tries=1) for i in range(3)))
    for n in tasks:
        assert hub.cluster.agents["w1"].task == n, "a lost task goes to the end of the line"
        loses(hub, n)
    assert quarantined(hub, "w1")
    assert [hub.task(n).lost for n in tasks] == [0, 0, 0]


# ── after a quarantine ───────────────────────────────────────────────────────────────────────────────────────────────────────


def on_trial() -> tuple[Hub, list[int]]:
    hub = fleet("w1")
    tasks = hub.submit(*(c.NewTask(title=f"{i}", spec="{}", body_hash=f"{i}", max_tries=1) for i in range(6)))
    for n in tasks[:3]:
        ends(hub, n, **BROKEN)
    hub.later(601)
    hub.beat()
    assert hub.cluster.agents["w1"].task is not None and not quarantined(hub, "w1")
    return hub, tasks


def test_on_trial_the_first_failure_is_enough_for_the_next_level_and_costs_the_task_nothing() -> None:
    hub, _ = on_trial()
    n = hub.cluster.agents["w1"].task
    ends(hub, n, **ABRUPT)
    agent = hub.cluster.agents["w1"]
    assert (agent.quarantine_level, agent.quarantined_until) == (2, hub.clock.wall + 3600 * SECOND)
    assert hub.task(n).tries == 0


def test_on_trial_the_first_sound_run_ends_it() -> None:
    hub, _ = on_trial()
    ends(hub, hub.cluster.agents["w1"].task, Outcome.SUCCEEDED)
    agent = hub.cluster.agents["w1"]
    assert (agent.quarantine_level, agent.strikes, agent.quarantine_cause) == (0, (), None)


def test_an_acceptance_alone_does_not_end_a_trial() -> None:
    hub, _ = on_trial()
    hub.accept(hub.cluster.agents["w1"].task)
    assert hub.cluster.agents["w1"].quarantine_level == 1


def test_quarantine_strikes_and_suspects_survive_a_restart_of_the_hub() -> None:
    hub = fleet("w1")
    for i in range(2):
        [n] = hub.submit(title=f"{i}", max_tries=3)
        again(hub, n)
        ends(hub, n, **ABRUPT)
    hub.restart()
    hub.hello("w1", boot="c")
    assert hub.task(n).suspects == ("w1",)
    [last] = hub.submit(title="last", max_tries=3, lane="urgent")
    again(hub, last)
    ends(hub, last, **ABRUPT)
    assert quarantined(hub, "w1")
    hub.restart()
    agent = hub.cluster.agents["w1"]
    assert quarantined(hub, "w1") and agent.quarantine_cause == "agent_failed" and len(agent.strikes) == 3


def test_a_person_ends_it_whatever_the_level() -> None:
    hub, _ = on_trial()
    ends(hub, hub.cluster.agents["w1"].task, **BROKEN)
    hub.do(c.ResumeAgent(agent="w1"))
    agent = hub.cluster.agents["w1"]
    assert (agent.quarantine_level, agent.strikes, agent.quarantined_until, agent.quarantined_at) == (0, (), None, None)
    assert agent.task is not None


# ── a task that nobody takes ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", ["busy", "no_workspace"])
def test_a_task_that_a_whole_fleet_declines_is_offered_less_and_less(code: str) -> None:
    hub = fleet(*(f"w{i}" for i in range(200)))
    [n] = hub.submit()
    offers = []
    for second in range(600):
        before = hub.task(n).lease_epoch
        while hub.task(n).holder is not None:
            hub.about(c.Decline, n, code=code)
        offers.append(hub.task(n).lease_epoch - before)
        if second % 20 == 0:
            for agent in list(hub.cluster.agents):
                hub.beat(agent)
        hub.later(1)
    assert sum(offers[:60]) <= 12 and sum(offers[300:360]) <= 2, offers[:60]
    assert "declined 1" in (hub.explain(n) or "") and "offered again" in (hub.explain(n) or "")


def test_a_resting_task_holds_up_nobody_else_and_is_forgiven_when_it_is_taken() -> None:
    hub = fleet(*(f"w{i}" for i in range(6)))
    [n] = hub.submit()
    while hub.task(n).holder is not None:
        hub.about(c.Decline, n, code="busy")
    assert hub.task(n).refusals == 4
    [other] = hub.submit(title="other")
    assert hub.state(other) is TaskState.ASSIGNED
    hub.later(1.1)
    assert hub.state(n) is TaskState.ASSIGNED, "the fifth agent is asked when the rest is over"
    hub.accept(n)
    assert hub.task(n).refusals == 0
