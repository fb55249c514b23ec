"""Protocol §6, row by row: what a reconnecting sidecar says, what the hub has, what follows."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from hub.core import commands as c
from hub.core.decision import CloseSession, GrantLease, HeldAnswer, PushAssign, SendControl, Welcome
from hub.core.errors import Refused
from hub.core.reconcile import RULES, HubHas, Rule, Says
from hub.ids import AgentState, HeldVerdict, Outcome, Phase, TaskState, Verdict
from tests.support.cluster import Hub, held, needs, new, outgoing


def back(hub: Hub, **fields: Any) -> list[Any]:
    """w1 comes back; what its new session is told, without the closing of the old one."""
    hub.effects()
    hub.hello("w1", **fields)
    told = [effect for effect in hub.effects() if not isinstance(effect, CloseSession)]
    assert isinstance(told[0], Welcome), "the welcome is the first a session hears"
    return told


def verdicts(told: list[Any]) -> list[tuple[int, int, HeldVerdict]]:
    return [(item.n, item.lease_epoch, item.verdict) for item in told[0].verdicts]


def assigned() -> tuple[Hub, int]:
    hub = Hub()
    hub.hello()
    [n] = hub.submit()
    return hub, n


def working() -> tuple[Hub, int]:
    hub = Hub()
    return hub, hub.working()


def test_every_row_of_the_table_has_a_rule() -> None:
    assert RULES.keys() == set(product(HubHas, Says))


def test_assigned_and_held_is_taken_as_accept() -> None:
    hub, n = assigned()
    told = back(hub, held=(held(n, 1, Phase.ASSIGNED),))
    assert verdicts(told) == [(n, 1, HeldVerdict.ACCEPTED)]
    assert told[1] == GrantLease(n=n, lease_epoch=1)
    assert hub.state(n) is TaskState.WORKING
    assert hub.task(n).holder_epoch == 2


def test_assigned_and_absent_is_assigned_again() -> None:
    hub, n = assigned()
    told = back(hub)
    assert verdicts(told) == []
    assert isinstance(told[1], PushAssign) and told[1].lease_epoch == 1
    assert hub.state(n) is TaskState.ASSIGNED
    assert hub.task(n).tries == 1, "the same offer, not another try"


def test_assigned_and_outbox_sends_the_result_which_is_applied() -> None:
    hub, n = assigned()
    told = back(hub, outbox=(outgoing(n, 1),))
    assert verdicts(told) == [(n, 1, HeldVerdict.SEND_RESULT)]
    assert hub.result(n) is Verdict.APPLIED


@pytest.mark.parametrize(("phase", "granted_again"), [(Phase.ACCEPTED, True), (Phase.WOKEN, False), (Phase.PUSHED, False)])
def test_working_and_held_is_kept(phase: Phase, granted_again: bool) -> None:
    hub, n = working()
    hub.clock.advance(100)
    told = back(hub, held=(held(n, 1, phase),))
    assert verdicts(told) == [(n, 1, HeldVerdict.KEEP)]
    assert any(isinstance(effect, GrantLease) for effect in told) is granted_again
    assert hub.task(n).holder_epoch == 2, "the holder is rebound to the new session"
    assert hub.task(n).lease_until == hub.clock.mono + hub.terms.hold_us


def test_blocked_and_held_is_kept_with_its_question() -> None:
    hub = Hub()
    n = hub.blocked()
    assert verdicts(back(hub, held=(held(n, 1),))) == [(n, 1, HeldVerdict.KEEP)]
    assert hub.cluster.agents["w1"].state is AgentState.BLOCKED
    assert hub.task(n).question is not None


def test_working_and_outbox_keeps_the_lease_until_the_result_arrives() -> None:
    hub, n = working()
    hub.clock.advance(100)
    assert verdicts(back(hub, outbox=(outgoing(n, 1),))) == [(n, 1, HeldVerdict.SEND_RESULT)]
    assert hub.task(n).lease_until == hub.clock.mono + hub.terms.hold_us
    assert hub.result(n) is Verdict.APPLIED


def test_outbox_wins_when_the_sidecar_says_both() -> None:
    hub, n = working()
    assert verdicts(back(hub, held=(held(n, 1),), outbox=(outgoing(n, 1),))) == [(n, 1, HeldVerdict.SEND_RESULT)]


def test_working_and_silent_from_the_same_install_is_lost_at_once() -> None:
    hub, n = working()
    told = back(hub)
    assert verdicts(told) == []
    assert hub.task(n).lost == 1
    assert hub.task(n).lease_epoch == 2, "queued and at once given to the very agent"
    assert any(isinstance(effect, PushAssign) and effect.lease_epoch == 2 for effect in told)


def test_working_and_silent_from_another_install_waits_for_expiry() -> None:
    hub, n = working()
    until = hub.task(n).lease_until
    hub.cluster.agents["w1"].install_id = "elsewhere"  # however it came to have the name
    told = back(hub, install="elsewhere")
    assert verdicts(told) == []
    assert hub.state(n) is TaskState.WORKING
    assert hub.task(n).lease_until == until
    hub.later(241)
    assert hub.task(n).lost == 1


@pytest.mark.parametrize("epoch", [2, 7])
def test_another_fence_is_stopped_or_asked_for_and_touches_nothing(epoch: int) -> None:
    hub = Hub()
    n = hub.working()
    hub.result(n, Outcome.FAILED)
    before = hub.task(n).row()
    told = back(hub, held=(held(n, epoch),), outbox=(outgoing(n, 1), outgoing(999, 3)))
    assert sorted(verdicts(told)) == sorted(
        [(n, epoch, HeldVerdict.STOP), (n, 1, HeldVerdict.SEND_RESULT), (999, 3, HeldVerdict.SEND_RESULT)]
    )
    assert hub.task(n).row() == before


def test_a_stale_outbox_item_does_not_renew_the_present_lease() -> None:
    """Said of an older fence by another installation: the lease of the present one runs on towards its expiry."""
    hub = Hub()
    n = hub.working()
    hub.said(c.GiveBack, n=n, lease_epoch=1, reason="drain")
    hub.accept(n)
    until, holder_epoch = hub.task(n).lease_until, hub.task(n).holder_epoch
    hub.clock.advance(50)
    hub.cluster.agents["w1"].install_id = "elsewhere"
    told = back(hub, install="elsewhere", outbox=(outgoing(n, 1),))
    assert verdicts(told) == [(n, 1, HeldVerdict.SEND_RESULT)]
    assert (hub.task(n).lease_until, hub.task(n).holder_epoch) == (until, holder_epoch)


def test_somebody_elses_assignment_is_stopped() -> None:
    hub, n = working()
    hub.effects()
    hub.hello("w2", held=(held(n, 1),))
    [welcome, *_] = hub.effects()
    assert welcome.verdicts == (HeldAnswer(n=n, lease_epoch=1, verdict=HeldVerdict.STOP),)
    assert hub.task(n).holder == "w1"


def test_the_same_install_supersedes_the_old_session() -> None:
    hub = Hub()
    hub.hello(boot="b1")
    hub.effects()
    hub.hello(boot="b2")
    closing = hub.effects()[0]
    assert isinstance(closing, CloseSession) and closing.code == 4409


@pytest.mark.parametrize("kind", [c.Accept, c.Beat, c.Report, c.Decline, c.GiveBack, c.Ask, c.Progress, c.ControlNoted])
def test_an_old_session_changes_nothing(kind: Any) -> None:
    """I8."""
    hub, n = assigned()
    hub.hello()
    more = {"n": n, "lease_epoch": 1}
    fields: dict[Any, dict[str, Any]] = {
        c.Accept: more,
        c.Beat: {"quiet": True},
        c.Report: more | {"outcome": Outcome.SUCCEEDED, "sha256": "ab" * 32},
        c.Decline: more | {"code": "busy"},
        c.GiveBack: more | {"reason": "drain"},
        c.Ask: more | {"qid": "q", "text": "?"},
        c.Progress: more | {"seq": 1},
        c.ControlNoted: {"cid": 1},
    }
    before = hub.task(n).row()
    with pytest.raises(Refused, match="session is over"):
        hub.said(kind, epoch=1, **fields[kind])
    assert hub.task(n).row() == before


def test_the_clean_up_of_an_old_session_never_touches_the_new() -> None:
    hub = Hub()
    hub.hello()
    hub.hello()
    hub.said(c.Disconnected, epoch=1)
    assert hub.cluster.agents["w1"].connected


def test_another_install_is_refused_while_the_old_lives_or_holds_a_lease() -> None:
    hub, n = working()
    with pytest.raises(Refused, match="another installation"):
        hub.hello(install="elsewhere")
    hub.said(c.Disconnected)
    with pytest.raises(Refused, match="another installation"):
        hub.hello(install="elsewhere")
    hub.later(241)
    assert hub.state(n) is TaskState.QUEUED
    assert hub.hello(install="elsewhere") == 2


def test_a_control_is_sent_again_until_it_is_noted() -> None:
    hub, n = working()
    hub.do(c.Cancel(n=n))
    [control] = hub.effects(SendControl)
    assert [effect for effect in back(hub, held=(held(n, 1),)) if isinstance(effect, SendControl)] == [control]
    hub.said(c.ControlNoted, cid=control.cid)
    assert not [effect for effect in back(hub, held=(held(n, 1),)) if isinstance(effect, SendControl)]


def test_a_hub_restart_is_a_reconnection_like_any_other() -> None:
    hub, n = working()
    hub.clock.advance(60)
    hub.restart()
    assert hub.task(n).lease_until == hub.clock.mono + hub.terms.hold_us, "readiness gives every lease its full term"
    assert verdicts(back(hub, held=(held(n, 1),))) == [(n, 1, HeldVerdict.KEEP)]
    assert hub.result(n) is Verdict.APPLIED


def test_presence_waits_out_a_blip() -> None:
    hub = Hub()
    hub.hello()
    hub.said(c.Disconnected)
    hub.later(29)
    assert hub.cluster.agents["w1"].state is AgentState.IDLE
    hub.hello()
    hub.later(31)
    assert hub.cluster.agents["w1"].state is AgentState.IDLE, "the grace of the old session is over and forgotten"
    hub.said(c.Disconnected)
    hub.later(31)
    assert hub.cluster.agents["w1"].state is AgentState.OFFLINE


def test_the_welcome_names_the_greeting_it_answers() -> None:
    """Two hellos of one boot may wait for one commit; each welcome must find its own link."""
    hub = Hub()
    hub.grouping = True
    hub.hello(greeting=7)
    hub.hello(greeting=8)
    hub.commit()
    told = [(epoch, effect) for _, epoch, effect in hub.told]
    assert [(epoch, effect.greeting) for epoch, effect in told if isinstance(effect, Welcome)] == [(1, 7), (2, 8)]


def test_a_lost_assignment_does_not_lose_its_dependants() -> None:
    hub = Hub()
    first, second = hub.submit(new("a", ref="a"), new("b", depends_on=(needs("a"),)))
    hub.hello()
    hub.accept(first)
    back(hub)
    hub.accept(first)
    hub.result(first)
    assert hub.cluster.agents["w1"].task == second
    assert Rule.LOST is RULES[HubHas.WORKING, Says.SILENT_SAME_INSTALL]


def test_a_hello_held_up_on_an_abandoned_connection_gives_up_no_work_that_goes_on() -> None:
    """Its sidecar gave that connection up, connected again and took a task, which the old hello does not know of.

    Taken for the present it made the task another agent's while its own was still running (found by the simulation: I16).
    """
    hub = Hub()
    hub.hello(host_boot="today", sent_mono=2_000_000)
    n = hub.working()
    with pytest.raises(Refused) as refused:
        hub.hello(host_boot="today", sent_mono=1_000_000)
    assert (refused.value.status, refused.value.code) == (409, "stale_hello")
    assert (hub.state(n), hub.cluster.agents["w1"].epoch, hub.effects(CloseSession)) == (TaskState.WORKING, 1, [])


@pytest.mark.parametrize(
    "said",
    [
        {"host_boot": "today", "sent_mono": 3_000_000},
        {"host_boot": "another", "sent_mono": 1},
        {"host_boot": "today", "sent_mono": 0},
    ],
    ids=["later", "after a boot", "no clock"],
)
def test_a_hello_that_may_be_the_newest_is_heard(said: dict[str, Any]) -> None:
    hub = Hub()
    hub.hello(host_boot="today", sent_mono=2_000_000)
    hub.working()
    hub.hello(**said)
    assert hub.cluster.agents["w1"].epoch == 2


def test_an_old_hello_is_heard_when_nothing_newer_lives() -> None:
    """A clock that was set back with its machine must not lock an agent out for ever."""
    hub = Hub()
    epoch = hub.hello(host_boot="today", sent_mono=2_000_000)
    hub.said(c.Disconnected, epoch=epoch)
    hub.hello(host_boot="today", sent_mono=1_000_000)
    assert hub.cluster.agents["w1"].connected
