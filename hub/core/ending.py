"""How an attempt or a task ends: finished, queued again within its budgets, or stopped first because somebody asked for it.

Whatever ends a task goes through here, so the attempt is closed, the agent freed, the fence spent and the dependants told in one place.
"""

from __future__ import annotations

from hub.core.cluster import Step
from hub.core.decision import Revoke
from hub.core.dependencies import ended
from hub.core.salvage import adopt_now, release
from hub.core.task import MAX_CLAIMS, Task, raise_fence
from hub.ids import ControlKind, TaskState


def finish(step: Step, task: Task, to: TaskState, kind: str, cause: str, **data: object) -> None:
    """End a task for good: the attempt closes, the agent is free, dependants hear of it."""
    holder = task.holder
    if task.leased:
        if task.state is TaskState.ASSIGNED:
            _withdraw(step, task, to)
        step.end_attempt(task, to, cause)
    step.move(task, to, kind, cause=cause, agent=holder, **data)
    ended(step, task)


def queue_again(step: Step, task: Task, kind: str, cause: str, **data: object) -> None:
    """Back to the queue, or dead when the claims of this generation are used up: no refund can loop for ever (protocol §4.6)."""
    if task.claims >= MAX_CLAIMS:
        step.move(task, TaskState.DEAD, "task.dead", cause="too_many_claims", **data)
        ended(step, task)
    else:
        step.move(task, TaskState.QUEUED, kind, cause=cause, **data)


def stopped(step: Step, task: Task, outcome: str, **changes: object) -> None:
    """The agent of a stopping task has ended (by result, give-back or expiry): do what was asked (semantics, Cancel)."""
    to, holder = task.stopping, task.holder
    task.stopping = None
    step.end_attempt(task, outcome, "stopped", **changes)
    task.parked = False
    if task.adopting is not None and to is TaskState.QUEUED:
        adopt_now(step, task, task.adopting)
        return
    if task.adopting is not None:  # it was to end otherwise after all
        release(step, task)
    if to is TaskState.QUEUED:
        task.tries = max(0, task.tries - 1)
        queue_again(step, task, "task.queued", "assign", agent=holder)
        return
    if to is TaskState.DONE:
        raise_fence(task, step.cluster.fence_base)
    kinds = {TaskState.DONE: "task.completed", TaskState.DEAD: "task.dead"}
    assert to is not None
    step.move(task, to, kinds.get(to, "task.cancelled"), cause=task.cause or "cancel", agent=holder)
    ended(step, task)


def stop(step: Step, task: Task, then: TaskState, cause: str, reason: str = "") -> bool:
    """Ask the holder to stop, and go on to ``then``; True if that has to wait until it has, for the lease stays until then."""
    if task.state is TaskState.ASSIGNED:
        holder = task.holder
        _withdraw(step, task, cause)
        step.end_attempt(task, "revoked", cause)
        task.tries = max(0, task.tries - 1)
        step.move(task, TaskState.QUEUED, "task.queued", cause=cause, agent=holder)
        if then is not TaskState.QUEUED:  # an offer is taken back before its task can end
            raise_fence(task, step.cluster.fence_base)
            finish(step, task, then, "task.completed" if then is TaskState.DONE else "task.dead", cause, reason=reason)
        return False
    if task.stopping is None:
        step.control(task, ControlKind.CANCEL, mode="soft", text=reason or cause)
    task.stopping, task.cause = then, cause
    step.note(task, "task.stopping", cause=cause, then=then, reason=reason)
    step.touch(task)
    return True


def stop_for_deadline(step: Step, task: Task) -> None:
    """A task's deadline passed while it is leased; what a person already asked of it stands."""
    if task.stopping in (None, TaskState.QUEUED):
        stop(step, task, TaskState.DEAD, "deadline")


def _withdraw(step: Step, task: Task, code: str) -> None:
    """Tell the holder of an unaccepted assignment that it is not its own any more."""
    if task.holder is not None:
        step.tell(step.cluster.agents[task.holder], Revoke(n=task.n, lease_epoch=task.lease_epoch, code=code))
