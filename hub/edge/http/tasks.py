"""Tasks: submit, list, show, explain."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from hub.core.commands import Submit
from hub.core.decision import Submitted
from hub.core.errors import Refused
from hub.edge.auth import Identity
from hub.edge.http.access import READS, Hub, Submitter
from hub.edge.http.doors import Doors
from hub.edge.http.fields import AgentName, Filters, Key, LaneWord, Line, Name, StateWord, TaskRef, TypeWord
from hub.edge.http.reading import JsonRoute
from hub.edge.http.task_bodies import BatchBody, NewTaskBody
from hub.edge.http.task_documents import BatchOut, ExplanationOut, SubmittedOut, TaskDetail, TaskOut, TaskPage
from hub.edge.http.task_explanations import explain as explain_task
from hub.edge.http.task_explanations import said
from hub.ids import TERMINAL, TaskId, task_ref
from hub.store import projects, tasks
from hub.store.task_account import account, endings
from hub.store.tasks import TaskFilter

router = APIRouter(prefix="/tasks", tags=["tasks"], route_class=JsonRoute)

KNOWN = "The idempotency keys had brought all of it before"
IdempotencyKey = Annotated[Key | None, Header(description="the same key and body give the same task again")]


@router.post("", status_code=201, responses={200: {"model": SubmittedOut, "description": KNOWN}})
async def submit(
    body: NewTaskBody, caller: Submitter, hub: Hub, response: Response, idempotency_key: IdempotencyKey = None
) -> SubmittedOut:
    """Submit one task. 201, or 200 when the idempotency key had brought it before."""
    if idempotency_key is not None and body.idempotency_key not in (None, idempotency_key):
        raise Refused(
            422, "two_keys", "the header Idempotency-Key and the field idempotency_key differ", hint="send one of them"
        )
    try:
        answer = await _submit(hub, caller, [body], [idempotency_key or body.idempotency_key])
    except Refused as refused:
        raise _about_one(refused) from None
    task = answer.tasks[0]
    response.headers["Location"] = f"/api/v1/tasks/{task_ref(task.n)}"
    response.status_code = 201 if task.created else 200
    return SubmittedOut.model_validate(task)


@router.post("/batch", status_code=201, responses={200: {"model": BatchOut, "description": KNOWN}})
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


class TaskFilters(Filters):
    """Which tasks, and which page of them."""

    state: StateWord | None = None
    live: bool = Field(default=False, description="leave out done, dead and cancelled")
    lane: LaneWord | None = None
    project: Name | None = None
    repo: Name | None = None
    agent: AgentName | None = Field(default=None, description="tasks this agent was ever given")
    type: TypeWord | None = Field(default=None, description="check shows the internal checks")
    created_by: Line | None = None
    text: Line | None = Field(default=None, description="a part of the title")
    cursor: int = Field(default=tasks.FIRST_PAGE, ge=1, le=tasks.FIRST_PAGE)
    limit: int = Field(default=50, ge=1, le=200)


@router.get("", dependencies=[READS])
async def listing(hub: Hub, asked: Annotated[TaskFilters, Query()]) -> TaskPage:
    """Tasks, newest first."""
    wanted = TaskFilter(**asked.model_dump(exclude={"cursor", "limit"}))
    found, following = await tasks.page(hub.reader, wanted, before=asked.cursor, limit=asked.limit)
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
    new = []
    for body, key in zip(bodies, keys, strict=True):
        repo = body.repo if "repo" in body.model_fields_set else defaults.get(body.project)
        new.append(body.command(repo=repo, now=now, key=key))
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
