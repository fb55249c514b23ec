"""The life of an assignment after the claim: accepted, declined, given back, blocked by a question, lost.

Every message names the fence (task, lease_epoch) and comes from the holder's newest session; anything else changes nothing.
"""

from __future__ import annotations

from hub.core import quarantine
from hub.core.agent import Agent
from hub.core.blame import HARMLESS_DECLINES, blame
from hub.core.cluster import Step
from hub.core.commands import Accept, Ask, ControlNoted, Decline, FromSession, GiveBack, Progress
from hub.core.decision import GrantLease, Okay, Revoke
from hub.core.dependencies import ended
from hub.core.ending import queue_again, stopped
from hub.core.errors import Refused
from hub.core.retry import after_loss
from hub.core.rows import FeedbackRow, QuestionRow
from hub.core.task import Task
from hub.core.timers import Timer
from hub.ids import SECOND, AgentState, LeaseEpoch, Outcome, TaskId, TaskState

DECLINE_BASE_US = SECOND
DECLINE_CAP_US = 60 * SECOND
FREE_REFUSALS = 3
"""Offers of a task that may be refused in a row before it rests between offers."""


def session_of(step: Step, command: FromSession) -> Agent:
    """The agent whose newest session speaks; refused 409 ``stale_session`` for any other. Hearing it proves that it is alive."""
    agent = step.cluster.agents.get(command.agent)
    if agent is None or agent.epoch != command.session_epoch or not agent.connected:
        raise Refused(409, "stale_session", "this session is over")
    agent.last_seen_mono, agent.last_seen_at, agent.silent = step.stamp.mono, step.stamp.wall, False
    if agent.state is AgentState.IDLE and agent.id not in step.cluster.volatile.idle.listed:
        step.freed.append(agent)
    return agent


def held_by(step: Step, agent: Agent, n: TaskId, lease_epoch: LeaseEpoch) -> Task | None:
    """The task if this agent holds exactly this lease of it."""
    task = step.cluster.tasks.get(n)
    if task is None or task.holder != agent.id or task.lease_epoch != lease_epoch or not task.leased:
        return None
    return task


def accept(step: Step, command: Accept) -> None:
    """assigned → working: the lease begins; said twice it is granted twice, said too late it is revoked."""
    agent = session_of(step, command)
    task = held_by(step, agent, command.n, command.lease_epoch)
    if task is None:
        step.tell(agent, Revoke(n=command.n, lease_epoch=command.lease_epoch, code="not_yours"))
    elif task.state is TaskState.ASSIGNED:
        grant(step, task, agent, command.re)
    else:
        renew(step, task)  # the sidecar counts its lease from the sending that this answers
        step.tell(agent, GrantLease(n=task.n, lease_epoch=task.lease_epoch, re=command.re))


def grant(step: Step, task: Task, agent: Agent, re: int | None = None) -> None:
    """Start the lease of an accepted assignment; ``re`` is the accept, if it was not the hello."""
    begin(step, task, agent)
    step.tell(agent, GrantLease(n=task.n, lease_epoch=task.lease_epoch, re=re))


def begin(step: Step, task: Task, agent: Agent) -> None:
    """assigned → working with everything that follows from it."""
    assert task.attempt is not None
    task.claims += 1
    task.refusals = 0
    task.attempt = task.attempt._replace(accepted_at=step.stamp.wall)
    step.decision.rows.append(task.attempt)
    step.cluster.volatile.timers.disarm(Timer.ACCEPT, task.n)
    renew(step, task)
    step.move(task, TaskState.WORKING, "task.accepted")
    step.move_agent(agent, AgentState.WORKING, f"accepted t-{task.n}")
    quarantine.offer_taken(step, agent)


def renew(step: Step, task: Task) -> None:
    """Extend the lease as of now; in memory only, a restart gives every lease its full term again."""
    task.lease_until = step.stamp.mono + step.cluster.terms.hold_us
    step.arm(Timer.LEASE, task.n, task.lease_until)


def decline(step: Step, command: Decline) -> None:
    """Back to the queue with the try refunded; the agent waits, and is quarantined after three reasons against it in a row."""
    agent = session_of(step, command)
    if command.re is not None:
        step.tell(agent, Okay(re=command.re))
    task = held_by(step, agent, command.n, command.lease_epoch)
    if task is None or task.state is not TaskState.ASSIGNED:
        return
    delay = max(command.retry_after_ms * 1000, min(DECLINE_CAP_US, DECLINE_BASE_US << min(agent.decline_step, 6)))
    agent.decline_step += 1
    agent.declined_until_mono = step.stamp.mono + delay
    step.arm(Timer.DECLINE, agent.id, agent.declined_until_mono)
    if command.code not in HARMLESS_DECLINES:
        quarantine.refuse_offer(step, agent, task, command.code)
    rest(step, task)
    back_to_queue(step, task, "declined", command.code, refund=True)


def rest(step: Step, task: Task) -> None:
    """An offer was not taken: beyond a few in a row the task is offered to nobody for a while, or a fleet that declines it would be
    asked for ever, one after the other. A task pinned to one agent waits for that agent anyway.
    """
    task.refusals += 1
    if task.refusals > FREE_REFUSALS:
        wait_us = min(DECLINE_CAP_US, DECLINE_BASE_US << min(task.refusals - FREE_REFUSALS - 1, 6))
        task.rests_until = step.stamp.mono + wait_us
        step.arm(Timer.REST, task.n, task.rests_until)


def back_to_queue(step: Step, task: Task, outcome: str, cause: str, *, refund: bool) -> None:
    """End the attempt without a result and queue the task again; dead when its claims are used up."""
    holder = task.holder
    if task.stopping is not None:
        stopped(step, task, outcome)
        return
    step.end_attempt(task, outcome, cause)
    task.parked = False
    if refund:
        task.tries = max(0, task.tries - 1)
    queue_again(step, task, "task.queued", cause, agent=holder)


def lose(step: Step, task: Task, cause: str) -> None:
    """The lease ended without a word: queued with the try refunded, dead at the third loss; a late success is still welcome."""
    if task.stopping is not None:
        stopped(step, task, "lost")
        return
    tell_the_next(step, task, cause)
    holder = task.holder
    assert holder is not None
    said = blame(Outcome.LOST, cause, error_class=None, took_us=None, instant_us=0)
    nxt = quarantine.weigh(step, task, step.cluster.agents[holder], said, after_loss(task.lost, cause))
    task.lost += nxt.lost
    if nxt.to is TaskState.QUEUED:
        back_to_queue(step, task, "lost", cause, refund=True)
        return
    step.end_attempt(task, "lost", cause)
    step.move(task, TaskState.DEAD, "task.dead", cause=cause, agent=holder)
    ended(step, task)


def tell_the_next(step: Step, task: Task, cause: str) -> None:
    """The attempt after a lost one hears how far that came, if its sidecar ever said."""
    said = task.checkpoint or (task.progress[2] if task.progress is not None else "")
    text = f"attempt {task.lease_epoch} was lost ({cause})" + (f"; it last said: {said}" if said else "")
    step.decision.rows.append(FeedbackRow(task.n, task.lease_epoch, step.stamp.wall, "lost", text, None, None))


def give_back(step: Step, command: GiveBack) -> None:
    """Unstarted work returns to the queue; a parked question keeps the task blocked without a lease (protocol §7)."""
    agent = session_of(step, command)
    task = held_by(step, agent, command.n, command.lease_epoch)
    if task is not None and command.conversation_id is not None:
        task.conversation_id = command.conversation_id
    if task is None:
        pass
    elif command.reason != "parked" or task.stopping is not None:
        back_to_queue(step, task, "given_back", command.reason, refund=True)
    elif task.state is TaskState.BLOCKED:
        task.agent_hint, task.parked = agent.id, True
        task.tries = max(0, task.tries - 1)
        step.end_attempt(task, "parked", "parked")
        step.note(task, "task.parked", agent=agent.id)
    else:
        # the answer crossed the parking: nothing is open any more, so the task is ready at once
        task.agent_hint = agent.id
        back_to_queue(step, task, "parked", "answered", refund=True)
    if command.re is not None:
        step.tell(agent, Okay(re=command.re))


def ask(step: Step, command: Ask) -> None:
    """working → blocked with an open question; said twice it is the same question."""
    agent = session_of(step, command)
    task = held_by(step, agent, command.n, command.lease_epoch)
    if task is not None and task.state is TaskState.WORKING and command.qid not in task.answered:
        task.question = QuestionRow(
            task.n, task.lease_epoch, command.qid, command.text, command.options, step.stamp.wall, None, None, None
        )
        step.decision.rows.append(task.question)
        step.move(task, TaskState.BLOCKED, "task.blocked", cause="question", qid=command.qid)
        step.move_agent(agent, AgentState.BLOCKED, "question")
    if command.re is not None:
        step.tell(agent, Okay(re=command.re))
    if task is None:  # its agent would wait for an answer that nobody gives any more
        step.tell(agent, Revoke(n=command.n, lease_epoch=command.lease_epoch, code="not_yours"))


def control_noted(step: Step, command: ControlNoted) -> None:
    """The sidecar journalled a control: it need not be sent again."""
    agent = session_of(step, command)
    row = step.cluster.controls.get(command.cid)
    if row is not None and row.agent == agent.id:
        step.note_control(command.cid)


def progress(step: Step, command: Progress) -> None:
    """Remember the latest progress; droppable and never written."""
    agent = session_of(step, command)
    task = held_by(step, agent, command.n, command.lease_epoch)
    if task is not None and (task.progress is None or task.progress[0] < command.seq):
        task.progress = (command.seq, command.percent, command.note)
