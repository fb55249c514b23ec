"""Tasks over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from hub.client.documents import (
    Batch,
    Dispatched,
    Explanation,
    NewTask,
    Submitted,
    Task,
    TaskAnswer,
    TaskDetail,
    TaskPage,
)
from hub.client.transport import Transport, given, part


class TaskApi(Transport):
    """Submit, read and steer tasks. ``task`` is ``t-17`` or ``17``."""

    async def submit(self, task: NewTask, *, idempotency_key: str | None = None) -> Submitted:
        """Submit one task; with a key it may be repeated safely."""
        headers = {"Idempotency-Key": idempotency_key or ""}
        return await self.ask(Submitted, "POST", "/tasks", body=task, headers=headers)

    async def submit_batch(self, tasks: Sequence[NewTask], *, idempotency_key: str | None = None) -> Batch:
        """Submit tasks together: all or none."""
        headers = {"Idempotency-Key": idempotency_key or ""}
        return await self.ask(Batch, "POST", "/tasks/batch", body={"tasks": list(tasks)}, headers=headers)

    async def tasks(
        self,
        *,
        state: str | None = None,
        live: bool | None = None,
        lane: str | None = None,
        project: str | None = None,
        repo: str | None = None,
        agent: str | None = None,
        type: str | None = None,  # noqa: A002  the API's own word
        created_by: str | None = None,
        text: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> TaskPage:
        """One page, newest first."""
        params = given(
            state=state,
            live=live,
            lane=lane,
            project=project,
            repo=repo,
            agent=agent,
            type=type,
            created_by=created_by,
            text=text,
            cursor=cursor,
            limit=limit,
        )
        return await self.ask(TaskPage, "GET", "/tasks", params=params)

    async def every_task(self, **filters: Any) -> AsyncIterator[Task]:
        """All tasks of the filters of :meth:`tasks`, page by page."""
        cursor: str | None = None
        while True:
            page = await self.tasks(**filters, cursor=cursor)
            for task in page["tasks"]:
                yield task
            cursor = page["next"]
            if cursor is None:
                return

    async def task(self, task: str) -> TaskDetail:
        """One task with everything known of it."""
        return await self.ask(TaskDetail, "GET", f"/tasks/{part(task)}")

    async def explain(self, task: str) -> Explanation:
        """Why it is not running now."""
        return await self.ask(Explanation, "GET", f"/tasks/{part(task)}/explain")

    async def hold(self, task: str, reason: str = "") -> TaskAnswer:
        """Keep it from running."""
        return await self._steer(task, "hold", {"reason": reason})

    async def release(self, task: str) -> TaskAnswer:
        """Undo a hold."""
        return await self._steer(task, "release")

    async def assign(self, task: str, agent: str | None = None, *, force: bool = False) -> TaskAnswer:
        """Pin it to an agent, or to the least busy eligible one."""
        return await self._steer(task, "assign", {"agent": agent, "force": force})

    async def cancel(self, task: str, reason: str = "") -> TaskAnswer:
        """Cancel it; ``pending`` until its agent has stopped."""
        return await self._steer(task, "cancel", {"reason": reason})

    async def complete(self, task: str, reason: str, *, force: bool = False) -> TaskAnswer:
        """Call it done by hand."""
        return await self._steer(task, "complete", {"reason": reason, "force": force})

    async def requeue(self, task: str) -> TaskAnswer:
        """Start a finished task again."""
        return await self._steer(task, "requeue")

    async def answer(self, task: str, text: str, *, qid: str | None = None) -> TaskAnswer:
        """Answer the agent's open question."""
        return await self._steer(task, "answer", {"text": text, "qid": qid})

    async def dispatch(self, *, project: str | None = None, lane: str | None = None) -> Dispatched:
        """Release held tasks."""
        return await self.ask(Dispatched, "POST", "/dispatch", body=given(project=project, lane=lane))

    async def _steer(self, task: str, verb: str, body: dict[str, Any] | None = None) -> TaskAnswer:
        return await self.ask(TaskAnswer, "POST", f"/tasks/{part(task)}/{verb}", body=body)
