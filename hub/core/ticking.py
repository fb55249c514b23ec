"""What happens when a deadline passes.

Each handler checks its condition again, for deadlines move, and re-arms itself if it fired early.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hub.core import dispatch, quarantine
from hub.core.agent import Agent
from hub.core.assignments import back_to_queue, lose, rest
from hub.core.blame import FOREVER
from hub.core.cluster import Step
from hub.core.commands import Tick
from hub.core.dependencies import ended
from hub.core.ending import stop_for_deadline
from hub.core.sessions import gone
from hub.core.task import Task
from hub.core.timers import Timer
from hub.ids import AgentId, TaskState

MAX_FIRED = 512
"""Timers fired in one step; the rest stay due, so a burst never holds up what arrives meanwhile."""


def tick(step: Step, _: Tick) -> None:
    """Fire what is due."""
    for _n in range(MAX_FIRED):
        due = step.cluster.volatile.timers.pop_due(step.stamp)
        if due is None:
            return
        kind, key = due
        if kind is Timer.SETTLED:
            step.anybody = True
            continue
        if kind in ON_TASK and isinstance(key, int):
            task = step.cluster.tasks.get(key)
            if task is not None:
                ON_TASK[kind](step, task)
        else:
            agent = step.cluster.agents.get(AgentId(str(key)))
            if agent is not None:
                ON_AGENT[kind](step, agent)


def _accept(step: Step, task: Task) -> None:
    """Fires twice for an offer that nobody answers: to send it once more, and to take it back."""
    if task.state is not TaskState.ASSIGNED or task.holder is None:
        return
    agent = step.cluster.agents[task.holder]
    if task.accept_by > step.stamp.mono:
        if not task.resent:
            task.resent = True
            dispatch.push(step, task, agent)
        step.arm(Timer.ACCEPT, task.n, task.accept_by)
        return
    # it counts against an agent only if the agent was heard after the offer went out: a dead link is nobody's fault
    if agent.connected and agent.last_seen_mono > task.accept_by - step.cluster.terms.accept_us:
        quarantine.refuse_offer(step, agent, task, "accept_timeout")
    agent.silent = True
    rest(step, task)
    back_to_queue(step, task, "timeout", "accept_timeout", refund=True)


def _lease(step: Step, task: Task) -> None:
    if not task.leased or task.state is TaskState.ASSIGNED:
        return
    if task.lease_until > step.stamp.mono:
        step.arm(Timer.LEASE, task.n, task.lease_until)
        return
    lose(step, task, "lease_expired")


def _avoid(step: Step, task: Task) -> None:
    if task.avoid_until > step.stamp.mono:
        step.arm(Timer.AVOID, task.n, task.avoid_until)
        return
    step.cluster.volatile.avoiding.pop(task.n, None)
    if task.state is TaskState.QUEUED:
        step.queued.append(task)


def _rest(step: Step, task: Task) -> None:
    if task.rests_until > step.stamp.mono:
        step.arm(Timer.REST, task.n, task.rests_until)
    elif task.state is TaskState.QUEUED:
        step.queued.append(task)


def _tombstone(step: Step, task: Task) -> None:
    if task.terminal:
        step.cluster.forget(task)


def _not_before(step: Step, task: Task) -> None:
    if task.state is not TaskState.SCHEDULED or task.not_before is None:
        return
    if task.not_before > step.stamp.wall:
        step.arm(Timer.NOT_BEFORE, task.n, task.not_before)
        return
    if task.avoid is not None:
        task.avoid_until = step.stamp.mono + step.cluster.terms.avoid_us
        step.cluster.volatile.avoiding[task.n] = None
        step.arm(Timer.AVOID, task.n, task.avoid_until)
    step.move(task, TaskState.QUEUED, "task.queued", cause="due")


def _deadline(step: Step, task: Task) -> None:
    if task.terminal or task.state is TaskState.IN_REVIEW or task.deadline is None:
        return
    if task.deadline > step.stamp.wall:
        step.arm(Timer.DEADLINE, task.n, task.deadline)
    elif task.leased:
        stop_for_deadline(step, task)
    else:
        step.move(task, TaskState.DEAD, "task.dead", cause="deadline")
        ended(step, task)


def _queue_ttl(step: Step, task: Task) -> None:
    if task.state is not TaskState.QUEUED or task.queue_ttl_us is None or task.queued_at is None:
        return
    if task.queued_at + task.queue_ttl_us > step.stamp.wall:
        step.arm(Timer.QUEUE_TTL, task.n, task.queued_at + task.queue_ttl_us)
        return
    step.move(task, TaskState.DEAD, "task.dead", cause="queue_ttl")
    ended(step, task)


def _offline(step: Step, agent: Agent) -> None:
    if agent.connected or agent.offline_at_mono is None:
        return
    if agent.offline_at_mono > step.stamp.mono:
        step.arm(Timer.OFFLINE, agent.id, agent.offline_at_mono)
        return
    gone(step, agent, "disconnected")


def _free_again(step: Step, agent: Agent) -> None:
    if agent.quarantined_until is not None and step.stamp.wall < agent.quarantined_until < FOREVER:
        step.arm(Timer.QUARANTINE, agent.id, agent.quarantined_until)
    if agent.declined_until_mono > step.stamp.mono:
        step.arm(Timer.DECLINE, agent.id, agent.declined_until_mono)
    if agent.quarantined_until is not None and agent.quarantined_until <= step.stamp.wall:
        agent.quarantined_until = None
        step.touch_agent(agent)
        step.presence(agent, "agent.quarantine_over")
    step.freed.append(agent)


ON_TASK: Mapping[Timer, Callable[[Step, Task], None]] = {
    Timer.ACCEPT: _accept,
    Timer.LEASE: _lease,
    Timer.AVOID: _avoid,
    Timer.REST: _rest,
    Timer.TOMBSTONE: _tombstone,
    Timer.NOT_BEFORE: _not_before,
    Timer.DEADLINE: _deadline,
    Timer.QUEUE_TTL: _queue_ttl,
}
ON_AGENT: Mapping[Timer, Callable[[Step, Agent], None]] = {
    Timer.OFFLINE: _offline,
    Timer.DECLINE: _free_again,
    Timer.QUARANTINE: _free_again,
}
