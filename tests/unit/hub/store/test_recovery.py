"""Reading the scheduler back: what a restart restores, what it starts anew, what it must not resurrect."""

from __future__ import annotations

from typing import Any

from hub.core import commands as c
from hub.ids import AgentState, Outcome, TaskState
from tests.property import model
from tests.support.cluster import Hub, needs, new


def restarted(hub: Hub) -> Hub:
    model.rebuild_equals_live(hub)
    hub.restart()
    model.counters_recounted(hub.cluster)
    model.deadlines_armed(hub.cluster)
    return hub


def test_an_empty_store_gives_an_empty_hub() -> None:
    hub = restarted(Hub())
    assert hub.cluster.tasks == {} and hub.cluster.next_n == 1
    assert set(hub.cluster.projects) == {"default", "other", "slow"}


def test_every_live_state_comes_back() -> None:
    hub = Hub()
    hub.working()
    for agent in ("w2", "w3", "w4"):
        hub.hello(agent)
    blocked, reviewed, offered = hub.submit(
        new("b", assign_to="w2"), new("r", repo="app", assign_to="w3"), new("o", assign_to="w4")
    )
    hub.accept(blocked)
    hub.about(c.Ask, blocked, qid="q", text="?")
    hub.accept(reviewed)
    hub.result(reviewed, has_change=True)
    hub.submit(new("held", hold=True), new("later", not_before=hub.clock.wall + 10**9), new("x", depends_on=(needs(blocked),)))
    hub.do(c.PauseAgent(agent="w3"))  # type: ignore[arg-type]
    hub.do(c.Cancel(n=blocked))  # type: ignore[arg-type]
    states = {n: task.state for n, task in hub.cluster.tasks.items()}
    restarted(hub)
    assert {n: task.state for n, task in hub.cluster.tasks.items()} == states
    assert hub.task(blocked).stopping is TaskState.CANCELLED
    assert hub.cluster.agents["w3"].paused
    assert hub.task(offered).attempt is not None
    assert {agent.state for agent in hub.cluster.agents.values()} == {AgentState.OFFLINE}


def test_numbers_are_never_used_again() -> None:
    hub = Hub()
    n = hub.working(capabilities=("x",))
    hub.do(c.Cancel(n=n))  # type: ignore[arg-type]
    hub.result(n, Outcome.CANCELLED)
    used = (hub.cluster.next_n, hub.cluster.next_cid, hub.cluster.next_requirement)
    restarted(hub)
    assert (hub.cluster.next_n, hub.cluster.next_cid, hub.cluster.next_requirement) == used


def test_a_session_epoch_rises_over_restarts() -> None:
    hub = Hub()
    assert [hub.hello(), restarted(hub).hello(), restarted(hub).hello()] == [1, 2, 3]


def test_finished_tasks_stay_on_disk() -> None:
    hub = Hub()
    [n] = hub.submit()
    hub.do(c.Complete(n=n))  # type: ignore[arg-type]
    restarted(hub)
    assert hub.cluster.tasks == {}
    assert hub.state(n) is TaskState.DONE


def test_questions_answered_in_the_open_attempt_are_remembered() -> None:
    hub = Hub()
    n = hub.blocked()
    hub.do(c.Answer(n=n, text="blue"))  # type: ignore[arg-type]
    restarted(hub)
    assert hub.task(n).answered == {"q"}
    assert hub.task(n).question is None


def test_a_withdrawn_question_is_not_asked_again() -> None:
    hub = Hub()
    n = hub.blocked()
    hub.later(241)
    restarted(hub)
    assert hub.task(n).question is None and hub.task(n).answered == set()


def test_unnoted_controls_come_back_and_noted_ones_do_not() -> None:
    hub = Hub()
    n = hub.working()
    hub.do(c.Cancel(n=n))  # type: ignore[arg-type]
    restarted(hub)
    assert len(hub.cluster.controls) == 1
    hub.hello(held=(c.HeldItem(task=n, lease_epoch=1),))  # type: ignore[arg-type]
    hub.said(c.ControlNoted, cid=next(iter(hub.cluster.controls)))
    restarted(hub)
    assert hub.cluster.controls == {}


def test_two_rows_of_one_requirement_set_mean_the_same() -> None:
    hub = Hub()
    [first] = hub.submit(capabilities=("x",))
    hub.store.connection.execute(
        "INSERT INTO requirement (id, project, repo, capabilities) VALUES (9, 'default', NULL, '[\"x\"]')"
    )
    hub.store.connection.execute("UPDATE task SET requirement_id = 9 WHERE n = ?", (first,))
    hub.restart()
    [second] = hub.submit(new("b", capabilities=("x",)))
    assert hub.task(first).requirement == hub.task(second).requirement
    model.counters_recounted(hub.cluster)


def test_the_snapshot_is_read_in_one_piece() -> None:
    asked: list[Any] = []

    class Reader:
        async def run(self, fn: Any) -> Any:
            asked.append(fn)
            return fn(hub.store.connection)

    hub = Hub()
    from hub.store.recovery import load_snapshot
    from tests.support.stores import finished

    finished(load_snapshot(Reader()))
    assert len(asked) == 1


def test_an_agents_story_goes_on_after_a_restart_where_it_stood() -> None:
    hub = Hub()
    hub.working()
    hub.restart()
    steps = hub.store.rows("SELECT from_state, to_state, reason FROM agent_transition ORDER BY id DESC LIMIT 1")
    assert [tuple(step.values()) for step in steps] == [("working", "offline", "hub started")]
