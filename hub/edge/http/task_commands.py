"""What people do to a task by hand. Each route is one command; 202 says that it takes effect when the agent has stopped."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from hub.core.commands import Answer, Assign, Cancel, Complete, Dispatch, Hold, OnTask, Release, Requeue
from hub.core.decision import Dispatched, TaskAnswer
from hub.edge.http.access import Hub, Operator
from hub.edge.http.doors import Doors
from hub.edge.http.fields import TaskRef
from hub.edge.http.reading import JsonRoute
from hub.edge.http.task_bodies import AnswerBody, AssignBody, CompleteBody, DispatchBody, ReasonBody
from hub.edge.http.task_documents import DispatchedOut, TaskAnswerOut

router = APIRouter(tags=["tasks"], route_class=JsonRoute)

LATER: dict[int | str, dict[str, Any]] = {
    202: {"model": TaskAnswerOut, "description": "It takes effect when the agent has stopped"}
}


@router.post("/tasks/{task}/hold")
async def hold(task: TaskRef, caller: Operator, hub: Hub, response: Response, body: ReasonBody | None = None) -> TaskAnswerOut:
    """Keep a scheduled or queued task from running."""
    return await _do(hub, response, Hold(actor=caller.name, n=task, reason=_reason(body)))


@router.post("/tasks/{task}/release")
async def release(task: TaskRef, caller: Operator, hub: Hub, response: Response) -> TaskAnswerOut:
    """Undo a hold."""
    return await _do(hub, response, Release(actor=caller.name, n=task))


@router.post("/tasks/{task}/assign", responses=LATER)
async def assign(task: TaskRef, body: AssignBody, caller: Operator, hub: Hub, response: Response) -> TaskAnswerOut:
    """Pin the task to an agent: an idle one gets it at once, a busy one next."""
    return await _do(hub, response, Assign(actor=caller.name, n=task, agent=body.agent, force=body.force))


@router.post("/tasks/{task}/cancel", responses=LATER)
async def cancel(
    task: TaskRef, caller: Operator, hub: Hub, response: Response, body: ReasonBody | None = None
) -> TaskAnswerOut:
    """Cancel; a running task is cancelled when its agent has stopped."""
    return await _do(hub, response, Cancel(actor=caller.name, n=task, reason=_reason(body)))


@router.post("/tasks/{task}/complete", responses=LATER)
async def complete(task: TaskRef, body: CompleteBody, caller: Operator, hub: Hub, response: Response) -> TaskAnswerOut:
    """Done by a person: dependants are released."""
    return await _do(hub, response, Complete(actor=caller.name, n=task, reason=body.reason, force=body.force))


@router.post("/tasks/{task}/requeue")
async def requeue(task: TaskRef, caller: Operator, hub: Hub, response: Response) -> TaskAnswerOut:
    """A finished task starts again, as a new generation with fresh budgets."""
    return await _do(hub, response, Requeue(actor=caller.name, n=task))


@router.post("/tasks/{task}/answer")
async def answer(task: TaskRef, body: AnswerBody, caller: Operator, hub: Hub, response: Response) -> TaskAnswerOut:
    """Answer the agent's open question."""
    return await _do(hub, response, Answer(actor=caller.name, n=task, text=body.text, qid=body.qid))


@router.post("/dispatch")
async def dispatch(caller: Operator, hub: Hub, body: DispatchBody | None = None) -> DispatchedOut:
    """Release every held task (of a project, of a lane), in lane order. If it breaks off, the same request releases the rest."""
    asked = body or DispatchBody()
    command = Dispatch(actor=caller.name, project=asked.project, lane=asked.lane)
    released, done = 0, Dispatched(released=0, more=True)
    while done.more:  # in steps, so that others are heard in between
        answer = await hub.conductor.do(command)
        assert isinstance(answer, Dispatched)
        done, released = answer, released + answer.released
    return DispatchedOut(released=released, why="" if released else done.why)


async def _do(hub: Doors, response: Response, command: OnTask) -> TaskAnswerOut:
    done = await hub.conductor.do(command)
    assert isinstance(done, TaskAnswer)
    response.status_code = 202 if done.pending else 200
    return TaskAnswerOut.model_validate(done)


def _reason(body: ReasonBody | None) -> str:
    return "" if body is None else body.reason
