"""Failure class 3, *zombie write and false kill*: a reaped worker goes on and overwrites its successor; a living one is killed, or
its finished work is thrown away.

Others kill healthy workers as stalled and then reject what they completed (orca#18368), or let a worker whose item was closed days
ago merge (gastown#4167). Here nobody is judged by how long it takes: who beats, holds. Who does not has stopped by itself before its
task is given away; whatever it still says carries the fence of its lease, changes nothing, and what it made is kept.

Proven elsewhere: the agent's process tree is dead by its own deadline though sidecar or shim are killed or frozen
(``tests/integration/test_shim.py``, ``test_strays.py``), on a clock that counts while a machine sleeps (``sidecar/runs/clock.py``);
only the applied lease's branch at its recorded head is merged (``tests/integration/test_gatekeeper.py``); a wall clock that jumps
(``tests/unit/hub/core/test_assignments.py``); a disk that hangs (``tests/unit/hub/services/test_conductor.py``). There are no tokens
per task in this version: an agent's environment holds no credential that could outlive its lease.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from hub.ids import LeaseEpoch, Verdict
from hub.wire import frames
from tests.support.living_hub import LivingHub

pytestmark = pytest.mark.timeout(120)

HOLD_S = 2.8
"""After this long without a beat the short hub gives a task away."""


def test_an_agent_that_takes_its_time_is_not_killed_while_it_beats(hub: LivingHub) -> None:
    peer, n = hub.working("slow")
    until = time.monotonic() + 1.5 * HOLD_S
    while time.monotonic() < until:
        assert peer.renew(n, 1), "it beat, and was told that its lease is lost"
        time.sleep(0.2)
    assert peer.report(peer.sealed(n, 1)) is Verdict.APPLIED
    peer.close()


def test_a_reaped_worker_overwrites_nothing_and_what_it_made_is_kept(hub: LivingHub) -> None:
    zombie, n = hub.working("zombie")
    zombie.close()
    hub.until(lambda: hub.made("GET", f"/tasks/{n}")["state"] == "queued", "its lease is over", within_s=30)
    heir = hub.peer("heir-of-zombie")
    hub.made("POST", f"/tasks/{n}/assign", {"agent": "heir-of-zombie"})
    heir.say(frames.Accept(id=2, task=heir.hear(frames.Assign).task, lease_epoch=LeaseEpoch(2)))
    heir.hear(frames.Accepted)
    zombie = hub.peer("zombie", held=(frames.Held(task=n, lease_epoch=LeaseEpoch(1), phase="woken"),))
    assert not zombie.renew(n, 1), "it is told that the lease is lost"
    zombie.say(frames.Question(id=9, task=n, lease_epoch=LeaseEpoch(1), qid="q", text="still there?"))
    assert zombie.hear(frames.Revoke).task == n
    late = zombie.sealed(n, 1, output="from beyond")
    assert zombie.report(late) is Verdict.SALVAGED
    assert heir.renew(n, 2), "the successor was not disturbed"
    assert heir.report(heir.sealed(n, 2, output="by the heir")) is Verdict.APPLIED
    detail = hub.made("GET", f"/tasks/{n}")
    assert detail["result"]["output"] == "by the heir"
    [kept] = detail["salvage"]
    assert (kept["id"], kept["agent"], kept["reason"]) == (
        f"t-{n}/1",
        "zombie",
        "it came too late: lease 2 was the task's by then",
    )
    assert hub.made("GET", f"/salvage/t-{n}/1")["output"] == "from beyond"


def test_a_success_that_comes_too_late_but_before_anybody_else_is_welcome(hub: LivingHub) -> None:
    peer, n = hub.working("late")
    hub.made("POST", "/agents/late/pause")
    peer.close()
    hub.until(lambda: hub.made("GET", f"/tasks/{n}")["state"] == "queued", "its lease is over", within_s=30)
    peer = hub.peer("late", outbox=(frames.Outgoing(task=n, lease_epoch=LeaseEpoch(1), sha256="0" * 64),))
    assert peer.report(peer.sealed(n, 1)) is Verdict.APPLIED
    found = hub.made("GET", f"/tasks/{n}")
    assert (found["state"], found["cause"]) == ("done", "late")


def test_a_hub_that_stood_still_longer_than_a_lease_expires_nobody(hub: LivingHub) -> None:
    """SIGSTOP: what nobody could hear counts against nobody (protocol §4.7)."""
    peer, n = hub.working("patient")
    assert peer.renew(n, 1)
    os.kill(hub.pid, signal.SIGSTOP)
    try:
        time.sleep(HOLD_S + 0.5)
    finally:
        os.kill(hub.pid, signal.SIGCONT)
    assert peer.renew(n, 1), "the lease was extended by the stall"
    assert peer.report(peer.sealed(n, 1)) is Verdict.APPLIED
    peer.close()
