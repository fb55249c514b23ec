"""A result arrives: exactly once, or it is salvaged; never lost, never applied twice (protocol §5).

The order of the questions is the rule: did a result end this attempt already? does the sender hold this fence? is it merely late?
Everything else becomes a salvage record that people and the next attempt can see.
"""

from __future__ import annotations

from dataclasses import replace

from hub.core import quarantine
from hub.core.agent import Agent
from hub.core.assignments import begin, held_by, session_of
from hub.core.blame import Blame, blame
from hub.core.cluster import Step
from hub.core.commands import Report
from hub.core.decision import AckResult
from hub.core.dependencies import ended
from hub.core.ending import stopped
from hub.core.restored import forgotten, let_go
from hub.core.retry import Ended, Next, after
from hub.core.rows import AttemptRow, FeedbackRow, ResultRow
from hub.core.salvage import keep
from hub.core.task import Task
from hub.core.timers import Timer
from hub.ids import Outcome, TaskState, Verdict

MALFORMED = "malformed_result"
"""Error code of a result whose body could not be read; the raw body is kept as salvage."""
LEFT_OVER = "left uncommitted beside what was committed"
FEEDBACK_CHARS = 16_000
"""Of a failed attempt's output, this much (its end) reaches the next attempt."""


def report(step: Step, command: Report) -> None:
    """Give a result its verdict and acknowledge it with the commit."""
    agent = session_of(step, command)
    task = step.cluster.tasks.get(command.n)
    if task is not None and command.has_change and not task.may_change:
        command = replace(command, has_change=False)  # commits nobody asked for lead to no change, whoever reports them
    verdict = _judge(step, agent, command)
    step.tell(agent, AckResult(n=command.n, lease_epoch=command.lease_epoch, verdict=verdict))


def _judge(step: Step, agent: Agent, command: Report) -> Verdict:
    task = step.cluster.tasks.get(command.n)
    known = _ended_with(task, command)
    if _owner(task, command) not in (None, agent.id):
        if task is not None:
            step.note(task, "result.foreign", agent=agent.id, claimed_epoch=command.lease_epoch)
        return Verdict.STALE
    if known is not None:
        if known != command.sha256 and task is not None:
            step.note(task, "result.conflict", agent=agent.id, first=known, second=command.sha256)
        return Verdict.DUPLICATE
    if task is not None and held_by(step, agent, command.n, command.lease_epoch) is task:
        return _apply(step, task, agent, command)
    if task is not None and _is_late(task, command):
        assert command.facts.attempt is not None
        return _apply_late(step, task, command, AttemptRow(*(command.facts.attempt[name] for name in AttemptRow._fields)))
    if (lost := forgotten(step, agent, command.n, command.lease_epoch)) is not None and _is_success(lost, command):
        attempt = let_go(step, lost, agent, command.lease_epoch)._replace(ended_at=step.stamp.wall)
        if lost.state is TaskState.QUEUED:
            return _apply_late(step, lost, command, attempt)
    return _salvage(step, task, command, _why(task, command))


def _ended_with(task: Task | None, command: Report) -> str | None:
    """The digest of the result that ended this attempt, from memory or from the committed attempt row."""
    if task is not None and task.leased and task.lease_epoch == command.lease_epoch:
        return None
    if task is not None and command.lease_epoch in task.ended:
        return task.ended[command.lease_epoch]
    fact = command.facts.attempt
    if fact is None:  # nobody remembers the attempt, but what was kept of it is known
        return next((row["sha256"] for row in command.facts.salvage if row["sha256"] == command.sha256), None)
    sha256: str | None = fact["sha256"]
    return sha256


def _owner(task: Task | None, command: Report) -> str | None:
    """Which agent this attempt was given to, if that is known."""
    if task is not None and task.attempt is not None and task.attempt.lease_epoch == command.lease_epoch:
        return task.attempt.agent
    return command.facts.attempt["agent"] if command.facts.attempt is not None else None


def _is_late(task: Task, command: Report) -> bool:
    """A success for a task that was given up but not given away again."""
    fact = command.facts.attempt
    return (
        task.state is TaskState.QUEUED
        and task.lease_epoch == command.lease_epoch
        and _is_success(task, command)
        and fact is not None
        and fact["outcome"] == "lost"
    )


def _is_success(task: Task, command: Report) -> bool:
    return (
        command.outcome is Outcome.SUCCEEDED and command.passed is not False and (command.has_change or not task.needs_change)
    )


def _apply(step: Step, task: Task, agent: Agent, command: Report) -> Verdict:
    if task.state is TaskState.ASSIGNED:
        begin(step, task, agent)  # the result proves the acceptance whose frame is still on its way
    task.ended[command.lease_epoch] = command.sha256
    if command.conversation_id is not None:
        task.conversation_id = command.conversation_id
    success = command.outcome is Outcome.SUCCEEDED
    verdict = Verdict.APPLIED
    if task.stopping is not None:
        if success:
            verdict = _salvage(step, task, command, f"arrived while stopping for {task.stopping}")
        elif _has_work(command):
            keep(step, task, command, f"stopped for {task.stopping}")
        stopped(step, task, command.outcome, sha256=command.sha256, verdict=verdict, error=command.error, usage=command.usage)
        return verdict
    ran = Ended(
        command.outcome,
        has_change=command.has_change,
        needs_change=task.needs_change,
        verified=command.passed,
        error_class=command.error_class,
        error_code=command.error_code,
        retry_after_us=None if command.retry_after_ms is None else command.retry_after_ms * 1000,
    )
    nxt = after(ran, tries=task.tries, max_tries=task.max_tries, lost=task.lost, claims=task.claims, jitter=step.stamp.jitter)
    nxt = quarantine.weigh(step, task, agent, _blame(step, task, command), nxt)
    failed = nxt.to not in (TaskState.DONE, TaskState.IN_REVIEW)
    if failed and _has_work(command):
        keep(step, task, command, f"its attempt ended: {nxt.cause}")
    elif command.salvage_ref is not None:
        keep(step, task, command, LEFT_OVER, applied=True)
    _record(step, task, command, failed=failed, cause=nxt.cause)
    step.end_attempt(
        task, command.outcome, nxt.cause, sha256=command.sha256, verdict=verdict, error=command.error, usage=command.usage
    )
    _advance(step, task, nxt, agent)
    return verdict


def _blame(step: Step, task: Task, command: Report) -> Blame:
    """Whose fault it was; an agent that used tokens has worked, however short."""
    accepted_at = task.attempt.accepted_at if task.attempt is not None else None
    return blame(
        command.outcome,
        command.error_code,
        error_class=command.error_class,
        took_us=None if accepted_at is None or command.usage is not None else step.stamp.wall - accepted_at,
        instant_us=step.cluster.terms.instant_us,
    )


def _apply_late(step: Step, task: Task, command: Report, row: AttemptRow) -> Verdict:
    """Accept the work of an attempt that was given up: same fence, nobody else started."""
    task.ended[command.lease_epoch] = command.sha256
    step.decision.rows.append(
        row._replace(
            outcome=command.outcome,
            cause="late",
            sha256=command.sha256,
            verdict=Verdict.APPLIED,
            error=None,
            usage=command.usage,
        )
    )
    if command.salvage_ref is not None:
        keep(step, task, command, LEFT_OVER, applied=True)
    _record(step, task, command, failed=False, cause="late")
    to = TaskState.IN_REVIEW if command.has_change else TaskState.DONE
    step.move(task, to, f"task.{to}", cause="late", agent=row.agent)
    if task.terminal:
        ended(step, task)
    return Verdict.APPLIED


def _advance(step: Step, task: Task, nxt: Next, agent: Agent) -> None:
    """Move the task to what follows, spending or refunding its budgets."""
    if nxt.refund:
        task.tries = max(0, task.tries - 1)
    if nxt.lost:
        task.lost += 1
    # a retry should meet another agent, a rework the one whose workspace is warm
    task.avoid = agent.id if nxt.avoid else None
    task.agent_hint = agent.id if nxt.to is TaskState.IN_REVIEW else None
    if nxt.to is TaskState.SCHEDULED:
        task.not_before = step.stamp.wall + (nxt.delay_us or 0)
        step.arm(Timer.NOT_BEFORE, task.n, task.not_before)
    step.move(task, nxt.to, f"task.{'retry' if nxt.to is TaskState.SCHEDULED else nxt.to}", cause=nxt.cause, agent=agent.id)
    if task.terminal:
        ended(step, task)


def _record(step: Step, task: Task, command: Report, *, failed: bool, cause: str) -> None:
    """Keep the body, and for a failure the context that the next attempt is told."""
    step.decision.rows.append(
        ResultRow(
            task.n,
            command.lease_epoch,
            command.output,
            command.output_ref,
            command.branch,
            command.base_sha,
            command.head_sha,
            command.commits,
            command.verification,
        )
    )
    if failed:
        text = (
            f"attempt {command.lease_epoch} ended: {cause}\n{command.error_message}\n{command.output[-FEEDBACK_CHARS:]}".strip()
        )
        step.decision.rows.append(
            FeedbackRow(task.n, command.lease_epoch, step.stamp.wall, "failure", text, command.branch, None)
        )


def _salvage(step: Step, task: Task | None, command: Report, why: str) -> Verdict:
    """Keep what cannot be applied; a failure that changes nothing is merely stale."""
    if command.outcome is not Outcome.SUCCEEDED and not _has_work(command):
        return Verdict.STALE
    keep(step, task, command, why)
    fact = command.facts.attempt
    if fact is not None and fact["ended_at"] is not None:
        # the attempt remembers its digest, so that the same result said again is a duplicate; a fact from before the end of
        # the attempt was committed is too old to be written back
        row = AttemptRow(*(fact[name] for name in AttemptRow._fields))
        step.decision.rows.append(row._replace(sha256=command.sha256, verdict=Verdict.SALVAGED))
    if task is not None and command.lease_epoch <= task.lease_epoch:  # a fence nobody was given yet must stay unused
        task.ended[command.lease_epoch] = command.sha256
    return Verdict.SALVAGED


def _why(task: Task | None, command: Report) -> str:
    """Why it could not be applied, for whoever finds it later."""
    if task is None:
        return "it came too late: its task had ended" if command.facts.attempt is not None else "its task is not known here"
    if task.lease_epoch > command.lease_epoch:
        return f"it came too late: lease {task.lease_epoch} was the task's by then"
    if task.terminal:
        return f"it came too late: the task was {task.state}"
    return "nobody was given that lease" if command.facts.attempt is None else "it came too late: its lease had ended"


def _has_work(command: Report) -> bool:
    """Whether there is something in it that is worth keeping, however its run ended."""
    return command.has_change or command.salvage_ref is not None or command.error_code == MALFORMED
