"""Dependencies between tasks: satisfied once and for good by ``done``; when one fails, its policy decides.

Cascades are worked off iteratively, so a long chain of skipped tasks costs no recursion.
"""

from __future__ import annotations

from collections.abc import Mapping

from hub.core.cluster import Step
from hub.core.rows import DepRow
from hub.core.task import Edge, Task
from hub.core.timers import Timer
from hub.ids import TERMINAL, TaskState, task_ref


def settle_edges(step: Step, task: Task, facts: Mapping[int, TaskState]) -> None:
    """Look at what a new or requeued task depends on: finished tasks count at once. Memory overrides facts."""
    for edge in task.edges:
        needed = step.cluster.tasks.get(edge.needs)
        state = needed.state if needed is not None else facts.get(edge.needs)
        if state is not None and state in TERMINAL and not edge.satisfied:
            _settle(step, task, edge, state)
            if task.terminal:
                ended(step, task)
                return


def ended(step: Step, task: Task) -> None:
    """A task became terminal: release or end its dependants, and theirs."""
    work = [task]
    while work:
        needed = work.pop()
        for n in step.cluster.dependants.pop(needed.n, ()):
            dependant = step.cluster.tasks.get(n)
            if dependant is None or dependant.terminal:
                continue
            for edge in dependant.edges:
                if edge.needs == needed.n and not edge.satisfied:
                    _settle(step, dependant, edge, needed.state)
            if dependant.state in TERMINAL:
                work.append(dependant)
            elif dependant.state is TaskState.WAITING and not dependant.open_deps and not dependant.held:
                start(step, dependant)


def start(step: Step, task: Task, *, hold: bool = False) -> None:
    """Bring a waiting task as far as it can go: held or depending tasks wait, future ones are scheduled, the rest are queued."""
    task.held = hold
    if hold or task.open_deps:
        task.cause = "held" if hold else "dependency"
        step.touch(task)
    elif task.not_before is not None and task.not_before > step.stamp.wall:
        step.move(task, TaskState.SCHEDULED, "task.scheduled", cause="not_before")
        step.arm(Timer.NOT_BEFORE, task.n, task.not_before)
    else:
        step.move(task, TaskState.QUEUED, "task.queued")


def _settle(step: Step, task: Task, edge: Edge, state: TaskState) -> None:
    if state is TaskState.DONE or edge.policy == "run":
        edge.satisfied = True
        step.cluster.leave(task, edge)
        step.decision.rows.append(DepRow(task.n, edge.needs, edge.policy, 1))
        step.decision.tasks.add(task.n)
        return
    why = f"{task_ref(edge.needs)} is {state}"
    if edge.policy == "fail":
        step.move(task, TaskState.DEAD, "task.dead", cause="dependency", why=why)
    else:
        step.move(task, TaskState.CANCELLED, "task.cancelled", cause="dependency", why=why)
