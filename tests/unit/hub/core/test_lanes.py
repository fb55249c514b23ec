"""Fairness: of any four contested claims at most two urgent and one by age; nobody starves; projects share a lane."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from hub.core import commands as c
from hub.core.lanes import LANES, FairSequence, LanePicker
from hub.ids import SECOND, Lane, TaskId
from tests.support.cluster import Hub, new

PROFILE = settings(max_examples=200, derandomize=True, deadline=None, database=None)
ready = st.sets(st.sampled_from(LANES), min_size=1).map(sorted)


def overdue_of(lanes: list[Lane]) -> st.SearchStrategy[Lane | None]:
    old = [lane for lane in lanes if lane is not Lane.URGENT]
    return st.sampled_from([None, *old])


claims = st.lists(ready.flatmap(lambda lanes: st.tuples(st.just(lanes), overdue_of(lanes))), min_size=1, max_size=200)


@PROFILE
@given(claims)
def test_of_four_contested_claims_at_most_two_are_urgent_and_one_goes_by_age(
    history: list[tuple[list[Lane], Lane | None]],
) -> None:
    picker = LanePicker()
    rules = []
    for lanes, overdue in history:
        lane, rule = picker.pick(lanes, overdue)
        assert lane in lanes
        assert rule != "age" or lane is overdue
        if rule != "only":
            rules.append(rule)
    for i in range(len(rules)):
        window = Counter(rules[i : i + 4])
        assert window["urgent"] <= 2 and window["age"] <= 1, rules[i : i + 4]


@PROFILE
@given(claims, st.sampled_from([Lane.HIGH, Lane.NORMAL, Lane.LOW]))
def test_a_lane_with_work_is_served_within_a_bound_after_any_history(
    history: list[tuple[list[Lane], Lane | None]], starving: Lane
) -> None:
    """L5: of four claims at least one goes by weight; in any state a lane's turn by weight comes within two rounds of 14."""
    picker = LanePicker()
    for lanes, overdue in history:
        picker.pick(lanes, overdue)
    elsewhere = next(lane for lane in (Lane.HIGH, Lane.NORMAL) if lane is not starving)
    for _ in range(4 * 2 * 14):
        lane, _ = picker.pick(list(LANES), elsewhere)
        if lane is starving:
            return
    raise AssertionError(f"{starving} was not served in {4 * 2 * 14} claims")


def test_without_urgent_work_the_weights_are_eight_four_two() -> None:
    picker = LanePicker()
    served = Counter(picker.pick([Lane.HIGH, Lane.NORMAL, Lane.LOW], None)[0] for _ in range(140))
    assert served == {Lane.HIGH: 80, Lane.NORMAL: 40, Lane.LOW: 20}


def test_an_uncontested_claim_uses_up_nobodys_share() -> None:
    picker = LanePicker()
    for _ in range(10):
        assert picker.pick([Lane.URGENT], None) == (Lane.URGENT, "only")
    assert picker.pick([Lane.URGENT, Lane.LOW], None) == (Lane.URGENT, "urgent")


@PROFILE
@given(st.integers(1, 40), st.integers(1, 40))
def test_a_project_with_one_task_waits_for_one_of_each_other_project(early: int, busy: int) -> None:
    fair = FairSequence()
    places = [fair.enter(Lane.NORMAL, "busy") for _ in range(busy)]
    for place in places[: early % (busy + 1)]:
        fair.served(Lane.NORMAL, place)
    waiting = [place for place in places[early % (busy + 1) :] if place > fair.virtual_time[Lane.NORMAL]]
    late = fair.enter(Lane.NORMAL, "quiet")
    assert sum(place < late for place in waiting) <= 1


def drain_queue(hub: Hub, limit: int) -> list[int]:
    """One agent works off the queue; the order of the tasks."""
    order = []
    while (n := hub.cluster.agents["w1"].task) is not None:
        order.append(n)
        assert len(order) <= limit
        hub.accept(n)
        hub.result(n)
    return order


def test_every_task_is_given_out_in_the_scheduler_itself() -> None:
    """L1: one agent, a hundred tasks in all lanes, no timer and no safety pass: each is claimed, none twice."""
    hub = Hub()
    numbers = hub.submit(*(new(f"t{i}", lane=LANES[i % 4], project=("default", "other")[i % 3 == 0]) for i in range(100)))
    hub.hello()
    assert sorted(drain_queue(hub, 100)) == sorted(numbers)


def test_low_work_is_not_starved_by_a_stream_of_urgent_work() -> None:
    hub = Hub()
    [low] = hub.submit(lane=Lane.LOW)
    hub.submit(*(new(f"u{i}", lane=Lane.URGENT) for i in range(10)))
    hub.hello()
    assert drain_queue(hub, 11).index(low) <= 2


def test_an_old_task_overtakes_by_age_but_only_one_in_four() -> None:
    hub = Hub()
    old = hub.submit(*(new(f"old{i}", lane=Lane.LOW) for i in range(3)))
    hub.clock.advance(3601)
    hub.submit(*(new(f"h{i}", lane=Lane.HIGH) for i in range(30)))
    hub.hello()
    order = drain_queue(hub, 33)
    assert order[0] == old[0], "the oldest goes first"
    causes = [row["cause"] for row in hub.store.rows("SELECT cause FROM event WHERE kind = 'task.assigned' ORDER BY seq")]
    assert causes.count("lane_age") >= 2
    assert all(causes[i : i + 4].count("lane_age") <= 1 for i in range(len(causes)))


def test_projects_share_a_lane_in_the_scheduler_itself() -> None:
    hub = Hub()
    many = hub.submit(*(new(f"d{i}") for i in range(20)))
    few = hub.submit(*(new(f"o{i}", project="other") for i in range(5)))
    hub.hello()
    order = drain_queue(hub, 25)
    assert max(order.index(n) for n in few) <= 2 * len(few), "the small project is not behind the whole of the big one"
    assert order[0] == many[0]


def test_the_queue_behind_a_restart_keeps_its_order() -> None:
    hub = Hub()
    numbers = hub.submit(*(new(f"t{i}") for i in range(5)))
    hub.clock.advance(SECOND / SECOND)
    hub.restart()
    hub.hello()
    assert drain_queue(hub, 5) == numbers


def test_dispatch_releases_in_lane_order() -> None:
    hub = Hub()
    low, urgent = hub.submit(new("l", lane=Lane.LOW, hold=True), new("u", lane=Lane.URGENT, hold=True))
    hub.hello()
    assert hub.do(c.Dispatch()).answer.released == 2
    assert drain_queue(hub, 2) == [TaskId(urgent), TaskId(low)]
