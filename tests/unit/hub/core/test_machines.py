"""The two state machines: the tables are those of the specification, a legal edge moves, an illegal one raises and moves nothing."""

from __future__ import annotations

from itertools import product

import pytest

from hub.core import agent as agents
from hub.core import task as tasks
from hub.core.agent import Agent
from hub.core.errors import IllegalTransition
from hub.core.task import Task
from hub.ids import TERMINAL, Access, AgentId, AgentState, Lane, TaskId, TaskState, TaskType

SPECIFIED = """
waiting   scheduled queued cancelled dead done
scheduled queued waiting cancelled dead done
queued    assigned waiting in_review done cancelled dead
assigned  working queued cancelled dead
working   blocked in_review done scheduled queued dead cancelled
blocked   working in_review done scheduled queued dead cancelled
in_review done queued dead cancelled
done      queued waiting
dead      queued waiting
cancelled queued waiting
"""
"""Semantics, Task; a requeue with an open dependency waits."""


def a_task(state: TaskState) -> Task:
    return Task(TaskId(1), "default", None, TaskType.TASK, Lane.NORMAL, Access.WRITE, False, 1, 3, 0, state=state)


def test_the_table_is_the_specification() -> None:
    written = {line.split()[0]: set(line.split()[1:]) for line in SPECIFIED.strip().splitlines()}
    assert {before.value: {to.value for to in after} for before, after in tasks.TRANSITIONS.items()} == written


@pytest.mark.parametrize(("before", "to"), [*product(TaskState, TaskState)])
def test_a_task_moves_along_the_table_only(before: TaskState, to: TaskState) -> None:
    task = a_task(before)
    row = task.row()
    if to in tasks.TRANSITIONS[before]:
        assert task.move(to) is before
        assert task.row() == row._replace(state=to)
    else:
        with pytest.raises(IllegalTransition):
            task.move(to)
        assert task.row() == row


@pytest.mark.parametrize(("before", "to"), [*product(AgentState, AgentState)])
def test_an_agent_moves_along_the_table_only(before: AgentState, to: AgentState) -> None:
    agent = Agent(AgentId("a"), 0, state=before)
    if to is before or to in agents.TRANSITIONS[before]:
        assert agent.move(to) is before
        assert agent.state is to
    else:
        with pytest.raises(IllegalTransition):
            agent.move(to)
        assert agent.state is before


def test_a_terminal_state_is_left_only_towards_a_new_generation() -> None:
    for state in TERMINAL:
        assert tasks.TRANSITIONS[state] == {TaskState.QUEUED, TaskState.WAITING}


def test_what_a_sidecar_calls_itself_can_be_read_again() -> None:
    """A capability with a quote in it once made the agent's row unreadable, and with it the whole store."""
    from tests.support.cluster import Hub

    hub = Hub()
    hub.hello("w1", capabilities=('a"b', "c\\d", "é\n"), projects=('p"',))
    hub.restart()
    assert hub.cluster.agents["w1"].capabilities == {'a"b', "c\\d", "é\n"}
