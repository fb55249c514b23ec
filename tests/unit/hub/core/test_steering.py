"""What people do by hand: each command where it is legal, refused with the right hint where it is not."""

from __future__ import annotations

from typing import Any

import pytest

from hub.core import commands as c
from hub.core.decision import Revoke, SendControl
from hub.core.errors import Refused
from hub.ids import SECOND, Lane, Outcome, TaskState, Verdict
from tests.support.cluster import Hub, needs, new


def in_state(state: str) -> tuple[Hub, int]:
    hub = Hub()
    match state:
        case "held":
            [n] = hub.submit(hold=True)
        case "waiting":
            _, n = hub.submit(new("a", ref="a"), new("b", depends_on=(needs("a"),)))
        case "scheduled":
            [n] = hub.submit(not_before=hub.clock.wall + 1000 * SECOND)
        case "queued":
            [n] = hub.submit()
        case "assigned":
            hub.hello()
            [n] = hub.submit()
        case "working":
            n = hub.working()
        case "blocked":
            n = hub.blocked()
        case "parked":
            n = hub.blocked()
            hub.about(c.GiveBack, n, reason="parked")
        case "in_review":
            n = hub.in_review()
        case "merging":
            n = hub.in_review()
            hub.do(c.IntendMerge(n=n, lease_epoch=hub.task(n).lease_epoch))
        case "done":
            n = hub.working()
            hub.result(n)
        case _:
            [n] = hub.submit()
            hub.do(c.Cancel(n=n))
    return hub, n


STATES = ("held", "waiting", "scheduled", "queued", "assigned", "working", "blocked", "parked", "in_review", "merging", "done")
LEGAL: dict[str, tuple[Any, dict[str, str]]] = {
    "hold": (lambda n: c.Hold(n=n), dict.fromkeys(("held", "waiting", "scheduled", "queued"), "waiting")),
    "release": (lambda n: c.Release(n=n), {"held": "queued"}),
    "cancel": (
        lambda n: c.Cancel(n=n),
        dict.fromkeys(("held", "waiting", "scheduled", "queued", "assigned", "parked", "in_review", "cancelled"), "cancelled")
        | {"working": "working", "blocked": "blocked"},
    ),
    "complete": (
        lambda n: c.Complete(n=n),
        dict.fromkeys(("held", "waiting", "scheduled", "queued", "parked", "done"), "done"),
    ),
    "complete --force": (
        lambda n: c.Complete(n=n, force=True),
        dict.fromkeys(("held", "waiting", "scheduled", "queued", "parked", "done", "assigned"), "done")
        | {"working": "working", "blocked": "blocked"},
    ),
    "requeue": (lambda n: c.Requeue(n=n), dict.fromkeys(("done", "cancelled"), "queued")),
    "answer": (lambda n: c.Answer(n=n, text="x"), {"blocked": "working", "parked": "queued"}),
}


@pytest.mark.parametrize("state", [*STATES, "cancelled"])
@pytest.mark.parametrize("command", LEGAL)
def test_each_command_is_legal_where_the_semantics_say_so(command: str, state: str) -> None:
    hub, n = in_state(state)
    hub.do(c.PauseAgent(agent="w1")) if "w1" in hub.cluster.agents else None
    make, legal = LEGAL[command]
    before = hub.task(n).row()
    if state in legal:
        hub.do(make(n))
        assert hub.state(n) == legal[state]
    else:
        with pytest.raises(Refused) as refused:
            hub.do(make(n))
        assert refused.value.status == 409
        assert hub.task(n).row() == before


def test_cancelling_what_is_merged_is_refused_by_name() -> None:
    hub, n = in_state("merging")
    with pytest.raises(Refused) as refused:
        hub.do(c.Cancel(n=n))
    assert refused.value.code == "merging"
    hub.do(c.AbandonMerge(n=n, lease_epoch=hub.task(n).lease_epoch))
    hub.do(c.Cancel(n=n))
    assert hub.state(n) is TaskState.CANCELLED


def test_cancelling_an_offer_revokes_it() -> None:
    hub, n = in_state("assigned")
    hub.effects()
    hub.do(c.Cancel(n=n))
    assert hub.effects() == [Revoke(n=n, lease_epoch=1, code="cancelled")]


@pytest.mark.parametrize("end", ["result", "give_back", "expiry"])
def test_a_cancelled_run_ends_when_its_agent_has_stopped(end: str) -> None:
    hub, n = in_state("working")
    hub.effects()
    answer: Any = hub.do(c.Cancel(n=n)).answer
    assert answer.pending
    [control] = hub.effects(SendControl)
    assert (control.kind, control.lease_epoch) == ("cancel", 1)
    hub.do(c.Cancel(n=n))
    assert hub.effects(SendControl) == [], "asked once"
    match end:
        case "result":
            assert hub.result(n, Outcome.CANCELLED) is Verdict.APPLIED
        case "give_back":
            hub.about(c.GiveBack, n, reason="parked")
        case _:
            hub.later(241)
    assert hub.state(n) is TaskState.CANCELLED
    assert hub.task(n).lost == 0
    assert hub.cluster.controls == {}, "nobody is asked any more"


def test_completing_raises_the_fence_and_releases_dependants() -> None:
    hub = Hub()
    a, b = hub.submit(new("a", ref="a"), new("b", depends_on=(needs("a"),)))
    hub.do(c.Complete(n=a, reason="did it myself"))
    assert hub.task(a).lease_epoch == 1
    assert hub.state(b) is TaskState.QUEUED


def test_no_late_result_undoes_a_completion() -> None:
    hub = Hub()
    n = hub.working()
    hub.later(241)
    hub.do(c.Complete(n=n))
    hub.said(c.Beat)
    decision = hub.said(c.Report, n=n, lease_epoch=1, outcome=Outcome.SUCCEEDED, sha256="ab" * 32)
    assert decision.effects[0][2].verdict is Verdict.SALVAGED  # type: ignore[union-attr]
    assert hub.events(n).count("task.completed") == 1


@pytest.mark.parametrize("command", ["complete", "assign"])
def test_force_stops_the_agent_first(command: str) -> None:
    hub, n = in_state("working")
    hub.hello("w2")
    make = c.Complete(n=n, force=True) if command == "complete" else c.Assign(n=n, agent="w2", force=True)
    answer: Any = hub.do(make).answer
    assert answer.pending
    assert hub.state(n) is TaskState.WORKING
    hub.result(n, Outcome.INTERRUPTED)
    if command == "complete":
        assert (hub.state(n), hub.task(n).lease_epoch) == (TaskState.DONE, 2)
    else:
        assert (hub.state(n), hub.task(n).holder, hub.task(n).tries) == (TaskState.ASSIGNED, "w2", 1)


# ── assign ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_assign_pushes_to_an_idle_agent_at_once() -> None:
    hub = Hub()
    hub.hello("w1", capabilities=("x",))
    hub.do(c.PauseAgent(agent="w1"))
    [n] = hub.submit(capabilities=("x",))
    hub.hello("w2", capabilities=("x",), quiet=True)
    hub.do(c.Assign(n=n, agent="w2"))
    assert "pinned to w2, which is quiet" in (hub.explain(n) or "")
    hub.beat("w2", quiet=False)
    assert hub.task(n).holder == "w2"


def test_assign_gives_a_busy_agent_its_next_task() -> None:
    hub = Hub()
    n = hub.working()
    first, second = hub.submit(new("first", lane=Lane.URGENT), new("second", lane=Lane.LOW))
    hub.do(c.Assign(n=second, agent="w1"))
    hub.result(n)
    assert hub.cluster.agents["w1"].task == second, "pinned goes before every lane"
    assert hub.state(first) is TaskState.QUEUED


def test_assign_auto_picks_the_least_busy() -> None:
    hub = Hub()
    hub.working()
    hub.hello("w2", quiet=True)
    [n] = hub.submit()
    hub.do(c.Assign(n=n))
    assert hub.task(n).assign_to == "w2"


def test_assign_refuses_who_cannot() -> None:
    hub = Hub()
    hub.hello(capabilities=())
    [n] = hub.submit(capabilities=("gpu",))
    for agent, code in ((None, "no_eligible_agent"), ("w1", "not_eligible"), ("nobody", "unknown_agent")):
        with pytest.raises(Refused) as refused:
            hub.do(c.Assign(n=n, agent=agent))  # type: ignore[arg-type]
        assert refused.value.code == code


def test_assign_of_held_work_is_refused_without_force() -> None:
    hub, n = in_state("working")
    hub.hello("w2")
    with pytest.raises(Refused) as refused:
        hub.do(c.Assign(n=n, agent="w2"))
    assert (refused.value.code, "--force" in refused.value.hint) == ("leased", True)
    assert hub.do(c.Assign(n=n, agent="w1")).answer.state is TaskState.WORKING  # type: ignore[union-attr]


# ── hold, release ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_held_task_is_not_started_by_its_dependencies() -> None:
    hub, n = in_state("waiting")
    hub.do(c.Hold(n=n, reason="let me look"))
    hub.do(c.Complete(n=n - 1))
    assert hub.state(n) is TaskState.WAITING
    assert "release" in (hub.explain(n) or "")
    hub.do(c.Release(n=n))
    assert hub.state(n) is TaskState.QUEUED


def test_release_before_the_dependencies_are_done_waits_for_them() -> None:
    hub, n = in_state("waiting")
    hub.do(c.Hold(n=n))
    hub.do(c.Release(n=n))
    assert (hub.state(n), hub.task(n).cause) == (TaskState.WAITING, "dependency")
    hub.do(c.Complete(n=n - 1))
    assert hub.state(n) is TaskState.QUEUED


def test_release_of_a_task_for_later_schedules_it() -> None:
    hub, n = in_state("scheduled")
    hub.do(c.Hold(n=n))
    hub.do(c.Release(n=n))
    assert hub.state(n) is TaskState.SCHEDULED
    hub.later(1001)
    assert hub.state(n) is TaskState.QUEUED


def test_dispatch_of_an_unknown_project_is_refused() -> None:
    with pytest.raises(Refused, match="no project"):
        Hub().do(c.Dispatch(project="nowhere"))


# ── requeue ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_requeue_is_a_new_generation_with_a_new_fence(forgotten: bool) -> None:
    hub = Hub()
    n = hub.working(max_tries=1, capabilities=("x",), unique_key="u", idempotency_key="k")
    hub.result(n, Outcome.FAILED, error_class="permanent")
    if forgotten:
        hub.later(301)
        assert n not in hub.cluster.tasks
    hub.do(c.PauseAgent(agent="w1"))
    hub.do(c.Requeue(n=n))
    task = hub.task(n)
    assert (task.generation, task.tries, task.lost, task.claims, task.finished_at) == (2, 0, 0, 0, None)
    assert task.lease_epoch == 2
    assert (hub.cluster.unique["u"], hub.cluster.idempotent["ann", "k"]) == (n, n)
    hub.hello()
    hub.do(c.ResumeAgent(agent="w1"))
    hub.accept(n)
    assert hub.task(n).lease_epoch == 3
    assert hub.result(n) is Verdict.APPLIED


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_requeue_whose_dependency_ended_meanwhile_is_ready_at_once(forgotten: bool) -> None:
    """It was sent to wait for what had happened already, and nothing ever woke it."""
    hub, n = in_state("waiting")
    hub.do(c.Cancel(n=n))
    hub.do(c.Complete(n=n - 1))
    if forgotten:
        hub.later(301)
    hub.do(c.Requeue(n=n))
    assert hub.state(n) is TaskState.QUEUED


def test_a_requeue_with_an_open_dependency_waits_for_it() -> None:
    hub, n = in_state("waiting")
    hub.do(c.Cancel(n=n))
    hub.do(c.Requeue(n=n))
    assert hub.state(n) is TaskState.WAITING
    hub.do(c.Complete(n=n - 1))
    assert hub.state(n) is TaskState.QUEUED


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_requeue_behind_a_failed_dependency_names_it(forgotten: bool) -> None:
    hub, n = in_state("waiting")
    hub.do(c.Cancel(n=n - 1))
    assert hub.state(n) is TaskState.CANCELLED
    if forgotten:
        hub.later(301)
    with pytest.raises(Refused) as refused:
        hub.do(c.Requeue(n=n))
    assert refused.value.hint == f"agentcom task requeue t-{n - 1}"


def test_a_passed_deadline_is_lifted_by_a_requeue_for_good() -> None:
    """It was lifted in memory only: after a restart the task died of it."""
    hub = Hub()
    [n] = hub.submit(deadline=hub.clock.wall + SECOND)
    hub.later(2)
    assert hub.state(n) is TaskState.DEAD
    hub.do(c.Requeue(n=n))
    hub.restart()
    hub.later(1)
    assert hub.state(n) is TaskState.QUEUED


def test_an_unknown_task_is_unknown() -> None:
    for kind in (c.Cancel, c.Hold, c.Release, c.Complete, c.Requeue, c.Assign):
        with pytest.raises(Refused) as refused:
            Hub().do(kind(n=99))  # type: ignore[arg-type]
        assert refused.value.status == 404


# ── the gatekeeper ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_merged_is_done_and_said_twice_it_is_done_once() -> None:
    hub, n = in_state("merging")
    epoch = hub.task(n).lease_epoch
    hub.do(c.Merged(n=n, lease_epoch=epoch, sha="c" * 40))
    hub.do(c.Merged(n=n, lease_epoch=epoch, sha="c" * 40))
    assert hub.events(n).count("task.merged") == 1


def test_rework_raises_the_fence_refunds_the_try_and_prefers_the_same_agent() -> None:
    hub, n = in_state("in_review")
    hub.hello("w0")
    hub.do(c.Rework(n=n, lease_epoch=1, feedback="tests fail", branch="b", head_sha="b" * 40))
    task = hub.task(n)
    assert (task.holder, task.lease_epoch, task.tries, task.rework) == ("w1", 3, 1, 1)
    assert hub.store.rows("SELECT text, head_sha FROM feedback WHERE task = ?", n) == [
        {"text": "tests fail", "head_sha": "b" * 40}
    ]


def test_the_fourth_rework_is_for_a_person() -> None:
    hub, n = in_state("in_review")
    for _ in range(3):
        hub.do(c.Rework(n=n, lease_epoch=hub.task(n).lease_epoch, feedback="no"))
        hub.accept(n)
        hub.result(n, has_change=True)
    with pytest.raises(Refused) as refused:
        hub.do(c.Rework(n=n, lease_epoch=hub.task(n).lease_epoch, feedback="no"))
    assert refused.value.code == "rework_limit"
    assert hub.state(n) is TaskState.IN_REVIEW


@pytest.mark.parametrize(
    "command",
    [
        lambda n, e: c.IntendMerge(n=n, lease_epoch=e),
        lambda n, e: c.AbandonMerge(n=n, lease_epoch=e),
        lambda n, e: c.Merged(n=n, lease_epoch=e, sha="c" * 40),
        lambda n, e: c.Rework(n=n, lease_epoch=e, feedback="no"),
        lambda n, e: c.Bury(n=n, lease_epoch=e, cause="rejected"),
    ],
)
def test_the_gatekeeper_is_fenced(command: Any) -> None:
    hub, n = in_state("in_review")
    before = hub.task(n).row()
    for epoch in (0, 2):
        with pytest.raises(Refused) as refused:
            hub.do(command(n, epoch))
        assert refused.value.code == "not_in_review"
    assert hub.task(n).row() == before
