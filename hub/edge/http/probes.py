"""Probes: does an agent's machine work end to end? A task of the hub's own, pinned to it, that wakes no agent and costs no tokens."""

from __future__ import annotations

import hashlib

import orjson
from fastapi import APIRouter

from hub.core.commands import NewTask, Submit
from hub.core.decision import Submitted
from hub.core.errors import Refused
from hub.edge.auth import Identity
from hub.edge.http.access import Hub, Prober
from hub.edge.http.fields import AgentName, Out, TaskId_, TaskRef
from hub.edge.http.reading import JsonRoute
from hub.edge.http.task_explanations import explain
from hub.ids import CHECKS, SECOND, Access, AgentId, Lane, Scope, TaskState, TaskType, VerificationKind, task_ref
from hub.store import agents, tasks
from hub.store.agents import AgentRecord
from hub.store.task_account import account

router = APIRouter(prefix="/agents/{agent}/probe", tags=["agents"], route_class=JsonRoute)

PATIENCE_US = 600 * SECOND
"""A probe that nobody took by then ends."""
_NO_OBJECT = "0" * 40
"""git's null object id: there is nothing to check out."""
_CHECK = {"kind": VerificationKind.COMMAND_SUCCEEDS, "argv": ["git", "--version"]}


class ProbeStartedOut(Out):
    """The task to ask for."""

    task: TaskId_


class ProbeOut(Out):
    """``state`` done: it works. ``explanation`` says what it waits for, or what went wrong."""

    task: TaskId_
    state: TaskState
    outcome: str | None
    cause: str | None
    explanation: str


@router.post("", status_code=202)
async def start(agent: AgentName, caller: Prober, hub: Hub) -> ProbeStartedOut:
    """Give the agent a task that runs ``git --version`` in an empty workspace, unless it has one. Refused 404 before it ever connected."""
    _check_own(caller, agent)
    known = await agents.find(hub.reader, agent)
    if known is None:
        raise Refused(404, "unknown_agent", f"the agent {agent!r} has not connected yet", hint="start its sidecar")
    if (running := await tasks.holder_of_key(hub.reader, _key(agent))) is None:
        answer = await hub.conductor.do(Submit(actor=caller.name, tasks=(_task(known, hub.now()),)))
        assert isinstance(answer, Submitted)
        running = answer.tasks[0].n
    return ProbeStartedOut(task=task_ref(running))


@router.get("/{task}")
async def show(agent: AgentName, task: TaskRef, caller: Prober, hub: Hub) -> ProbeOut:
    """How far a probe of this agent is."""
    _check_own(caller, agent)
    found = await account(hub.reader, task)
    if found is None or found.task.type is not TaskType.CHECK or found.task.assign_to != agent:
        raise Refused(404, "unknown_probe", f"{task_ref(task)} is no probe of {agent!r}", hint="start one by POST")
    attempt = next(iter(found.attempts), None)
    return ProbeOut(
        task=task_ref(task),
        state=found.task.state,
        outcome=attempt.outcome if attempt is not None else None,
        cause=found.task.cause,
        explanation=explain(found, hub.conductor.scheduler.explain(task)),
    )


def _check_own(caller: Identity, agent: AgentId) -> None:
    if not (caller.may(Scope.OPERATOR) or caller.may_be(agent)):
        raise Refused(
            403, "forbidden", f"this token is not for the agent {agent!r}", hint="use its own token, or an operator's"
        )


def _key(agent: AgentId) -> str:
    """One at a time: whoever asks again meanwhile hears of the same."""
    return f"probe:{agent}"


def _task(agent: AgentRecord, now: int) -> NewTask:
    spec = orjson.dumps({"check": {"sha": _NO_OBJECT, "ref": "", "checks": [_CHECK]}}).decode()
    return NewTask(
        title=f"probe of {agent.id}",
        spec=spec,
        body_hash=hashlib.sha256(spec.encode()).hexdigest(),
        type=TaskType.CHECK,
        lane=Lane.URGENT,
        project=agent.projects[0] if agent.projects else "default",
        access=Access.READ_ONLY,
        needs_change=False,
        capabilities=(CHECKS,) if CHECKS in agent.capabilities else (),
        assign_to=agent.id,
        deadline=now + PATIENCE_US,
        max_tries=1,
        unique_key=_key(agent.id),
    )
