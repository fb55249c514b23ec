"""Agents that do not come back: what they hold goes to others, and their names are free again.

A lost agent is never declared dead by a timer alone before its lease is over; here somebody who knows says so: a person whose machine
burnt, or the machine itself, once it has stopped everything.
"""

from __future__ import annotations

from hub.core.agent import Agent
from hub.core.assignments import back_to_queue, tell_the_next
from hub.core.cluster import Step
from hub.core.commands import ReleaseAgent, RemoveAgent
from hub.core.errors import Refused
from hub.core.sessions import gone
from hub.ids import task_ref


def release(step: Step, command: ReleaseAgent) -> None:
    """Its machine runs nothing any more: its task is queued at once, at nobody's cost, and another installation may have its name.

    Refused 409 ``connected`` while it is: a living sidecar is asked to stop, not overruled. Idempotent.
    """
    agent = step.agent(command.agent)
    _refuse_connected(agent)
    if agent.task is not None:
        task = step.cluster.tasks[agent.task]
        tell_the_next(step, task, command.cause)
        step.presence(agent, "agent.released", why=command.cause)
        back_to_queue(step, task, "lost", command.cause, refund=True)
    gone(step, agent, command.cause)


def remove(step: Step, command: RemoveAgent) -> None:
    """It is no part of this hub any more; what it did stays on record. Only a token that was given out later brings it back.

    Refused 409 while it is connected, holds a task, or tasks are pinned to it. Idempotent.
    """
    agent = step.agent(command.agent)
    if agent.removed_at is not None:
        return
    _refuse_connected(agent)
    if agent.task is not None:
        hint = f"agentcom agent release {agent.id}"
        raise Refused(409, "leased", f"agent {agent.id} holds {task_ref(agent.task)} until its lease ends", hint=hint)
    if pinned := step.cluster.ready.pinned_to(agent.id):
        hint = "agentcom task assign TASK --auto"
        raise Refused(409, "pinned", f"agent {agent.id} alone is waited for by {pinned} of the ready tasks", hint=hint)
    gone(step, agent, "removed")
    agent.removed_at = step.stamp.wall
    step.touch_agent(agent)
    step.presence(agent, "agent.removed")


def _refuse_connected(agent: Agent) -> None:
    if agent.connected:
        raise Refused(
            409,
            "connected",
            f"agent {agent.id} is connected, so its machine is alive",
            hint="stop its sidecar (agentcom leave --now, there), or revoke its token (agentcom token list)",
        )
