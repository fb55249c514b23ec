"""A hub that was restored from a backup: what its agents say when they come back decides, nothing runs twice, and no number returns."""

from __future__ import annotations

import sqlite3
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.core import commands as c
from hub.core.decision import GrantLease, PushAssign, Welcome
from hub.ids import RESTORE_JUMP, HeldVerdict, LeaseEpoch, Micros, Outcome, Phase, SessionEpoch, TaskId, TaskState, Verdict
from hub.store.restore import set_ahead
from tests.support.cluster import Hub, held, outgoing
from tests.support.stores import as_dict

CHANGE: dict[str, Any] = {"has_change": True, "branch": "b", "base_sha": "a" * 40, "head_sha": "b" * 40}
HOLD_S = 241


class Restorable(Hub):
    """A hub that can be set back to an earlier moment, as a restore does it."""

    used: ClassVar[dict[str, int]] = {}

    def back_up(self) -> sqlite3.Connection:
        copy = sqlite3.connect(":memory:", isolation_level=None)
        self.store.connection.backup(copy)
        return copy

    def restore(self, copy: sqlite3.Connection) -> dict[str, Any]:
        copy.backup(self.store.connection)
        self.store.connection.row_factory = as_dict
        done = set_ahead(self.store.connection, "20270115T080000Z", Micros(self.clock.wall), used=self.used)
        self.used = done["bases"]
        self.store.last_seq = done["bases"]["seq"]
        self.told = []
        self.restart()
        return done

    def settle(self, agent: str = "w1") -> None:
        """The time in which nothing is given out is over, and this agent is still there."""
        self.later(HOLD_S - 2)
        self.beat(agent)
        self.later(2)

    def verdicts(self) -> dict[tuple[int, int], HeldVerdict]:
        (welcome,) = self.effects(Welcome)
        return {(item.n, item.lease_epoch): item.verdict for item in welcome.verdicts}

    def report(self, n: int, epoch: int, agent: str = "w1", outcome: Outcome = Outcome.SUCCEEDED, **fields: Any) -> Verdict:
        fields.setdefault("sha256", "ab" * 32)
        decision = self.said(c.Report, agent, n=TaskId(n), lease_epoch=LeaseEpoch(epoch), outcome=outcome, **fields)
        verdict: Verdict = decision.effects[0][2].verdict
        return verdict


@pytest.fixture
def hub() -> Restorable:
    return Restorable()


def test_an_agent_that_works_on_what_it_held_at_the_backup_goes_on(hub: Restorable) -> None:
    n = hub.working(repo="app")
    hub.restore(hub.back_up())
    hub.hello(held=(held(n, 1),))
    assert hub.verdicts() == {(n, 1): HeldVerdict.KEEP}
    hub.beat()
    assert hub.report(n, 1, **CHANGE) is Verdict.APPLIED
    assert (hub.state(n), hub.task(n).lease_epoch) == (TaskState.IN_REVIEW, 1), "its change is named after its lease"


def test_an_agent_that_was_given_the_task_after_the_backup_goes_on_too(hub: Restorable) -> None:
    [n] = hub.submit(repo="app")
    copy = hub.back_up()
    hub.hello()
    hub.accept(n)
    hub.restore(copy)
    assert hub.state(n) is TaskState.QUEUED
    hub.hello(held=(held(n, 1),))
    assert hub.verdicts() == {(n, 1): HeldVerdict.ACCEPTED}
    assert (hub.state(n), hub.task(n).holder, hub.task(n).lease_epoch) == (TaskState.WORKING, "w1", 1)
    hub.later(HOLD_S - 2)
    assert hub.report(n, 1, **CHANGE) is Verdict.APPLIED
    assert hub.state(n) is TaskState.IN_REVIEW
    assert hub.report(n, 1, **CHANGE) is Verdict.DUPLICATE


def test_whoever_was_given_it_last_goes_on_and_the_one_before_stops(hub: Restorable) -> None:
    n = hub.working(repo="app")
    copy = hub.back_up()
    hub.later(HOLD_S)  # w1 is lost, and w2 is given the task
    hub.hello("w2")
    hub.accept(n)
    assert hub.task(n).lease_epoch == 2
    hub.restore(copy)
    hub.hello("w1", held=(held(n, 1),))
    assert hub.verdicts() == {(n, 1): HeldVerdict.KEEP}, "nobody knows better yet"
    hub.hello("w2", held=(held(n, 2),))
    assert hub.verdicts() == {(n, 2): HeldVerdict.ACCEPTED}
    assert (hub.task(n).holder, hub.task(n).lease_epoch) == ("w2", 2)
    assert hub.report(n, 1, "w1", **CHANGE) is Verdict.SALVAGED
    assert hub.report(n, 2, "w2", **CHANGE) is Verdict.APPLIED


@pytest.mark.parametrize("state", ["queued", "working", "blocked", "scheduled"])
def test_a_result_of_after_the_backup_is_applied_late_and_once(hub: Restorable, state: str) -> None:
    n = {"queued": lambda: hub.submit(repo="app")[0], "working": hub.working, "blocked": hub.blocked, "scheduled": hub.working}[
        state
    ](**({} if state == "queued" else {"repo": "app"}))
    if state == "scheduled":
        hub.result(n, Outcome.FAILED, error_class="retryable", error_code="x")
    before = hub.task(n).lease_epoch
    assert hub.state(n) == state
    hub.restore(hub.back_up())
    hub.hello("w2", outbox=(outgoing(n, before + 1),))
    assert hub.verdicts() == {(n, before + 1): HeldVerdict.SEND_RESULT}
    assert hub.report(n, before + 1, "w2", **CHANGE) is Verdict.APPLIED
    assert (hub.state(n), hub.task(n).lease_epoch) == (TaskState.IN_REVIEW, before + 1)
    assert hub.report(n, before + 1, "w2", **CHANGE) is Verdict.DUPLICATE
    (applied,) = hub.store.rows("SELECT lease_epoch FROM attempt WHERE task = ? AND verdict = 'applied' AND cause = 'late'", n)
    assert applied["lease_epoch"] == before + 1


def test_a_result_for_a_task_that_was_given_out_anew_is_salvaged(hub: Restorable) -> None:
    [n] = hub.submit(repo="app")
    hub.restore(hub.back_up())
    hub.hello("w2")
    hub.settle("w2")
    assert hub.state(n) is TaskState.ASSIGNED
    hub.accept(n)
    hub.hello("w1")
    assert hub.report(n, 1, "w1", **CHANGE) is Verdict.SALVAGED
    assert hub.state(n) is TaskState.WORKING
    assert hub.result(n, **CHANGE) is Verdict.APPLIED


def test_a_failure_of_after_the_backup_changes_nothing(hub: Restorable) -> None:
    [n] = hub.submit()
    hub.restore(hub.back_up())
    hub.hello()
    assert hub.report(n, 1, outcome=Outcome.FAILED) is Verdict.STALE
    assert (hub.state(n), hub.task(n).lease_epoch) == (TaskState.QUEUED, 0)


def test_an_unknown_task_is_stopped_and_its_result_salvaged(hub: Restorable) -> None:
    hub.submit()
    hub.restore(hub.back_up())
    hub.hello(held=(held(7, 1),))
    assert hub.verdicts() == {(7, 1): HeldVerdict.STOP}
    assert hub.report(7, 1, **CHANGE) is Verdict.SALVAGED


def test_an_agent_that_could_not_do_it_is_not_believed(hub: Restorable) -> None:
    [n] = hub.submit(repo="app", capabilities=("gpu",))
    hub.restore(hub.back_up())
    hub.hello(held=(held(n, 1),))
    assert hub.verdicts() == {(n, 1): HeldVerdict.STOP}
    assert hub.report(n, 1, **CHANGE) is Verdict.SALVAGED
    assert hub.state(n) is TaskState.QUEUED


def test_an_offer_of_before_the_backup_is_not_made_again(hub: Restorable) -> None:
    """It may have been accepted, done and acknowledged since: made again, it would run under a lease that was spent."""
    [n] = hub.submit()
    hub.hello()
    assert hub.state(n) is TaskState.ASSIGNED
    hub.restore(hub.back_up())
    hub.hello()
    assert hub.state(n) is TaskState.QUEUED, "it does not wait for an acceptance that cannot come, and nobody is blamed for it"
    hub.settle()
    assert [effect.lease_epoch for effect in hub.effects(PushAssign)] == [hub.task(n).lease_epoch]
    assert hub.task(n).lease_epoch > RESTORE_JUMP
    assert hub.task(n).tries == 1


def test_nothing_is_given_out_before_every_agent_could_speak(hub: Restorable) -> None:
    [n] = hub.submit()
    hub.restore(hub.back_up())
    hub.hello()
    hub.later(HOLD_S - 2)
    assert hub.state(n) is TaskState.QUEUED
    assert "restored" in (hub.explain(n) or "")
    hub.do(c.SafetyPass())
    assert hub.state(n) is TaskState.QUEUED
    hub.beat()
    hub.later(2)
    assert hub.state(n) is TaskState.ASSIGNED


def test_another_start_soon_after_waits_again_and_one_long_after_only_a_moment(hub: Restorable) -> None:
    [n] = hub.submit()
    hub.restore(hub.back_up())
    hub.later(100)
    hub.restart()
    hub.hello()
    hub.later(HOLD_S - 2)
    assert hub.state(n) is TaskState.QUEUED
    hub.later(4000)
    hub.restart()
    hub.hello()
    hub.later(29)
    assert hub.state(n) is TaskState.QUEUED
    hub.beat()
    hub.later(2)
    assert hub.state(n) is TaskState.ASSIGNED


def test_a_change_in_review_keeps_the_lease_it_is_named_after_and_its_rework_gets_one_far_ahead(hub: Restorable) -> None:
    n = hub.in_review()
    hub.restore(hub.back_up())
    assert hub.task(n).lease_epoch == 1
    hub.do(c.Rework(n=TaskId(n), lease_epoch=LeaseEpoch(1), feedback="no"))
    assert hub.task(n).lease_epoch > RESTORE_JUMP


def test_tasks_sessions_and_controls_get_numbers_nobody_has_seen(hub: Restorable) -> None:
    n = hub.working()
    session = hub.cluster.agents["w1"].epoch
    copy = hub.back_up()
    hub.do(c.Cancel(actor="ann", n=TaskId(n)))
    (seen,) = hub.cluster.controls
    later = hub.submit()
    hub.hello("w9")
    hub.restore(copy)
    assert hub.submit()[0] > RESTORE_JUMP >= later[0]
    assert hub.hello("w9") > RESTORE_JUMP, "an agent that the backup does not know"
    assert hub.hello("w1", held=(held(n, 1),)) > session + RESTORE_JUMP
    hub.do(c.Cancel(actor="ann", n=TaskId(n)))
    (cid,) = hub.cluster.controls
    assert cid > seen + RESTORE_JUMP - 2


def test_what_an_old_session_says_after_the_restore_changes_nothing(hub: Restorable) -> None:
    n = hub.working()
    old = hub.cluster.agents["w1"].epoch
    hub.restore(hub.back_up())
    hub.hello(held=(held(n, 1),))
    with pytest.raises(Exception, match="this session is over"):
        hub.said(c.Accept, "w1", epoch=old, n=TaskId(n), lease_epoch=LeaseEpoch(1))
    assert SessionEpoch(old) < hub.cluster.agents["w1"].epoch


@settings(max_examples=12, deadline=None)
@given(
    before=st.lists(st.integers(0, 3), max_size=6),
    after=st.lists(st.integers(0, 3), max_size=8),
    again=st.lists(st.integers(0, 3), max_size=6),
    twice=st.booleans(),
)
def test_no_lease_is_ever_granted_that_is_not_above_every_one_before(
    before: list[int], after: list[int], again: list[int], twice: bool
) -> None:
    hub = Restorable()
    highest: dict[int, int] = {}
    granted: set[tuple[int, int]] = set()
    numbers: set[int] = set()

    def live(steps: list[int]) -> None:
        for step in steps:
            match step:
                case 0:
                    [n] = hub.submit()
                    assert n not in numbers
                    numbers.add(n)
                case 1:
                    hub.hello(boot=str(hub.clock.mono))
                case 2:
                    hub.later(31)
                    hub.beat()
                case _:
                    task = hub.cluster.agents["w1"].task if "w1" in hub.cluster.agents else None
                    if task is not None and hub.task(task).state is TaskState.ASSIGNED:
                        hub.accept(task)
            for push in hub.effects(PushAssign):
                if (push.n, push.lease_epoch) not in granted:
                    assert push.lease_epoch > highest.get(push.n, -1)
                granted.add((push.n, push.lease_epoch))
                highest[push.n] = max(highest.get(push.n, 0), push.lease_epoch)

    live([0, 1, *before])
    copy = hub.back_up()
    live(after)
    for _ in range(1 + twice):
        hub.restore(copy)
        hub.hello()
        hub.settle()
        live([0, 1, *again])


def test_a_grant_is_told_with_the_lease_that_the_agent_knows(hub: Restorable) -> None:
    [n] = hub.submit()
    copy = hub.back_up()
    hub.hello()
    hub.restore(copy)
    hub.hello(held=(held(n, 1, Phase.ASSIGNED),))
    assert [(effect.n, effect.lease_epoch) for effect in hub.effects(GrantLease)] == [(n, 1)]
