"""Failure class 4, *stale state*: what is shown is not what is.

Others infer busy, idle and "needs input" from a terminal's screen: sessions that need input for 19 hours, agents that work without a
task, healthy ones that are offline because a sync held up the heartbeat (agent-orchestrator#3738; multica#1463, #825, #4407). Here
nothing is scraped: an agent is what its live socket and its lease say, presence converges to the sockets, and a restart of the hub
shows nobody as present who has not said hello to it.

Proven elsewhere: a link that is there and moves nothing, from either side (``tests/integration/test_network.py``, ``test_link.py``);
streams of events resume without a gap or say that they cannot (``tests/unit/hub/edge/test_events.py``,
``tests/unit/hub/client/test_stream.py``); presence converges when faults stop (``tests/simulation``, L4).
"""

from __future__ import annotations

from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from hub.ids import HeldVerdict, LeaseEpoch, Phase
from hub.wire import frames
from tests.support.living_hub import LivingHub
from tests.support.peer import Peer

pytestmark = pytest.mark.timeout(120)


def agent(hub: LivingHub, name: str) -> dict[str, Any]:
    found: dict[str, Any] = hub.made("GET", f"/agents/{name}")
    return found


def is_(hub: LivingHub, name: str, state: str, *flags: str) -> None:
    hub.until(
        lambda: agent(hub, name)["state"] == state and set(flags) <= set(agent(hub, name)["flags"]),
        f"{name} is {state} {' '.join(flags)}",
        within_s=30,
    )


def test_presence_is_what_the_sockets_are(patient: LivingHub) -> None:
    here, goes = patient.peer("here"), patient.peer("goes")
    is_(patient, "here", "idle")
    is_(patient, "goes", "idle")
    goes.leave()
    is_(patient, "goes", "offline")
    assert agent(patient, "here")["state"] == "idle"
    here.close()
    is_(patient, "here", "idle", "reconnecting")


def test_a_blip_makes_no_noise_and_a_loss_shows_after_its_grace(hub: LivingHub) -> None:
    peer = hub.peer("blips")
    is_(hub, "blips", "idle")
    peer.close()
    peer = hub.peer("blips")
    assert [step["to_state"] for step in agent(hub, "blips")["transitions"]] == ["idle"], "nobody was told that it left"
    peer.close()
    is_(hub, "blips", "offline")


def test_a_half_open_link_is_given_up(hub: LivingHub) -> None:
    """Nothing is closed, and nothing comes: after two and a half beats it is a lost link."""
    peer = hub.peer("half-open")
    code, _ = peer.closed()
    assert code == 4003
    is_(hub, "half-open", "offline")


def test_of_two_sessions_only_the_newer_speaks(patient: LivingHub) -> None:
    old, n = patient.working("twice")
    new = patient.peer("twice", boot_id="b2", held=(frames.Held(task=n, lease_epoch=LeaseEpoch(1), phase=Phase.WOKEN),))
    assert old.closed()[0] == 4409
    with pytest.raises(ConnectionClosed):
        old.renew(n, 1)
    assert new.renew(n, 1)
    assert [one["id"] for one in patient.made("GET", "/agents?limit=500")["agents"]].count("twice") == 1
    new.close()


def test_after_a_restart_nobody_is_present_who_has_not_said_hello(patient: LivingHub) -> None:
    idle = patient.peer("was-idle")
    busy, n = patient.working("was-busy")
    patient.kill()
    idle.close()
    busy.close()
    patient.start()
    assert agent(patient, "was-idle")["state"] == agent(patient, "was-busy")["state"] == "offline"
    assert patient.made("GET", f"/tasks/{n}")["agent"] == "was-busy", "whose task it is was not forgotten"
    held = frames.Held(task=n, lease_epoch=LeaseEpoch(1), phase=Phase.WOKEN)
    peer = patient.peer("was-busy", held=(held,))
    is_(patient, "was-busy", "working")
    assert agent(patient, "was-busy")["task"] == f"t-{n}"
    peer.close()


def test_what_is_asked_is_shown_as_long_as_it_is_open_and_no_longer(patient: LivingHub) -> None:
    peer, n = patient.working("asks")
    peer.say(frames.Question(id=5, task=n, lease_epoch=LeaseEpoch(1), qid="q", text="Which way?"))
    is_(patient, "asks", "blocked")
    assert "Which way?" in patient.made("GET", f"/tasks/{n}/explain")["explanation"]
    patient.made("POST", f"/tasks/{n}/answer", {"text": "left"})
    assert (agent(patient, "asks")["state"], patient.made("GET", f"/tasks/{n}")["state"]) == ("working", "working")
    assert peer.hear(frames.Control).text == "left"
    peer.close()


def test_verdicts_follow_what_each_side_holds(patient: LivingHub) -> None:
    peer, n = patient.working("verdicts")
    peer.close()
    mine = frames.Held(task=n, lease_epoch=LeaseEpoch(1), phase=Phase.WOKEN)
    older = frames.Held(task=n, lease_epoch=LeaseEpoch(7), phase=Phase.WOKEN)
    stranger = frames.Held(task=4_711_000, lease_epoch=LeaseEpoch(1), phase=Phase.WOKEN)
    peer = Peer(patient.port, patient.tokens["agent"])
    welcome = peer.greet("verdicts", held=(mine, older, stranger))
    said = {(item.task, item.lease_epoch): item.verdict for item in welcome.verdicts}
    assert said == {(n, 1): HeldVerdict.KEEP, (n, 7): HeldVerdict.STOP, (4_711_000, 1): HeldVerdict.STOP}
    peer.close()
