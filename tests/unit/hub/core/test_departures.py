"""Agents that do not come back: released by somebody who knows, removed when nothing of theirs is left."""

from __future__ import annotations

from typing import Any

import pytest

from hub.core import commands as c
from hub.core.errors import Refused
from hub.ids import AgentId, AgentState, LeaseEpoch, Outcome, TaskId, TaskState, Verdict
from tests.support.cluster import SHA, Hub

W1 = AgentId("w1")


def left_behind(**fields: Any) -> tuple[Hub, int]:
    """w1 vanished while it worked."""
    hub = Hub()
    n = hub.working(**fields)
    hub.said(c.Disconnected)
    return hub, n


def refusal(hub: Hub, command: c.Command) -> str:
    with pytest.raises(Refused) as refused:
        hub.do(command)
    return refused.value.code


def test_a_released_agents_task_is_queued_at_once_and_at_nobodys_cost() -> None:
    hub, n = left_behind()
    hub.do(c.ReleaseAgent(actor="ann", agent=W1))
    task = hub.task(n)
    assert (hub.state(n), task.cause, task.tries, task.lost) == (TaskState.QUEUED, "released", 0, 0)
    assert hub.cluster.agents[W1].state is AgentState.OFFLINE
    before = hub.store.last_seq
    hub.do(c.ReleaseAgent(actor="ann", agent=W1))
    assert hub.store.last_seq == before, "said again it changes nothing"


def test_its_name_is_free_for_another_installation() -> None:
    hub, n = left_behind()
    assert refusal(hub, c.Hello(agent=W1, install_id="elsewhere", boot_id="b")) == "name_in_use"
    hub.do(c.ReleaseAgent(actor="ann", agent=W1))
    hub.restart()
    hub.hello(install="elsewhere")
    assert hub.task(n).holder == W1, "and gets the task"


def test_a_late_success_of_a_released_lease_is_still_welcome() -> None:
    hub, n = left_behind()
    hub.do(c.ReleaseAgent(actor="ann", agent=W1))
    hub.do(c.PauseAgent(agent=W1))
    hub.hello()
    assert hub.said(c.Report, n=n, lease_epoch=LeaseEpoch(1), outcome=Outcome.SUCCEEDED, sha256=SHA).effects[0][2].verdict is (  # type: ignore[union-attr]
        Verdict.APPLIED
    )
    assert hub.state(n) is TaskState.DONE


def test_what_somebody_wanted_of_the_task_happens() -> None:
    hub, n = left_behind()
    hub.do(c.Cancel(n=TaskId(n)))
    hub.do(c.ReleaseAgent(actor="ann", agent=W1))
    assert hub.state(n) is TaskState.CANCELLED


def test_a_connected_agent_is_neither_released_nor_removed() -> None:
    hub = Hub()
    hub.working()
    assert refusal(hub, c.ReleaseAgent(agent=W1)) == "connected"
    assert refusal(hub, c.RemoveAgent(agent=W1)) == "connected"


def test_an_agent_is_removed_when_nothing_of_it_is_left() -> None:
    hub, n = left_behind()
    assert refusal(hub, c.RemoveAgent(agent=W1)) == "leased"
    hub.do(c.ReleaseAgent(agent=W1))
    hub.do(c.Assign(n=TaskId(n), agent=W1))
    assert refusal(hub, c.RemoveAgent(agent=W1)) == "pinned"
    hub.do(c.Cancel(n=TaskId(n)))
    hub.do(c.RemoveAgent(actor="ann", agent=W1))
    hub.restart()
    at = hub.cluster.agents[W1].removed_at
    hello = {"agent": W1, "install_id": "i-w1", "boot_id": "b"}
    assert refusal(hub, c.Hello(**hello, admitted_at=at)) == "agent_removed"  # type: ignore[arg-type]
    assert [row["agent"] for row in hub.store.rows("SELECT agent FROM attempt")] == ["w1"], "what it did stays"
    hub.do(c.Hello(**hello, admitted_at=at + 1))  # type: ignore[arg-type]
    assert hub.store.rows("SELECT removed_at FROM agent") == [{"removed_at": None}]


def test_a_question_under_a_lease_that_is_over_ends_the_run_that_asks() -> None:
    """It was answered ok, and its agent waited for an answer that nobody would give."""
    hub = Hub()
    n = hub.working()
    hub.later(241)
    decision = hub.said(c.Ask, n=TaskId(n), lease_epoch=LeaseEpoch(1), qid="q", text="which?", re=7)
    kinds = [type(effect).__name__ for _, _, effect in decision.effects]
    assert kinds[:2] == ["Okay", "Revoke"], "answered, so that it is not asked again, and told that it is over"
