"""Failure class 2, *lock without lease*: a run that died, or never began, owns its task for ever.

Others clear such locks by hand: 69 in two weeks for five agents, 79 by SQL, and clean-up that is off exactly while the provider
rate-limits (paperclip#2912, #2661, #6399, #10794, #9316). Here every hold is a lease that somebody must renew: whatever becomes of
its holder it ends by itself, and a person who knows more can end it sooner. Nothing needs a database's shell.

Proven elsewhere: no refund keeps a task for ever (``tests/unit/hub/core/test_assignments.py``, claims and losses); every lease ends
when faults stop (``tests/simulation``, L2); agents that decline everything (``tests/unit/hub/core/test_quarantine.py``).
"""

from __future__ import annotations

import time

import pytest
from websockets.exceptions import ConnectionClosed

from hub.ids import LeaseEpoch, Outcome, Verdict
from hub.wire import frames
from hub.wire.spec import RunError
from tests.support.living_hub import LivingHub
from tests.support.peer import Peer

pytestmark = pytest.mark.timeout(120)

BOUND_S = 30.0
"""Leases of the short hub end after 3 s; the rest is for a machine that has other things to do."""


def task(hub: LivingHub, n: int) -> dict[str, object]:
    found: dict[str, object] = hub.made("GET", f"/tasks/{n}")
    return found


def waits_for(hub: LivingHub, n: int, state: str) -> None:
    hub.until(lambda: task(hub, n)["state"] == state, f"t-{n} is {state}", within_s=BOUND_S)


def test_a_holder_that_dies_for_good_loses_its_task_to_another(hub: LivingHub) -> None:
    dead, n = hub.working("dies")
    hub.made("POST", f"/tasks/{n}/assign", {"agent": "dies"})
    dead.close()
    waits_for(hub, n, "queued")
    heir = hub.peer("heir")
    hub.made("POST", f"/tasks/{n}/assign", {"agent": "heir"})
    offer = heir.hear(frames.Assign)
    assert (offer.task, offer.lease_epoch) == (n, 2)
    heir.close()


def test_an_offer_that_nobody_takes_is_taken_back(hub: LivingHub) -> None:
    deaf = hub.peer("deaf")
    n = int(hub.made("POST", "/tasks", {"title": "x", "assign_to": "deaf", "repo": None})["id"].removeprefix("t-"))
    deaf.hear(frames.Assign)
    deaf.close()
    waits_for(hub, n, "queued")
    assert task(hub, n)["tries"] == 0, "at nobody's cost"
    hub.made("POST", f"/tasks/{n}/cancel")


def test_a_restart_of_the_hub_keeps_no_dead_lease_alive(hub: LivingHub) -> None:
    dead, n = hub.working("dies-then-restart")
    hub.kill()
    dead.close()
    hub.start()
    assert task(hub, n)["state"] == "working", "the holder gets a full term to come back"
    waits_for(hub, n, "queued")
    hub.made("POST", f"/tasks/{n}/cancel")


def test_a_rate_limited_run_frees_its_slot_and_comes_back_by_itself(hub: LivingHub) -> None:
    peer, n = hub.working("limited")
    error = RunError(cls="rate_limited", code="rate_limited", retry_after_ms=1000)
    limited = peer.sealed(n, 1, outcome=Outcome.RATE_LIMITED, error=error)
    assert peer.report(limited) is Verdict.APPLIED
    assert task(hub, n)["state"] == "scheduled"
    assert hub.made("GET", "/agents/limited")["task"] is None
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        peer.renew(n, 1)  # alive, and holding nothing
        if (offer := peer.heard(frames.Assign)) is not None:
            break
    assert offer is not None
    assert (offer.task, offer.lease_epoch, task(hub, n)["tries"]) == (n, 2, 1)
    peer.close()


def test_a_machine_made_anew_is_let_in_when_the_old_lease_is_over(hub: LivingHub) -> None:
    old, n = hub.working("reborn")
    old.close()
    assert refused(hub, "reborn") == 4410
    waits_for(hub, n, "queued")
    peer = Peer(hub.port, hub.tokens["agent"])
    assert peer.greet("reborn", install_id="another").verdicts == ()
    assert peer.hear(frames.Assign).lease_epoch == 2
    peer.close()


def test_a_machine_made_anew_is_let_in_at_once_when_somebody_releases_the_old_one(patient: LivingHub) -> None:
    old, n = patient.working("burnt")
    assert patient.ask("POST", "/agents/burnt/release").json()["code"] == "connected", "a living one is not overruled"
    old.close()
    patient.until(lambda: "reconnecting" in patient.made("GET", "/agents/burnt")["flags"], "its link is gone")
    assert refused(patient, "burnt") == 4410
    patient.made("POST", "/agents/burnt/release")
    assert task(patient, n)["state"] == "queued"
    peer = Peer(patient.port, patient.tokens["agent"])
    peer.greet("burnt", install_id="another")
    assert peer.hear(frames.Assign).lease_epoch == 2
    peer.close()


def test_a_machine_that_leaves_gives_its_task_back_at_once(patient: LivingHub) -> None:
    """It has stopped its runs; others used to wait until its lease was over."""
    install = "1" * 32
    token = patient.enrol("leaver", install_id=install, agents=["leaver"])
    peer = Peer(patient.port, token)
    peer.greet("leaver", install_id=install)
    n = int(patient.made("POST", "/tasks", {"title": "x", "assign_to": "leaver", "repo": None})["id"].removeprefix("t-"))
    peer.say(frames.Accept(id=2, task=peer.hear(frames.Assign).task, lease_epoch=LeaseEpoch(1)))
    peer.hear(frames.Accepted)
    peer.leave()
    assert patient.ask("POST", "/leave", token="leaver").status_code == 204
    assert (task(patient, n)["state"], task(patient, n)["cause"]) == ("queued", "left")


def test_an_agent_that_is_gone_is_removed_and_told_so_if_it_comes_back(patient: LivingHub) -> None:
    peer = patient.peer("gone")
    peer.leave()
    patient.until(lambda: patient.made("GET", "/agents/gone")["state"] == "offline", "it has left")
    assert "removed" in patient.made("POST", "/agents/gone/remove")["flags"]
    assert "gone" not in [agent["id"] for agent in patient.made("GET", "/agents?limit=500")["agents"]]
    assert refused(patient, "gone", install_id="i-gone") == 4505
    assert patient.made("GET", "/agents/gone")["transitions"], "what it did stays on record"


def refused(hub: LivingHub, agent: str, **fields: str) -> int | None:
    """The code with which a hello is refused."""
    peer = Peer(hub.port, hub.tokens["agent"])
    with pytest.raises((ConnectionClosed, AssertionError)):
        peer.greet(agent, **({"install_id": "another"} | fields))
    return peer.closed()[0]
