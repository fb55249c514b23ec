"""What the gatekeeper may do to a task in review: intend or abandon the merge, call it merged, send it back, bury it.

Every command is idempotent by the fence, so the gatekeeper may repeat it after any crash.
"""

from __future__ import annotations

from hub.core.cluster import Step
from hub.core.commands import AbandonMerge, Bury, IntendMerge, Merged, OnTask, Rework
from hub.core.decision import TaskAnswer
from hub.core.dependencies import ended
from hub.core.ending import queue_again
from hub.core.errors import Refused
from hub.core.rows import FeedbackRow
from hub.core.steering import answer_for
from hub.core.task import MAX_REWORK, Task, raise_fence
from hub.ids import LeaseEpoch, TaskState, task_ref


def _in_review(step: Step, command: OnTask, lease_epoch: LeaseEpoch) -> Task:
    task = step.task(command.n)
    if task.state is not TaskState.IN_REVIEW or task.lease_epoch != lease_epoch:
        now = f"{task.state} at epoch {task.lease_epoch}"
        raise Refused(409, "not_in_review", f"{task_ref(task.n)} is {now}, not in review at epoch {lease_epoch}")
    return task


def intend_merge(step: Step, command: IntendMerge) -> TaskAnswer:
    """From here cancelling is refused."""
    task = _in_review(step, command, command.lease_epoch)
    if not task.merging:
        task.merging = True
        step.note(task, "task.merging")
        step.touch(task)
    return answer_for(task)


def abandon_merge(step: Step, command: AbandonMerge) -> TaskAnswer:
    """The intended merge did not happen."""
    task = _in_review(step, command, command.lease_epoch)
    if task.merging:
        task.merging = False
        step.note(task, "task.merge_abandoned")
        step.touch(task)
    return answer_for(task)


def merged(step: Step, command: Merged) -> TaskAnswer:
    """in_review → done, with the proof."""
    task = step.task(command.n)
    if task.state is TaskState.DONE and task.lease_epoch == command.lease_epoch:
        return answer_for(task)
    task = _in_review(step, command, command.lease_epoch)
    step.move(task, TaskState.DONE, "task.merged", cause="merged", sha=command.sha)
    ended(step, task)
    return answer_for(task)


def rework(step: Step, command: Rework) -> TaskAnswer:
    """in_review → queued: a new fence, the try refunded, the same agent preferred."""
    task = _in_review(step, command, command.lease_epoch)
    if task.rework >= MAX_REWORK:
        raise Refused(409, "rework_limit", f"{task_ref(task.n)} was reworked {task.rework} times; a person decides now")
    step.decision.rows.append(
        FeedbackRow(task.n, task.lease_epoch, step.stamp.wall, "rework", command.feedback, command.branch, command.head_sha)
    )
    task.rework += 1
    task.tries = max(0, task.tries - 1)
    task.merging = False
    raise_fence(task, step.cluster.fence_base)
    queue_again(step, task, "task.rework", "rework", round=task.rework)
    return answer_for(task)


def bury(step: Step, command: Bury) -> TaskAnswer:
    """in_review → dead."""
    task = step.task(command.n)
    if task.state is TaskState.DEAD and task.lease_epoch == command.lease_epoch:
        return answer_for(task)
    task = _in_review(step, command, command.lease_epoch)
    step.move(task, TaskState.DEAD, "task.dead", cause=command.cause)
    ended(step, task)
    return answer_for(task)
