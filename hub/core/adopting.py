"""What people decide about work that was kept: adopt it, or drop it.

Both are decided on the committed record; what this process decided since it was read counts more. Everything is refused before
anything is changed, and the refusal names what can be done instead.
"""

from __future__ import annotations

from hub.core.cluster import Step
from hub.core.commands import AdoptSalvage, DropSalvage, Facts
from hub.core.decision import TaskAnswer
from hub.core.ending import stop
from hub.core.errors import Refused
from hub.core.rows import SalvageRow
from hub.core.salvage import adopt_now, body_of, decide, note
from hub.core.steering import answer_for, begin_again, found, not_now
from hub.core.task import Edge, Task
from hub.ids import TERMINAL, Outcome, SalvageState, TaskState, salvage_ref, task_ref

TOLD = "the next attempt is told of it anyway"


def adopt(step: Step, command: AdoptSalvage) -> TaskAnswer:
    """Take kept work as the task's result under a new fence; a running attempt is stopped first, if forced."""
    row = _record(step, command)
    if row.state == SalvageState.DROPPED:
        raise Refused(409, "dropped", f"what was kept of {_name(row)} was dropped by {row.decided_by}: {row.note}")
    task = found(step, command.n, command.facts)
    if row.state != SalvageState.OPEN:
        return answer_for(task, pending=row.state == SalvageState.APPLYING)
    if command.sha256 not in (None, row.sha256):
        raise Refused(409, "other_record", f"what was kept of {_name(row)} is another record by now", hint=_look(row))
    work = command.work
    if work is not None and not task.may_change:
        work = None
    if work is None:
        _check_output(task, row)
    _check_state(step, task, command)
    row = row._replace(
        branch=work.branch if work is not None else None,
        base_sha=work.base_sha if work is not None else row.base_sha,
        head_sha=work.head_sha if work is not None else None,
        decided_by=step.actor,
        decided_at=step.stamp.wall,
    )
    if task.terminal:
        begin_again(step, task, command.facts, "salvage")
    elif task.leased and stop(step, task, TaskState.QUEUED, "salvage"):
        task.adopting = decide(step, row, SalvageState.APPLYING)
        return answer_for(task, pending=True)
    adopt_now(step, task, row)
    return answer_for(task)


def drop(step: Step, command: DropSalvage) -> None:
    """Close a record without using it; what it names stays where it is."""
    row = _record(step, command)
    if row.state == SalvageState.DROPPED:
        return
    if row.state != SalvageState.OPEN:
        raise Refused(409, "applied", f"what was kept of {_name(row)} is {row.state} already", hint=_look(row))
    decide(step, row, SalvageState.DROPPED, note=command.reason)
    note(step, step.cluster.tasks.get(command.n), "salvage.dropped", command.n, command.lease_epoch, why=command.reason)


def _record(step: Step, command: AdoptSalvage | DropSalvage) -> SalvageRow:
    """The newest open record of the lease, else the newest."""
    rows = [SalvageRow(*(fact[name] for name in SalvageRow._fields)) for fact in command.facts.salvage]
    rows = [step.cluster.volatile.decided.get(row[:3], row) for row in rows]
    if not rows:
        name = salvage_ref(command.n, command.lease_epoch)
        raise Refused(404, "unknown_salvage", f"nothing is kept of {name}", hint="agentcom salvage list")
    return next((row for row in rows if row.state == SalvageState.OPEN), rows[0])


def _check_output(task: Task, row: SalvageRow) -> None:
    """Without commits it must be the whole success of a task that needs none."""
    name, passed = _name(row), (body_of(row).get("verification") or {}).get("passed")
    if task.needs_change:
        why = "carries no commits that can be taken, and its task needs a change"
    elif row.outcome != Outcome.SUCCEEDED or passed is False:
        why = f"is the record of a run that {row.outcome if row.outcome != Outcome.SUCCEEDED else 'failed its checks'}"
    else:
        return
    raise Refused(409, "nothing_to_apply", f"what was kept of {name} {why}; {TOLD}", hint=_look(row))


def _check_state(step: Step, task: Task, command: AdoptSalvage) -> None:
    if task.state is TaskState.IN_REVIEW:
        name = task_ref(task.n)
        raise Refused(
            409, "in_review", f"{name} has another change in review: decide on that first", hint="agentcom change list"
        )
    if task.leased and not command.force:
        raise Refused(409, "leased", f"{task_ref(task.n)} is held by {task.holder}", hint="--force stops it first")
    if task.stopping is not None and task.stopping is not TaskState.QUEUED:
        raise not_now(task, f"given a result: it is being stopped to become {task.stopping}", "agentcom task show")
    if any(_is_open(step, edge, command.facts) for edge in task.edges):
        raise not_now(task, "given a result: what it needs is not done", "agentcom task explain")


def _is_open(step: Step, edge: Edge, facts: Facts) -> bool:
    """Whether the task still waits for this one; a failed one is refused by what starts the task again."""
    needed = step.cluster.tasks.get(edge.needs)
    state = needed.state if needed is not None else facts.states.get(edge.needs)
    return not edge.satisfied and state not in TERMINAL


def _name(row: SalvageRow) -> str:
    return salvage_ref(row.task, row.lease_epoch)


def _look(row: SalvageRow) -> str:
    return f"agentcom salvage show {_name(row)}"
