"""Submitting: a batch is validated as a whole, then becomes rows, edges and ready tasks in one decision.

Idempotency, unique keys, dependencies on finished tasks, holds and schedules are all decided here; a batch with any fault changes
nothing and reports every fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from hub.core.cluster import Step
from hub.core.commands import NewTask, Submit
from hub.core.decision import Submitted, SubmittedTask
from hub.core.dependencies import settle_edges, start
from hub.core.errors import Fault, Refused
from hub.core.graph import check_refs
from hub.core.matching import Requirement
from hub.core.ready import MAX_REQUIREMENTS
from hub.core.rows import DepRow, RequirementRow, TaskNew
from hub.core.task import Edge, Task
from hub.core.timers import Timer
from hub.ids import NO_CHANGE_NEEDED, SECOND, Access, TaskId, TaskState, TaskType, task_ref

MAX_BATCH = 1000
"""Tasks in one submit."""
FAR_US = 10 * 366 * 86_400 * SECOND
"""No moment further ahead than about ten years: it would be a mistake of units."""


def submit(step: Step, command: Submit) -> Submitted:
    """Apply a batch; raises Refused with every fault, or 409 if all there is are keys that were used or are taken."""
    if not 1 <= len(command.tasks) <= MAX_BATCH:
        raise Refused(422, "invalid_batch", f"a batch holds 1 to {MAX_BATCH} tasks")
    refs, repeats = _judge(step, command)
    fresh = [new for new, repeat in zip(command.tasks, repeats, strict=True) if repeat is None]
    _check_room(step, fresh)
    numbers = _number(step, repeats)
    answers: list[SubmittedTask] = []
    created: list[Task] = []
    for new, n, repeat in zip(command.tasks, numbers, repeats, strict=True):
        if repeat is None:
            created.append(_create(step, command, new, n, refs, numbers))
    # edges settle after the whole batch exists: a dependency may point forwards, and one task's end may end or start another
    for task in created:
        if task.state is TaskState.WAITING:
            settle_edges(step, task, command.facts.states)
    for task in created:
        if task.state is TaskState.WAITING:
            start(step, task, hold=task.held)
    for n, repeat in zip(numbers, repeats, strict=True):
        known = step.cluster.tasks.get(n)
        state = known.state if known is not None else command.facts.states.get(n, TaskState.DONE)
        answers.append(SubmittedTask(n=n, state=state, created=repeat is None))
    return Submitted(tasks=tuple(answers))


def _judge(step: Step, command: Submit) -> tuple[dict[str, int], list[int | None]]:
    """The batch's refs and, for each task, the one it repeats; refused with everything that is wrong with it."""
    refs, faults = check_refs(command.tasks)
    repeats = [_repeat_of(step, command, new) for new in command.tasks]
    for i, (new, repeat) in enumerate(zip(command.tasks, repeats, strict=True)):
        if repeat is None:  # what was accepted once stays accepted, whatever has changed since
            faults.extend(_faults(step, command, i, new))
    taken = list(_taken(step, command, repeats))
    if faults:
        raise Refused(
            422, "invalid_task", "the batch was refused; nothing was submitted", faults=(*faults, *(key.fault for key in taken))
        )
    if taken:
        first = taken[0]
        rest = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        hint = f"agentcom task show {task_ref(first.by)}" if first.by is not None else ""
        raise Refused(409, first.fault.type, first.fault.msg + rest, faults=tuple(key.fault for key in taken), hint=hint)
    return refs, repeats


def _faults(step: Step, command: Submit, i: int, new: NewTask) -> list[Fault]:
    cluster, at = step.cluster, f"tasks.{i}"
    faults: list[Fault] = []
    if new.project not in cluster.projects:
        known = ", ".join(sorted(cluster.projects)[:8]) or "none"
        faults.append(Fault(f"{at}.project", "unknown_project", f"there is no project {new.project!r} (known: {known})"))
    if new.repo is not None and new.repo not in cluster.repos:
        known = ", ".join(sorted(cluster.repos)[:8]) or "none"
        faults.append(Fault(f"{at}.repo", "unknown_repo", f"there is no repository {new.repo!r} (known: {known})"))
    if new.deadline is not None and new.deadline <= step.stamp.wall:
        faults.append(Fault(f"{at}.deadline", "past", "the deadline is in the past"))
    for name, when in (("not_before", new.not_before), ("deadline", new.deadline)):
        if when is not None and when > step.stamp.wall + FAR_US:
            faults.append(Fault(f"{at}.{name}", "far", "the time is more than ten years ahead"))
    if new.needs_change and (new.repo is None or new.access is Access.READ_ONLY):
        faults.append(Fault(f"{at}.needs_change", "impossible", "a change needs a repository and write access"))
    for k, dep in enumerate(new.depends_on):
        if isinstance(dep.needs, int) and dep.needs not in cluster.tasks and dep.needs not in command.facts.states:
            faults.append(Fault(f"{at}.depends_on.{k}", "unknown_task", f"there is no task {task_ref(dep.needs)}"))
    if new.parent is not None and new.parent not in cluster.tasks and new.parent not in command.facts.states:
        faults.append(Fault(f"{at}.parent", "unknown_task", f"there is no task {task_ref(new.parent)}"))
    return faults


def _repeat_of(step: Step, command: Submit, new: NewTask) -> int | None:
    """The task an idempotent repeat stands for."""
    known = _known(step, command, new.idempotency_key)
    return known[0] if known is not None and known[1] == new.body_hash else None


def _known(step: Step, command: Submit, key: str | None) -> tuple[int, str] | None:
    """The task an idempotency key was used for, and the print of its body; memory overrides the committed facts."""
    if key is None:
        return None
    n = step.cluster.idempotent.get((command.actor, key))
    if n is None:
        return command.facts.idempotent.get(key)
    idem = step.cluster.tasks[n].idem
    return n, idem[2] if idem else ""


def _check_room(step: Step, fresh: list[NewTask]) -> None:
    cluster = step.cluster
    if all(new.type is TaskType.CHECK for new in fresh):
        return  # a check ends by making room: what it belongs to holds a merge up until it has run
    if cluster.live + len(fresh) > cluster.terms.max_live:
        raise Refused(
            429, "queue_full", f"{cluster.live} tasks are live; the limit is {cluster.terms.max_live}", retry_after_s=30
        )
    wanted = {cluster.ready.ids.get(_need(new), _need(new)) for new in fresh} - cluster.ready.live.keys()
    if len(cluster.ready.live) + len(wanted) > MAX_REQUIREMENTS:
        raise Refused(
            429,
            "too_many_requirement_sets",
            f"live tasks already use {len(cluster.ready.live)} combinations of project, repository and capabilities",
            retry_after_s=60,
        )


@dataclass(frozen=True, slots=True)
class _Taken:
    """A key that a new task cannot have, and the task that has it (None: another item of the batch)."""

    fault: Fault
    by: int | None


def _taken(step: Step, command: Submit, repeats: list[int | None]) -> Iterator[_Taken]:
    """Every key of the new tasks that was used for another body, is held by a live task, or is there twice."""
    seen: set[tuple[str, str]] = set()
    for i, (new, repeat) in enumerate(zip(command.tasks, repeats, strict=True)):
        if repeat is not None:
            continue
        if (key := new.idempotency_key) is not None:
            known = _known(step, command, key)
            words = f"was used for {task_ref(known[0])} with another body" if known else "is twice in this batch"
            if known is not None or ("idempotency", key) in seen:
                fault = Fault(f"tasks.{i}.idempotency_key", "idempotency_conflict", f"idempotency key {key!r} {words}")
                yield _Taken(fault, known[0] if known else None)
            seen.add(("idempotency", key))
        if (key := new.unique_key) is not None:
            by = step.cluster.unique.get(key)
            words = f"is held by {task_ref(by) if by is not None else 'another item of this batch'}"
            if by is not None or ("unique", key) in seen:
                yield _Taken(Fault(f"tasks.{i}.unique_key", "unique_key_taken", f"unique key {key!r} {words}"), by)
            seen.add(("unique", key))


def _number(step: Step, repeats: list[int | None]) -> list[TaskId]:
    numbers = []
    for repeat in repeats:
        if repeat is None:
            numbers.append(TaskId(step.cluster.next_n))
            step.cluster.next_n += 1
        else:
            numbers.append(TaskId(repeat))
    return numbers


def _need(new: NewTask) -> Requirement:
    return Requirement(new.project, new.repo, frozenset(new.capabilities))


def intern(step: Step, need: Requirement) -> int:
    """The id of a requirement set, made known and durable if it is new."""
    cluster = step.cluster
    rid = cluster.ready.ids.get(need)
    if rid is not None:
        cluster.ready.needs.setdefault(rid, need)
    else:
        rid = cluster.next_requirement
        cluster.next_requirement += 1
        cluster.ready.add_requirement(rid, need)
        words = orjson.dumps(sorted(need.capabilities)).decode()
        step.decision.rows.append(RequirementRow(rid, need.project, need.repo, words))
    return rid


def _create(step: Step, command: Submit, new: NewTask, n: TaskId, refs: dict[str, int], numbers: list[TaskId]) -> Task:
    rid = intern(step, _need(new))
    needs_change = new.needs_change
    if needs_change is None:
        needs_change = new.repo is not None and new.access is Access.WRITE and new.type not in NO_CHANGE_NEEDED
    idem = (command.actor, new.idempotency_key, new.body_hash) if new.idempotency_key is not None else None
    task = Task(
        n,
        new.project,
        new.repo,
        new.type,
        new.lane,
        new.access,
        needs_change,
        rid,
        new.max_tries,
        step.stamp.wall,
        deadline=new.deadline,
        queue_ttl_us=new.queue_ttl_us,
        idem=idem,
        unique_key=new.unique_key,
        not_before=new.not_before,
        assign_to=new.assign_to,
        held=new.hold or (step.cluster.projects[new.project][1] == "manual" and new.type is not TaskType.CHECK),
    )
    needs = {numbers[refs[dep.needs]] if isinstance(dep.needs, str) else dep.needs: dep.policy for dep in new.depends_on}
    task.edges = tuple(Edge(TaskId(of), policy) for of, policy in needs.items())
    step.decision.rows.append(
        TaskNew(
            n,
            new.project,
            new.repo,
            new.base,
            new.title,
            new.type,
            new.lane,
            new.access,
            int(needs_change),
            rid,
            new.max_tries,
            new.queue_ttl_us,
            new.parent,
            command.actor,
            step.stamp.wall,
            idem[0] if idem else None,
            idem[1] if idem else None,
            idem[2] if idem else None,
            new.unique_key,
            new.spec,
        )
    )
    step.decision.rows.extend(DepRow(n, edge.needs, edge.policy, 0) for edge in task.edges)
    step.cluster.index(task)
    if task.deadline is not None:
        step.arm(Timer.DEADLINE, n, task.deadline)
    step.note(task, "task.submitted", enters=True, title=new.title, lane=new.lane, project=new.project, type=new.type)
    step.touch(task)
    return task
