"""What a restored hub has forgotten: leases that were granted after its backup was made. Pure.

Every number up to ``Cluster.fence_base`` may have been a lease of the hub whose store was lost; what is granted now is above it. So a
lease that is newer than the task's row, and not above the base, was granted after the backup: whoever holds it may go on, and its
result is worth as much as that of a lease that was lost, as long as nobody was given the task since (its fence would be above the base).
"""

from __future__ import annotations

from hub.core.agent import Agent
from hub.core.assignments import back_to_queue
from hub.core.cluster import Step
from hub.core.matching import class_of
from hub.core.rows import AttemptRow
from hub.core.task import Task
from hub.ids import LEASED, LeaseEpoch, TaskId, TaskState

CAUSE = "restored"
"""Why something happened that only a restore explains."""


def forgotten(step: Step, agent: Agent, n: TaskId, lease_epoch: int) -> Task | None:
    """The task of a lease that this agent may have been granted after the backup; None if it is over or was given away anew."""
    task = step.cluster.tasks.get(n)
    if task is None or not task.lease_epoch < lease_epoch <= step.cluster.fence_base or task.stopping is not None:
        return None
    if task.state not in LEASED and task.state not in (TaskState.QUEUED, TaskState.SCHEDULED):
        return None
    return task if class_of(agent).serves(step.cluster.ready.needs[task.requirement]) else None


def let_go(step: Step, task: Task, agent: Agent, lease_epoch: int) -> AttemptRow:
    """Put the task where it was when that lease was granted: in the queue, under its fence. The attempt of it, which is not kept yet."""
    if task.leased:
        back_to_queue(step, task, "lost", CAUSE, refund=True)
    elif task.state is not TaskState.QUEUED:
        task.parked = False
        step.withdraw_question(task)
        step.move(task, TaskState.QUEUED, "task.queued", cause=CAUSE)
    task.lease_epoch = LeaseEpoch(lease_epoch)
    step.touch(task)
    return AttemptRow(task.n, lease_epoch, agent.id, agent.install_id, agent.epoch, step.stamp.wall, *(None,) * 8)


def take_back(step: Step, task: Task, agent: Agent, lease_epoch: int) -> bool:
    """Give an agent back the lease it still holds, as if it had just been offered; False if it holds another one here."""
    other = step.cluster.tasks.get(agent.task) if agent.task is not None else None
    if other is not None and other is not task:
        return False
    attempt = let_go(step, task, agent, lease_epoch)
    if task.state is not TaskState.QUEUED:
        return False  # its claims were used up
    task.tries += 1
    task.holder, task.holder_epoch, task.attempt = agent.id, agent.epoch, attempt
    step.decision.rows.append(attempt)
    agent.task = task.n
    step.move(task, TaskState.ASSIGNED, "task.assigned", cause=CAUSE)
    return True
