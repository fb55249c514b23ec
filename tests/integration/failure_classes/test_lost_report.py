"""Failure class 1, *lost report*: the work is done, and the message that says so is lost.

Others suffer a completion posted once, on a connection that just broke or a context that was just cancelled: a zombie run, and the
agent's only slot wedged until somebody notices (multica#8529, #4336; claude-code#76500). Here a result is journalled before it is
sent, sent again until it is acknowledged, and applied exactly once; the slot is free with the commit that applies it.

Proven elsewhere: the sidecar that dies between the end of its agent and the result, and agents that finish without a hub
(``tests/crash/test_kills.py``); a journal entry that goes only with ``result_ack``, over crashes at every step
(``tests/property/test_holder.py``, ``tests/unit/sidecar/core/test_holder.py``); a network that loses anything anywhere
(``tests/simulation``).
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from hub.ids import HeldVerdict, LeaseEpoch, Outcome, TaskId, Verdict
from hub.wire import frames
from tests.support.fleet import Fleet, wait_until
from tests.support.living_hub import LivingHub
from tests.support.peer import Peer

pytestmark = pytest.mark.timeout(120)


def back(hub: LivingHub, agent: str, result: frames.Result) -> tuple[Peer, frames.Welcome]:
    """The sidecar reconnects, with its result still in its outbox."""
    peer = Peer(hub.port, hub.tokens["agent"])
    outgoing = frames.Outgoing(task=result.task, lease_epoch=result.lease_epoch, sha256=result.sha256)
    return peer, peer.greet(agent, outbox=(outgoing,))


def ends(hub: LivingHub, task: int) -> int:
    return sum(event["to_state"] == "done" for event in hub.made("GET", f"/tasks/{task}")["history"])


def test_a_result_lost_with_its_socket_is_asked_for_and_applied_once(patient: LivingHub) -> None:
    peer, task = patient.working("lost-socket")
    result = peer.sealed(task, 1)
    peer.close()  # the report was never sent, as far as the hub knows
    peer, welcome = back(patient, "lost-socket", result)
    assert [item.verdict for item in welcome.verdicts] == [HeldVerdict.SEND_RESULT]
    assert peer.report(result) is Verdict.APPLIED
    assert peer.report(result) is Verdict.DUPLICATE
    assert ends(patient, task) == 1


def test_a_lost_acknowledgement_makes_a_duplicate_and_the_slot_is_free_at_once(patient: LivingHub) -> None:
    peer, task = patient.working("lost-ack")
    result = peer.sealed(task, 1)
    peer.say(result)
    peer.hear(frames.ResultAck)
    peer.close()  # applied; whether its acknowledgement was heard makes no difference
    peer, welcome = back(patient, "lost-ack", result)
    assert [item.verdict for item in welcome.verdicts] == [HeldVerdict.SEND_RESULT], "only a verdict empties the outbox"
    assert peer.report(result) is Verdict.DUPLICATE
    assert ends(patient, task) == 1
    patient.made("POST", "/tasks", {"title": "next", "assign_to": "lost-ack", "repo": None})
    assert peer.hear(frames.Assign).task != task


def test_a_hub_killed_before_the_commit_of_a_result_applies_it_when_it_is_back(patient: LivingHub) -> None:
    peer, task = patient.working("before-commit")
    result = peer.sealed(task, 1)
    os.kill(patient.pid, signal.SIGSTOP)  # what is sent now lies in a socket when the power goes
    peer.say(result)
    patient.kill()
    peer.close()
    patient.start()
    peer, welcome = back(patient, "before-commit", result)
    assert [item.verdict for item in welcome.verdicts] == [HeldVerdict.SEND_RESULT]
    assert patient.made("GET", f"/tasks/{task}")["state"] == "working", "the lease is kept until it arrives"
    assert peer.report(result) is Verdict.APPLIED
    assert ends(patient, task) == 1


def test_a_hub_killed_after_the_commit_of_a_result_knows_it_when_it_is_back(patient: LivingHub) -> None:
    peer, task = patient.working("after-commit")
    result = peer.sealed(task, 1)
    peer.say(result)
    patient.until(lambda: patient.made("GET", f"/tasks/{task}")["state"] == "done", "the result is committed")
    patient.kill()
    peer.close()
    patient.start()
    peer, _ = back(patient, "after-commit", result)
    assert peer.report(result) is Verdict.DUPLICATE
    assert ends(patient, task) == 1


def test_another_body_for_the_same_lease_never_replaces_the_first(patient: LivingHub) -> None:
    peer, task = patient.working("two-words")
    assert peer.report(peer.sealed(task, 1, output="the first")) is Verdict.APPLIED
    assert peer.report(peer.sealed(task, 1, output="the second")) is Verdict.DUPLICATE
    detail = patient.made("GET", f"/tasks/{task}")
    assert detail["result"]["output"] == "the first"
    assert "result.conflict" in [event["kind"] for event in detail["history"]], "and somebody can see it"


@pytest.mark.parametrize(
    ("lie", "verdict"),
    [({"outcome": Outcome.SUCCEEDED}, Verdict.SALVAGED), ({"outcome": Outcome.FAILED}, Verdict.STALE)],
    ids=["a success is kept", "a failure is nothing"],
)
def test_a_result_of_a_task_nobody_knows_gets_a_verdict_too(
    patient: LivingHub, lie: dict[str, Outcome], verdict: Verdict
) -> None:
    """Or a sidecar would send it for ever."""
    peer = patient.peer(f"stranger-{lie['outcome']}")
    result = peer.sealed(TaskId(4_000_000), LeaseEpoch(3 if lie["outcome"] is Outcome.FAILED else 2), **lie)
    assert peer.report(result) is verdict
    if verdict is Verdict.SALVAGED:
        assert patient.made("GET", "/salvage/t-4000000/2")["reason"] == "its task is not known here"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("point", ["hub.send.result_ack.before:kill", "sidecar.send.result.before:kill"])
async def test_whoever_dies_around_a_real_report_the_task_is_done_once(fleet: Fleet, point: str) -> None:
    """The very processes, killed where it hurts: before the result leaves, before its acknowledgement does."""
    whom = "hub" if point.startswith("hub") else "a-1"
    await (fleet.kill_hub() if whom == "hub" else fleet.kill_sidecar(whom))
    fleet.failpoints[whom] = point
    await _start(fleet, whom)
    steps = [{"do": "slow", "s": 0.3}, {"do": "no_commit"}]
    async with fleet.client() as client:
        work: Any = {"title": "Work", "type": "research", "metadata": {"mock": steps}}
        task = (await client.submit(work))["id"]
    await fleet.died(whom)
    await _start(fleet, whom)

    async def done() -> bool:
        async with fleet.client() as client:
            return (await client.task(task))["state"] == "done"

    await wait_until(done, limit_s=60, what="the task is done")
    async with fleet.client() as client:
        history = (await client.task(task))["history"]
    assert sum(event["to_state"] == "done" for event in history) == 1
    assert fleet.run_counts()[int(task.removeprefix("t-"))] == 1, "and its agent ran once"


async def _start(fleet: Fleet, whom: str) -> None:
    await (fleet.start_hub() if whom == "hub" else fleet.start_sidecar(whom))
