"""Submitting: all or nothing, idempotent, with every fault named; dependencies, cascades, holds and limits."""

from __future__ import annotations

from typing import Any

import pytest

from hub.core import commands as c
from hub.core import ready, steering
from hub.core.errors import Refused
from hub.core.lease import Terms
from hub.core.submitting import FAR_US
from hub.ids import SECOND, Access, Lane, TaskState, TaskType
from tests.support.clock import WALL
from tests.support.cluster import Hub, needs, new


def refused(hub: Hub, *tasks: c.NewTask, actor: str = "ann") -> Refused:
    highest = hub.cluster.next_n
    with pytest.raises(Refused) as caught:
        hub.do(c.Submit(actor=actor, tasks=tasks))
    assert hub.cluster.next_n == highest
    return caught.value


def test_all_faults_are_reported_and_nothing_is_submitted() -> None:
    hub = Hub()
    fault = refused(
        hub,
        new(project="nowhere", repo="nothing"),
        new(deadline=WALL - 1, needs_change=True),
        new(depends_on=(needs(99), needs("later"))),
        new(ref="x", parent=98),
        new(ref="x", repo="app", access=Access.READ_ONLY, needs_change=True),
    )
    assert fault.status == 422
    assert {(item.loc, item.type) for item in fault.faults} == {
        ("tasks.0.project", "unknown_project"),
        ("tasks.0.repo", "unknown_repo"),
        ("tasks.1.deadline", "past"),
        ("tasks.1.needs_change", "impossible"),
        ("tasks.2.depends_on.0", "unknown_task"),
        ("tasks.2.depends_on.1", "unknown_ref"),
        ("tasks.3.parent", "unknown_task"),
        ("tasks.4.ref", "duplicate_ref"),
        ("tasks.4.needs_change", "impossible"),
    }
    assert hub.cluster.live == 0


def test_every_cycle_is_named_where_it_begins() -> None:
    knots = (
        new(ref="a", depends_on=(needs("b"),)),
        new(ref="b", depends_on=(needs("a"),)),
        new(ref="c", depends_on=(needs("c"), needs("a"))),
        new(depends_on=(needs("a"),)),
    )
    faults = {fault.loc: fault.msg.removeprefix("the dependencies form a cycle: ") for fault in refused(Hub(), *knots).faults}
    assert faults.pop("tasks.2.depends_on") == "c → c"
    assert faults in ({"tasks.0.depends_on": "a → b → a"}, {"tasks.1.depends_on": "b → a → b"})


def test_every_taken_key_is_named_beside_the_other_faults() -> None:
    hub = Hub()
    [n] = hub.submit(idempotency_key="k", unique_key="u")
    keys = (new("other", idempotency_key="k"), new(unique_key="u"), new(unique_key="v"), new(unique_key="v"))
    alone = refused(hub, *keys)
    assert (alone.status, alone.code) == (409, "idempotency_conflict")
    assert alone.message == f"idempotency key 'k' was used for t-{n} with another body (and 2 more)"
    assert alone.hint == f"agentcom task show t-{n}"
    wanted = ["tasks.0.idempotency_key", "tasks.1.unique_key", "tasks.3.unique_key"]
    assert [fault.loc for fault in alone.faults] == wanted
    among = refused(hub, *keys, new(project="nope"))
    assert (among.status, [fault.loc for fault in among.faults]) == (422, ["tasks.4.project", *wanted])
    assert hub.cluster.live == 1


@pytest.mark.parametrize("field", ["not_before", "deadline"])
def test_a_moment_more_than_ten_years_ahead_is_a_mistake_of_units(field: str) -> None:
    hub = Hub()
    assert hub.submit(**{field: hub.clock.stamp().wall + FAR_US})
    [fault] = refused(hub, new(**{field: hub.clock.stamp().wall + FAR_US + 1})).faults
    assert (fault.loc, fault.type) == (f"tasks.0.{field}", "far")


@pytest.mark.parametrize("size", [0, 1001])
def test_a_batch_holds_one_to_a_thousand(size: int) -> None:
    assert refused(Hub(), *[new()] * size).code == "invalid_batch"


# ── idempotency ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("meanwhile", ["nothing", "restart", "done and forgotten"])
def test_the_same_key_and_body_is_the_same_task(meanwhile: str) -> None:
    hub = Hub()
    [n] = hub.submit(idempotency_key="k")
    if meanwhile == "restart":
        hub.restart()
    elif meanwhile == "done and forgotten":
        hub.do(c.Complete(n=n))
        hub.later(301)
        assert n not in hub.cluster.tasks
    [again] = hub.do(c.Submit(actor="ann", tasks=(new(idempotency_key="k"),))).answer.tasks
    assert (again.n, again.created, again.state) == (n, False, hub.state(n))


def test_the_same_key_with_another_body_is_a_conflict() -> None:
    hub = Hub()
    [n] = hub.submit(idempotency_key="k")
    fault = refused(hub, new("another", idempotency_key="k"))
    assert (fault.status, fault.code) == (409, "idempotency_conflict")
    assert f"t-{n}" in fault.message
    assert refused(hub, new("x", idempotency_key="n"), new("y", idempotency_key="n")).code == "idempotency_conflict"


def test_a_key_belongs_to_who_submits() -> None:
    hub = Hub()
    assert hub.submit(new(idempotency_key="k")) != hub.submit(new(idempotency_key="k"), actor="bob")


def test_a_key_whose_tombstone_dies_while_facts_are_read_is_still_known() -> None:
    """Only unknown keys were looked up: a tombstone forgotten in that moment led to a broken constraint."""
    hub = Hub()
    [n] = hub.submit(idempotency_key="k")
    [needed] = hub.submit(title="needed")
    for each in (n, needed):
        hub.do(c.Complete(n=each))
    command = c.Submit(actor="ann", tasks=(new(idempotency_key="k"), new("b", depends_on=(needs(needed),))))
    wanted = hub.scheduler.wanted_facts(command)
    assert wanted is not None
    assert (wanted.keys, wanted.states) == ({"k"}, {needed})
    requeue = hub.scheduler.wanted_facts(c.Requeue(n=n))
    assert requeue is not None and requeue.task == n


def test_a_repeat_may_be_depended_on_in_its_batch() -> None:
    hub = Hub()
    [first] = hub.submit(idempotency_key="k")
    hub.do(c.Complete(n=first))
    hub.later(301)
    again, second = hub.submit(new(idempotency_key="k", ref="a"), new("b", depends_on=(needs("a"),)))
    assert again == first
    assert hub.state(second) is TaskState.QUEUED


# ── unique keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_unique_key_is_held_by_one_live_task() -> None:
    hub = Hub()
    [n] = hub.submit(unique_key="u")
    assert refused(hub, new(unique_key="u")).code == "unique_key_taken"
    assert refused(hub, new(unique_key="v"), new(unique_key="v")).code == "unique_key_taken"
    hub.do(c.Cancel(n=n))
    [other] = hub.submit(unique_key="u")
    with pytest.raises(Refused, match="now held by"):
        hub.do(c.Requeue(n=n))
    hub.do(c.Cancel(n=other))
    hub.do(c.Requeue(n=n))
    assert hub.state(n) is TaskState.QUEUED


def test_a_unique_key_wanders_to_and_fro_in_one_group() -> None:
    hub = Hub()
    [first] = hub.submit(unique_key="u")
    hub.grouping = True
    hub.do(c.Cancel(n=first))
    [second] = hub.submit(unique_key="u")
    hub.do(c.Cancel(n=second))
    hub.do(c.Requeue(n=first))
    hub.commit()
    assert (hub.state(first), hub.state(second)) == (TaskState.QUEUED, TaskState.CANCELLED)


# ── dependencies ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def dead(hub: Hub) -> int:
    [n] = hub.submit(title="dead")
    hub.do(c.Cancel(n=n))
    return n


@pytest.mark.parametrize(("policy", "state"), [("skip", "cancelled"), ("run", "queued"), ("fail", "dead")])
@pytest.mark.parametrize("order", ["fails later", "failed before", "failed and forgotten"])
def test_when_a_dependency_fails_its_policy_decides(policy: str, state: str, order: str) -> None:
    hub = Hub()
    [of] = hub.submit(title="of")
    if order != "fails later":
        hub.do(c.Cancel(n=of))
    if order == "failed and forgotten":
        hub.later(301)
    [n] = hub.submit(title="n", depends_on=(needs(of, policy),))
    if order == "fails later":
        assert hub.state(n) is TaskState.WAITING
        hub.do(c.Cancel(n=of))
    assert hub.state(n) == state


def test_every_dependency_must_be_done() -> None:
    hub = Hub()
    a, b = hub.submit(new("a"), new("b"))
    [n] = hub.submit(new("n", depends_on=(needs(a), needs(b))))
    hub.do(c.Complete(n=a))
    assert hub.state(n) is TaskState.WAITING
    hub.do(c.Complete(n=b))
    assert hub.state(n) is TaskState.QUEUED


def test_a_failure_cascades_inside_the_batch_that_names_it() -> None:
    """The dependant was ended by the cascade and then once more by its own turn: an illegal transition."""
    hub = Hub()
    of = dead(hub)
    a, b, d = hub.submit(
        new("a", ref="a", depends_on=(needs(of),)),
        new("b", ref="b", depends_on=(needs("a", "fail"),)),
        new("d", depends_on=(needs("b"), needs("a"))),
    )
    assert [hub.state(n) for n in (a, b, d)] == [TaskState.CANCELLED, TaskState.DEAD, TaskState.CANCELLED]


@pytest.mark.parametrize(("hold", "state"), [(False, TaskState.QUEUED), (True, TaskState.WAITING)])
def test_a_cascade_may_start_a_task_of_the_batch_unless_it_is_held(hold: bool, state: TaskState) -> None:
    """Started by the cascade it was started again by its own turn; held, it was held in the queue."""
    hub = Hub()
    of = dead(hub)
    _, b = hub.submit(new("a", ref="a", depends_on=(needs(of),)), new("b", depends_on=(needs("a", "run"),), hold=hold))
    assert hub.state(b) is state


def test_a_dependency_may_point_forwards() -> None:
    hub = Hub()
    b, a = hub.submit(new("b", depends_on=(needs("a"),)), new("a", ref="a"))
    assert (hub.state(b), hub.state(a)) == (TaskState.WAITING, TaskState.QUEUED)


def test_a_long_chain_of_failures_needs_no_recursion() -> None:
    hub = Hub()
    chain = hub.submit(*(new(f"t{i}", ref=f"t{i}", depends_on=(needs(f"t{i - 1}"),) if i else ()) for i in range(1000)))
    hub.do(c.Cancel(n=chain[0]))
    assert hub.cluster.live == 0


def test_finished_dependencies_leave_nothing_behind_in_memory() -> None:
    """The reverse index kept an entry for each task that was ever needed after its end."""
    hub = Hub()
    [done] = hub.submit()
    hub.do(c.Complete(n=done))
    for i in range(5):
        hub.submit(title=f"n{i}", depends_on=(needs(done),))
        assert hub.cluster.dependants == {}
    [open_] = hub.submit(title="open")
    [waits] = hub.submit(title="waits", depends_on=(needs(open_),))
    hub.do(c.Cancel(n=waits))
    assert hub.cluster.dependants == {}


# ── holds, times, limits ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_manual_project_holds_everything_until_dispatched() -> None:
    hub = Hub()
    hub.hello()
    [n] = hub.submit(project="slow")
    assert (hub.state(n), hub.task(n).cause) == (TaskState.WAITING, "held")
    assert hub.do(c.Dispatch(project="slow")).answer.released == 1
    assert hub.state(n) is TaskState.ASSIGNED
    answer = hub.do(c.Dispatch(project="slow")).answer
    assert (answer.released, answer.why) == (0, "nothing is held there")


def test_one_dispatch_releases_a_bounded_number_the_first_in_lane_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "MAX_RELEASED", 2)
    hub = Hub()
    low, high, *normal = hub.submit(
        new("l", project="slow", lane=Lane.LOW), new("h", project="slow", lane=Lane.HIGH), *(new(project="slow") for _ in "abc")
    )
    steps = [hub.do(c.Dispatch()).answer for _ in range(4)]
    assert [(step.released, step.more) for step in steps] == [(2, True), (2, True), (1, False), (0, False)]
    released = [row["task"] for row in hub.store.rows("SELECT task FROM event WHERE kind = 'task.released' ORDER BY seq")]
    assert released == [high, *normal, low]


def test_a_task_for_later_is_queued_by_its_own_timer() -> None:
    hub = Hub()
    hub.hello()
    [n] = hub.submit(not_before=hub.clock.wall + 20 * SECOND)
    assert hub.state(n) is TaskState.SCHEDULED
    assert hub.scheduler.next_deadline(hub.clock.stamp()) == hub.clock.mono + 20 * SECOND
    hub.later(19.9)
    assert hub.state(n) is TaskState.SCHEDULED
    hub.later(0.2)
    assert hub.state(n) is TaskState.ASSIGNED


@pytest.mark.parametrize(
    ("fields", "cause"), [({"queue_ttl_us": SECOND}, "queue_ttl"), ({"deadline": WALL + SECOND}, "deadline")]
)
def test_what_expires_in_the_queue_is_dead(fields: dict[str, Any], cause: str) -> None:
    hub = Hub()
    [n] = hub.submit(**fields)
    hub.later(1)
    assert (hub.state(n), hub.task(n).cause) == (TaskState.DEAD, cause)


def test_the_deadline_of_running_work_stops_it_first() -> None:
    hub = Hub()
    n = hub.working(deadline=WALL + 5 * SECOND)
    hub.later(5)
    assert hub.state(n) is TaskState.WORKING
    assert "stopping, then dead" in (hub.explain(n) or "")
    hub.result(n, outcome="cancelled")  # type: ignore[arg-type]
    assert (hub.state(n), hub.task(n).cause) == (TaskState.DEAD, "deadline")


@pytest.mark.parametrize("back", ["requeue", "rework"])
def test_a_deadline_counts_again_after_a_detour(back: str) -> None:
    """Its timer had fired in review, or was lost with the memory of a finished task: then only a restart enforced it."""
    hub = Hub()
    deadline = hub.clock.wall + 1000 * SECOND
    if back == "rework":
        n = hub.in_review(deadline=deadline)
        hub.later(1001)
        hub.do(c.Rework(n=n, lease_epoch=hub.task(n).lease_epoch, feedback="no"))
    else:
        [n] = hub.submit(deadline=deadline)
        hub.do(c.Cancel(n=n))
        hub.restart()
        hub.do(c.Requeue(n=n))
        hub.later(1001)
    hub.tick()
    assert (hub.state(n), hub.task(n).cause) == (TaskState.DEAD, "deadline")


def test_live_tasks_are_bounded() -> None:
    hub = Hub(Terms(max_live=2))
    hub.submit(new("a"), new("b"))
    fault = refused(hub, new("c"))
    assert (fault.status, fault.code, fault.retryable) == (429, "queue_full", True)


def test_live_requirement_sets_are_bounded() -> None:
    hub = Hub()
    hub.submit(*(new(f"t{i}", capabilities=(f"c{i}",)) for i in range(512)))
    assert refused(hub, new(capabilities=("one-more",))).code == "too_many_requirement_sets"
    hub.submit(new("known", capabilities=("c7",)))


def test_remembered_requirement_sets_never_stop_a_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every remembered set used by a tombstone the search for one to forget raised StopIteration."""
    monkeypatch.setattr(ready, "MAX_KNOWN", 8)
    hub = Hub()
    for i in range(20):
        [n] = hub.submit(title=f"t{i}", capabilities=(f"c{i}",))
        hub.do(c.Cancel(n=n))
    hub.later(301)
    [n] = hub.submit(capabilities=("c3",))
    hub.restart()
    hub.hello(capabilities=("c3",))
    assert hub.state(n) is TaskState.ASSIGNED


def test_checks_are_let_in_past_every_bound_but_not_past_keys() -> None:
    """A batch of checks alone skipped the keys together with the room, and two of them met in the store's unique index."""
    hub = Hub(Terms(max_live=1))
    hub.submit(new("full"))
    check = {"type": TaskType.CHECK, "capabilities": ("checks",)}
    hub.submit(new("one", unique_key="u", **check))
    with pytest.raises(Refused) as refused:
        hub.submit(new("two", unique_key="u", **check))
    assert refused.value.code == "unique_key_taken"
    with pytest.raises(Refused) as refused:
        hub.submit(new("three", idempotency_key="k", **check), new("four", idempotency_key="k", **check))
    assert refused.value.code == "idempotency_conflict"
