"""Keeping work from an agent that spoils it: strikes, quarantine, trial, acquittal (protocol §4.3, §4.6).

An agent whose program cannot start would take every task of the queue and fail it at once. What such an agent costs its tasks is
given back when it is convicted, so neither tries nor losses are spent on it; :data:`hub.core.task.MAX_CLAIMS` bounds that. After a
quarantine the agent is on trial: the first reason against it is enough, and the first sound run ends the row.
"""

from __future__ import annotations

from hub.core import dispatch
from hub.core.agent import Agent
from hub.core.blame import FOREVER, MAX_REMEMBERED, Blame, Strike, add, is_enough, until
from hub.core.cluster import Step
from hub.core.retry import Next, backoff_us
from hub.core.task import MAX_CLAIMS, Task
from hub.core.timers import Timer
from hub.ids import StrikeOf, TaskState, task_ref


def refuse_offer(step: Step, agent: Agent, task: Task, cause: str) -> None:
    """An offer was not taken, for a reason that speaks against the agent."""
    _strike(step, agent, _about(step, task, StrikeOf.OFFER, cause, sure=True))


def offer_taken(step: Step, agent: Agent) -> None:
    """The row of refused offers ends; what its runs came to still counts."""
    kept = tuple(strike for strike in agent.strikes if strike.of is not StrikeOf.OFFER)
    if agent.decline_step or kept != agent.strikes:
        agent.strikes, agent.decline_step = kept, 0
        step.touch_agent(agent)


def weigh(step: Step, task: Task, agent: Agent, said: Blame, nxt: Next) -> Next:
    """What follows the end of a run, once it is clear whose fault it was: ``nxt``, or the same without cost for the task."""
    if said is Blame.NOBODY:
        return nxt
    if said is Blame.SOUND:
        clear(step, agent)
        task.suspects = ()
        return nxt
    if said is Blame.DOUBTFUL and _is_the_tasks(step, task, agent):
        return nxt
    convicted = _strike(step, agent, _about(step, task, StrikeOf.RUN, nxt.cause, sure=said is Blame.AGENT))
    if convicted or said is Blame.AGENT:
        return _forgiven(step, task, nxt)
    last = agent.strikes[-1]
    cost = last._replace(tries=last.tries + (not nxt.refund), lost=last.lost + nxt.lost)
    agent.strikes = (*agent.strikes[:-1], cost)
    return nxt


def clear(step: Step, agent: Agent) -> None:
    """Nothing speaks against this agent any more."""
    if agent.strikes or agent.quarantine_level or agent.quarantined_until is not None or agent.quarantined_at is not None:
        agent.strikes, agent.quarantine_level = (), 0
        agent.quarantined_at = agent.quarantined_until = agent.quarantine_cause = None
        step.touch_agent(agent)


def _is_the_tasks(step: Step, task: Task, agent: Agent) -> bool:
    """Whether a trusted agent failed at this task in the same way: then the task is at fault, and nobody else."""
    others = [known for name in task.suspects if name != agent.id and (known := step.cluster.agents.get(name)) is not None]
    trusted = [other for other in others if not other.quarantine_level]
    task.suspects = (*(name for name in task.suspects if name != agent.id), agent.id)[-MAX_REMEMBERED:]
    for known in (agent, *trusted) if trusted else ():
        kept = tuple(old for old in known.strikes if old.sure or (old.task, old.generation) != (task.n, task.generation))
        if kept != known.strikes:
            known.strikes = kept
            step.touch_agent(known)
    return bool(trusted)


def _about(step: Step, task: Task, of: StrikeOf, cause: str, *, sure: bool) -> Strike:
    return Strike(of, task.n, task.generation, task.lease_epoch, cause, step.stamp.wall, sure)


def _strike(step: Step, agent: Agent, strike: Strike) -> bool:
    """Count one reason against an agent; whether it is quarantined for it."""
    agent.strikes = add(agent.strikes, strike)
    step.touch_agent(agent)
    if not is_enough(agent.strikes, strike.of, agent.quarantine_level, step.cluster.terms.strikes):
        return False
    failed = list(dict.fromkeys(task_ref(known.task) for known in agent.strikes if known.of is strike.of))
    _give_back(step, agent)
    level, ends_at = agent.quarantine_level + 1, until(agent.quarantine_level, step.stamp.wall)
    agent.quarantine_level, agent.quarantined_until = level, ends_at
    agent.quarantined_at, agent.quarantine_cause = step.stamp.wall, strike.cause
    if ends_at != FOREVER:
        step.arm(Timer.QUARANTINE, agent.id, ends_at)
    step.cluster.volatile.idle.remove(agent.id)
    dispatch.reconsider(step)
    ends = None if ends_at == FOREVER else ends_at
    step.presence(agent, "agent.quarantined", cause=strike.cause, of=strike.of, level=level, until=ends, tasks=failed)
    return True


def _give_back(step: Step, agent: Agent) -> None:
    """What the agent cost tasks that still live; those that died of it stay dead and are named in the event."""
    for strike in agent.strikes:
        task = step.cluster.tasks.get(strike.task)
        if (strike.tries or strike.lost) and task is not None and not task.terminal and task.generation == strike.generation:
            task.tries = max(0, task.tries - strike.tries)
            task.lost = max(0, task.lost - strike.lost)
            step.touch(task)
    agent.strikes = tuple(strike._replace(tries=0, lost=0) for strike in agent.strikes)


def _forgiven(step: Step, task: Task, nxt: Next) -> Next:
    """Another agent is to try, at no cost for the task."""
    if task.claims >= MAX_CLAIMS:
        return Next(TaskState.DEAD, "too_many_claims")
    if nxt.lost:
        return Next(TaskState.QUEUED, nxt.cause, refund=True)
    delay = nxt.delay_us or backoff_us(task.tries, step.stamp.jitter)
    return Next(TaskState.SCHEDULED, nxt.cause, refund=True, delay_us=delay, avoid=True)
