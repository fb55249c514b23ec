"""The ready index: nothing in front blocks what is behind, and nothing dead piles up."""

from __future__ import annotations

import pytest

from hub.core import commands as c
from hub.core.ready import SLACK
from hub.core.timers import SLACK as TIMER_SLACK
from hub.ids import SECOND, Access, Lane, Outcome, TaskState, TaskType
from tests.support.cluster import Hub, needs, new


def test_pinned_work_that_cannot_be_done_never_hides_what_can() -> None:
    hub = Hub()
    hub.hello("w1", capabilities=("x",))
    busy = hub.working()
    hub.submit(*(new(f"no {i}", assign_to="w1", capabilities=("nope",), lane=Lane.URGENT) for i in range(20)))
    [fit] = hub.submit(new("fit", assign_to="w1"))
    hub.result(busy)
    assert hub.task(fit).holder == "w1"


def test_dead_entries_never_outnumber_the_living_for_long() -> None:
    hub = Hub()
    keep = hub.submit(new("stays", capabilities=("nobody",)))
    for i in range(400):
        [n] = hub.submit(new(f"goes {i}", capabilities=("nobody",)))
        hub.do(c.Cancel(n=n))
    (bucket,) = hub.cluster.ready.shelves[None].values()
    assert bucket.living == len(keep)
    assert len(bucket.by_place) <= 2 * bucket.living + SLACK + 1
    assert len(bucket.by_age) <= 2 * bucket.living + SLACK + 1


def test_a_shelf_for_an_agent_that_never_came_goes_with_its_last_task() -> None:
    hub = Hub()
    for i in range(5):
        [n] = hub.submit(assign_to=f"ghost-{i}")
        hub.do(c.Cancel(n=n))
    assert set(hub.cluster.ready.shelves) == {None}


def test_timers_of_ended_tasks_do_not_pile_up() -> None:
    hub = Hub()
    far = hub.clock.wall + 10**6 * SECOND
    for i in range(1500):
        [n] = hub.submit(new(f"t{i}", deadline=far, capabilities=("nobody",)))
        hub.do(c.Cancel(n=n))
    hub.later(301)
    timers = hub.cluster.volatile.timers
    assert not timers.armed
    assert len(timers.wall) + len(timers.mono) <= TIMER_SLACK + 1


def test_a_project_is_not_charged_for_what_it_cancelled() -> None:
    hub = Hub()
    hub.hello("w1")
    busy = hub.working()
    for i in range(50):
        [n] = hub.submit(new(f"other {i}", project="other"))
        hub.do(c.Cancel(n=n))
    mine = hub.submit(*(new(f"mine {i}") for i in range(3)))
    [theirs] = hub.submit(new("theirs", project="other"))
    hub.result(busy)
    first = hub.cluster.agents["w1"].task
    assert first in (mine[0], theirs)
    hub.accept(first)
    hub.result(first)
    assert {first, hub.cluster.agents["w1"].task} == {mine[0], theirs}, "the next claims alternate between the projects"


def test_checks_of_a_merge_are_held_up_by_nothing_of_ours() -> None:
    hub = Hub()
    hub.hello("checks", capabilities=("checks",))
    [n] = hub.submit(new("check", project="slow", type=TaskType.CHECK, capabilities=("checks",)))
    assert hub.task(n).holder == "checks", "a project that is dispatched by hand would have held it"
    hub.do(c.Registry(projects={"default": (True, "auto"), "slow": (True, "manual")}, repos={"app": True}))
    hub.hello("more", capabilities=("checks",))
    [other] = hub.submit(new("check 2", project="slow", repo="app", type=TaskType.CHECK, capabilities=("checks",)))
    assert hub.task(other).holder == "more", "a pause would have held it"


def test_assign_releases_a_held_task() -> None:
    hub = Hub()
    hub.hello("w1")
    [n] = hub.submit(hold=True)
    hub.do(c.Assign(n=n, agent="w1"))
    assert hub.task(n).holder == "w1"


@pytest.mark.parametrize("fields", [{"access": Access.READ_ONLY, "repo": "app"}, {}])
def test_commits_nobody_asked_for_lead_to_no_change(fields: dict[str, object]) -> None:
    hub = Hub()
    n = hub.working(**fields)
    hub.result(n, has_change=True, branch="b", base_sha="a" * 40, head_sha="b" * 40)
    assert hub.state(n) is TaskState.DONE


def test_a_repeat_after_its_deadline_is_still_the_same_task() -> None:
    hub = Hub()
    task = new("once", idempotency_key="k", deadline=hub.clock.wall + 60 * SECOND, capabilities=("nobody",))
    [n] = hub.submit(task)
    hub.later(61)
    assert hub.submit(task) == [n]


def test_a_deadline_does_not_override_what_a_person_asked() -> None:
    hub = Hub()
    n = hub.working(deadline=hub.clock.wall + 60 * SECOND)
    [after] = hub.submit(new("after", depends_on=(needs(n),)))
    hub.do(c.Complete(n=n, force=True))
    for _ in range(4):
        hub.later(16)
        hub.beat("w1")
    hub.result(n, Outcome.CANCELLED)
    assert hub.state(n) is TaskState.DONE
    assert hub.task(after).state is not TaskState.CANCELLED


def test_a_quarantine_that_begins_after_a_resume_ends_by_itself() -> None:
    hub = Hub()
    hub.hello("w1")
    for again in range(2):
        for i in range(3):
            [n] = hub.submit(new(f"{again}-{i}"))
            hub.about(c.Decline, n, "w1", code="no_workspace")
            hub.do(c.Cancel(n=n))
            hub.later(3 * 61)
            hub.beat("w1")
        agent = hub.cluster.agents["w1"]
        assert agent.quarantined_until is not None
        if not again:
            hub.do(c.ResumeAgent(agent="w1"))
    hub.later(3601)
    hub.beat("w1")
    assert hub.cluster.agents["w1"].quarantined_until is None


def test_what_a_pause_held_back_reaches_every_free_agent_when_it_ends() -> None:
    """One agent that was not to be had, or that a retry avoids, must not speak for the others of its kind."""
    hub = Hub()
    paused = c.Registry(projects={"default": (True, "auto"), "other": (False, "auto")}, repos={})
    hub.do(paused)
    for agent in ("w1", "w2", "w3"):
        hub.hello(agent)
    tasks = hub.submit(*(new(f"t{i}") for i in range(2)))
    hub.later(40)
    hub.beat("w2")
    hub.beat("w3")
    hub.do(c.Registry(projects={"default": (False, "auto"), "other": (False, "auto")}, repos={}))
    assert {hub.task(n).holder for n in tasks} == {"w2", "w3"}, "w1 was silent and first in line"
