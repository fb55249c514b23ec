"""Tasks: submit, list, show, explain."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from hub.core.commands import Submit
from hub.core.decision import Submitted
from hub.core.errors import Refused
from hub.edge.auth import Identity
from hub.edge.http.access import READS, Hub, Submitter
from hub.edge.http.doors import Doors
from hub.edge.http.fields import AgentName, Key, LaneWord, Line, Name, StateWord, TaskRef, TypeWord
from hub.edge.http.task_bodies import BatchBody, NewTaskBody
from hub.edge.http.task_documents import BatchOut, ExplanationOut, SubmittedOut, TaskDetail, TaskOut, TaskPage
from hub.edge.http.task_explanations import explain as explain_task
from hub.edge.http.task_explanations import said
from hub.ids import TERMINAL, TaskId, task_ref
from hub.store import projects, tasks
from hub.store.task_account import account, endings
from hub.store.tasks import TaskFilter

router = APIRouter(prefix="/tasks", tags=["tasks"])

IdempotencyKey = Annotated[Key | None, Header(description="the same key and body give the same task again")]


@router.post("", status_code=201)
async def submit(
    body: NewTaskBody, caller: Submitter, hub: Hub, response: Response, idempotency_key: IdempotencyKey = None
) -> SubmittedOut:
    """Submit one task. 201, or 200 when the idempotency key had brought it before."""
    if idempotency_key is not None and body.idempotency_key not in (None, idempotency_key):
        raise Refused(422, "two_keys", "the header Idempotency-Key and the field idempotency_key differ")
    try:
        answer = await _submit(hub, caller, [body], [idempotency_key or body.idempotency_key])
    except Refused as refused:
        raise _about_one(refused) from None
    task = answer.tasks[0]
    response.headers["Location"] = f"/api/v1/tasks/{task_ref(task.n)}"
    response.status_code = 201 if task.created else 200
    return SubmittedOut.model_validate(task)


@router.post("/batch", status_code=201)
async def submit_batch(
    body: BatchBody, caller: Submitter, hub: Hub, response: Response, idempotency_key: IdempotencyKey = None
) -> BatchOut:
    """Submit up to 1000 tasks, all or none. A header key covers the batch: item i gets ``<key>/<i>`` unless it has its own."""
    keys = [
        task.idempotency_key or (f"{idempotency_key}/{i}" if idempotency_key is not None else None)
        for i, task in enumerate(body.tasks)
    ]
    answer = await _submit(hub, caller, body.tasks, keys)
    response.status_code = 201 if any(task.created for task in answer.tasks) else 200
    return BatchOut(tasks=[SubmittedOut.model_validate(task) for task in answer.tasks])


@router.get("", dependencies=[READS])
async def listing(
    hub: Hub,
    state: StateWord | None = None,
    live: Annotated[bool, Query(description="leave out done, dead and cancelled")] = False,
    lane: LaneWord | None = None,
    project: Name | None = None,
    repo: Name | None = None,
    agent: Annotated[AgentName | None, Query(description="tasks this agent was ever given")] = None,
    type_: Annotated[TypeWord | None, Query(alias="type", description="check shows the internal checks")] = None,
    created_by: Line | None = None,
    text: Annotated[Line | None, Query(description="a part of the title")] = None,
    cursor: Annotated[int, Query(ge=1, le=tasks.FIRST_PAGE)] = tasks.FIRST_PAGE,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> TaskPage:
    """Tasks, newest first."""
    wanted = TaskFilter(
        state=state,
        live=live,
        lane=lane,
        project=project,
        repo=repo,
        agent=agent,
        type=type_,
        created_by=created_by,
        text=text,
    )
    found, following = await tasks.page(hub.reader, wanted, before=cursor, limit=limit)
    ends = await endings(hub.reader, [task.n for task in found if task.state in TERMINAL])
    shown = [TaskOut.of(task, said(ends.get(task.n, ()))) for task in found]
    return TaskPage(tasks=shown, next=None if following is None else str(following))


@router.get("/{task}", dependencies=[READS])
async def show(task: TaskRef, hub: Hub) -> TaskDetail:
    """One task with attempts, questions, feedback, result and history."""
    found = await account(hub.reader, task)
    if found is None:
        raise _unknown(task)
    scheduler = hub.conductor.scheduler
    return TaskDetail.of_account(found, live=scheduler.explain(task), progress=scheduler.progress(task))


@router.get("/{task}/explain", dependencies=[READS])
async def explain(task: TaskRef, hub: Hub) -> ExplanationOut:
    """Why this task is not running now, or how it ended, in one line."""
    found = await account(hub.reader, task)
    if found is None:
        raise _unknown(task)
    return ExplanationOut(id=task_ref(task), explanation=explain_task(found, hub.conductor.scheduler.explain(task)))


async def _submit(hub: Doors, caller: Identity, bodies: list[NewTaskBody], keys: list[str | None]) -> Submitted:
    now = hub.now()
    defaults = await _default_repos(hub, bodies)
    new, faults = [], []
    for i, (body, key) in enumerate(zip(bodies, keys, strict=True)):
        repo = body.repo if "repo" in body.model_fields_set else defaults.get(body.project)
        try:
            new.append(body.command(repo=repo, now=now, key=key))
        except Refused as refused:
            faults += [replace(fault, loc=f"tasks.{i}.{fault.loc}") for fault in refused.faults]
    if faults:
        raise Refused(422, "invalid", "nothing was submitted", faults=tuple(faults))
    answer = await hub.conductor.do(Submit(actor=caller.name, tasks=tuple(new)))
    assert isinstance(answer, Submitted)
    return answer


async def _default_repos(hub: Doors, bodies: list[NewTaskBody]) -> dict[str, str | None]:
    """The default repository of each project that a task leaves it to. An unknown project is refused by the scheduler."""
    wanted = {body.project for body in bodies if "repo" not in body.model_fields_set}
    found = [await projects.find(hub.reader, project) for project in sorted(wanted)]
    return {project.id: project.default_repo for project in found if project is not None}


def _about_one(refused: Refused) -> Refused:
    """The refusal of a batch of one, in the places of the single body."""
    faults = tuple(replace(fault, loc=fault.loc.removeprefix("tasks.0.")) for fault in refused.faults)
    detail = "the task was refused; nothing was submitted" if faults else refused.message
    return Refused(refused.status, refused.code, detail, faults=faults, hint=refused.hint, retry_after_s=refused.retry_after_s)


def _unknown(task: TaskId) -> Refused:
    return Refused(404, "unknown_task", f"there is no task {task_ref(task)}", hint="agentcom task list")
