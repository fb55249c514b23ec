"""What people and coordinators may do to a task by hand: hold, release, dispatch, assign, cancel, complete, requeue, answer.

Each is legal in the states named in semantics; anything else is refused with the command that would do what was probably meant.
"""

from __future__ import annotations

from itertools import chain, islice
from operator import attrgetter

import orjson

from hub.core.agent import Agent
from hub.core.cluster import Step
from hub.core.commands import Answer, Assign, Cancel, Complete, Dispatch, Facts, Hold, Release, Requeue
from hub.core.decision import Dispatched, TaskAnswer
from hub.core.dependencies import settle_edges, start
from hub.core.ending import finish, queue_again, stop
from hub.core.errors import Refused
from hub.core.lanes import LANES
from hub.core.matching import Requirement, class_of
from hub.core.recall import task_from_rows
from hub.core.rows import LiveTask
from hub.core.task import Task, raise_fence
from hub.core.timers import Timer
from hub.ids import AgentState, ControlKind, Lane, TaskId, TaskState, task_ref


def answer_for(task: Task, *, pending: bool = False) -> TaskAnswer:
    """The usual answer about one task."""
    return TaskAnswer(n=task.n, state=task.state, lease_epoch=task.lease_epoch, pending=pending)


def hold(step: Step, command: Hold) -> TaskAnswer:
    """scheduled or queued → waiting, cause held."""
    task = step.task(command.n)
    if task.state is TaskState.WAITING:
        task.held, task.cause = True, "held"
        step.note(task, "task.held", cause=command.reason or None)
        step.touch(task)
    elif task.state in (TaskState.SCHEDULED, TaskState.QUEUED):
        step.move(task, TaskState.WAITING, "task.held", cause="held", reason=command.reason)
        task.held = True
    else:
        raise not_now(task, "held", "agentcom task cancel")
    return answer_for(task)


def release(step: Step, command: Release) -> TaskAnswer:
    """Undo a hold."""
    task = step.task(command.n)
    if not task.held:
        raise not_now(task, "released: it is not held", "agentcom task explain")
    step.note(task, "task.released")
    start(step, task)
    return answer_for(task)


MAX_RELEASED = 1000
"""Tasks one dispatch releases; the rest is for the next one, so that no step takes long, whatever is held."""


def dispatch(step: Step, command: Dispatch) -> Dispatched:
    """Release the first held tasks of a project and lane, in lane order and then in order of submission; say whether more are held."""
    if command.project is not None and command.project not in step.cluster.projects:
        raise Refused(404, "unknown_project", f"there is no project {command.project!r}", hint="agentcom project list")
    held: dict[Lane, list[Task]] = {lane: [] for lane in LANES if command.lane in (None, lane)}
    for task in step.cluster.tasks.values():
        if task.held and not task.terminal and task.lane in held and command.project in (None, task.project):
            held[task.lane].append(task)
    in_order = chain.from_iterable(sorted(tasks, key=attrgetter("n")) for tasks in held.values())
    first = list(islice(in_order, MAX_RELEASED))
    for task in first:
        step.note(task, "task.released", cause="dispatch")
        start(step, task)
    return Dispatched(
        released=len(first), why="" if first else "nothing is held there", more=len(first) < sum(map(len, held.values()))
    )


def assign(step: Step, command: Assign) -> TaskAnswer:
    """Pin a task; an idle agent is pushed at once, a busy one gets it next."""
    task = step.task(command.n)
    if task.terminal or task.state is TaskState.IN_REVIEW:
        raise not_now(task, "assigned", "agentcom task requeue" if task.terminal else "agentcom change list")
    need = step.cluster.ready.needs[task.requirement]
    agent = step.agent(command.agent) if command.agent is not None else _least_busy(step, need)
    if not class_of(agent).serves(need):
        lacking = ", ".join(sorted(need.capabilities - agent.capabilities)) or f"project {need.project}"
        raise Refused(409, "not_eligible", f"agent {agent.id} lacks: {lacking}")
    if task.leased:
        if task.holder == agent.id:
            return answer_for(task)
        if not command.force:
            raise Refused(409, "leased", f"{task_ref(task.n)} is held by {task.holder}", hint="--force stops it first")
        task.assign_to = agent.id
        return answer_for(task, pending=stop(step, task, TaskState.QUEUED, "assign"))
    task.assign_to = agent.id
    step.note(task, "task.pinned", agent=agent.id)
    if task.held:
        start(step, task)
    elif task.state is TaskState.QUEUED:
        step.change_shelf(task)
    step.touch(task)
    return answer_for(task)


def cancel(step: Step, command: Cancel) -> TaskAnswer:
    """Cancel now if nobody works on it, otherwise when the sidecar has stopped everything."""
    task = step.task(command.n)
    if task.state is TaskState.CANCELLED:
        return answer_for(task)
    if task.terminal:
        raise not_now(task, "cancelled", "agentcom task requeue")
    if task.merging:
        raise Refused(409, "merging", f"{task_ref(task.n)} is being merged and can no longer be cancelled")
    if task.leased and task.state is not TaskState.ASSIGNED:
        return answer_for(task, pending=stop(step, task, TaskState.CANCELLED, "cancel", command.reason))
    finish(step, task, TaskState.CANCELLED, "task.cancelled", "cancel", reason=command.reason)
    return answer_for(task)


def complete(step: Step, command: Complete) -> TaskAnswer:
    """Done by a person: dependants are released and the fence is raised, so no late result can undo it."""
    task = step.task(command.n)
    if task.state is TaskState.DONE:
        return answer_for(task)
    if task.terminal or task.state is TaskState.IN_REVIEW:
        raise not_now(task, "completed", "agentcom task requeue" if task.terminal else "agentcom change approve")
    if task.leased:
        if not command.force:
            raise Refused(409, "leased", f"{task_ref(task.n)} is held by {task.holder}", hint="--force stops the agent first")
        return answer_for(task, pending=stop(step, task, TaskState.DONE, "complete", command.reason))
    raise_fence(task, step.cluster.fence_base)
    finish(step, task, TaskState.DONE, "task.completed", "complete", reason=command.reason)
    return answer_for(task)


def requeue(step: Step, command: Requeue) -> TaskAnswer:
    """A terminal task starts a new generation, with a new fence and fresh budgets."""
    task = found(step, command.n, command.facts)
    if not task.terminal:
        raise not_now(task, "requeued: it is not finished", "agentcom task explain")
    begin_again(step, task, command.facts, "requeue")
    return answer_for(task)


def begin_again(step: Step, task: Task, facts: Facts, cause: str) -> None:
    """A new generation of a terminal task, queued or waiting; refused if its unique key is taken or what it needs has failed."""
    taken = step.cluster.unique.get(task.unique_key) if task.unique_key is not None else None
    if taken is not None:
        raise Refused(409, "unique_key_taken", f"unique key {task.unique_key!r} is now held by {task_ref(taken)}")
    _check_edges(step, task, facts)
    raise_fence(task, step.cluster.fence_base)
    task.generation += 1
    task.tries = task.lost = task.rework = task.claims = 0
    task.finished_at = task.not_before = task.avoid = task.agent_hint = task.conversation_id = None
    task.suspects = ()
    if task.deadline is not None and task.deadline <= step.stamp.wall:
        task.deadline = None
    step.cluster.volatile.timers.disarm(Timer.TOMBSTONE, task.n)
    # what it waited for may have ended since: no edge can fail it any more, _check_edges saw to that
    settle_edges(step, task, facts.states)
    if task.open_deps:
        step.move(task, TaskState.WAITING, "task.requeued", cause="dependency", generation=task.generation)
    else:
        step.move(task, TaskState.QUEUED, "task.requeued", cause=cause, generation=task.generation)
    step.cluster.enliven(task)


def answer(step: Step, command: Answer) -> TaskAnswer:
    """Answer the open question; a parked task is queued again for its agent and conversation."""
    task = step.task(command.n)
    question = task.question
    if question is None or task.state is not TaskState.BLOCKED:
        raise Refused(
            409, "no_question", f"{task_ref(task.n)} has no open question", hint=f"agentcom task show {task_ref(task.n)}"
        )
    if command.qid is not None and command.qid != question.qid:
        raise Refused(409, "other_question", f"the open question of {task_ref(task.n)} is {question.qid!r}")
    given = question._replace(answered_at=step.stamp.wall, answered_by=command.actor, answer=command.text)
    step.decision.rows.append(given)
    task.question = None
    if task.parked:
        task.parked = False
        queue_again(step, task, "task.answered", "answered", qid=question.qid)
        return answer_for(task)
    task.answered |= {question.qid}
    step.control(task, ControlKind.ANSWER, qid=question.qid, text=command.text)
    step.move(task, TaskState.WORKING, "task.answered", cause="answered", qid=question.qid)
    _agent_of(step, task, AgentState.WORKING, "answered")
    return answer_for(task)


def _least_busy(step: Step, need: Requirement) -> Agent:
    eligible = [
        agent for agent in step.cluster.agents.values() if class_of(agent).serves(need) and agent.connected and not agent.paused
    ]
    if not eligible:
        raise Refused(409, "no_eligible_agent", "no connected agent can do this task", hint="agentcom agent list")
    return min(eligible, key=lambda agent: (agent.task is not None, step.cluster.ready.pinned_to(agent.id), agent.id))


def _agent_of(step: Step, task: Task, to: AgentState, reason: str) -> None:
    agent = step.cluster.agents.get(task.holder) if task.holder is not None else None
    if agent is not None and agent.connected:
        step.move_agent(agent, to, reason)


def found(step: Step, n: TaskId, facts: Facts) -> Task:
    """A task in memory, or brought back from its rows; refused 404 if there never was one."""
    task = step.cluster.tasks.get(n)
    if task is not None:
        return task
    row = facts.task
    if row is None:
        raise Refused(404, "unknown_task", f"there is no task {task_ref(n)}", hint="agentcom task list")
    need = Requirement(row["project"], row["repo"], frozenset(orjson.loads(row["capabilities"])))
    step.cluster.ready.add_requirement(row["requirement_id"], need)
    known = LiveTask(*(row[name] for name in LiveTask._fields))
    task = task_from_rows(known, facts.deps, step.cluster.ready.ids[need], need)
    step.cluster.index(task)
    step.arm(Timer.TOMBSTONE, task.n, step.stamp.mono + step.cluster.terms.tombstone_us)
    return task


def _check_edges(step: Step, task: Task, facts: Facts) -> None:
    for edge in task.edges:
        if edge.satisfied or edge.policy == "run":
            continue
        needed = step.cluster.tasks.get(edge.needs)
        state = needed.state if needed is not None else facts.states.get(edge.needs)
        if state in (TaskState.DEAD, TaskState.CANCELLED):
            raise Refused(
                409,
                "dependency_failed",
                f"{task_ref(task.n)} needs {task_ref(edge.needs)}, which is {state}",
                hint=f"agentcom task requeue {task_ref(edge.needs)}",
            )


def not_now(task: Task, what: str, hint: str) -> Refused:
    """The refusal of a command that a task's state rules out; ``hint`` is the command that would do."""
    command = f"{hint} {task_ref(task.n)}" if hint.startswith("agentcom task") else hint
    return Refused(409, "wrong_state", f"{task_ref(task.n)} is {task.state} and cannot be {what}", hint=command)
