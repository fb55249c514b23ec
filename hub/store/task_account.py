"""The full account of one task: what was asked, what it waits for, each attempt, and what came of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import Json

from hub.core.rows import EventRow
from hub.ids import AgentId, ChangeId, ChangeState, LeaseEpoch, SessionEpoch, TaskId, TaskState, Tier, Verdict
from hub.store import events, salvage
from hub.store.base import Reader
from hub.store.decode import decoder
from hub.store.salvage import SalvageEntry
from hub.store.tasks import TaskRecord, read_task

FEEDBACK_ROWS = 16
HISTORY_ROWS = 200
ENDING_ROWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecRecord:
    """The descriptive part of a task and the capabilities it needs, as they were submitted."""

    spec: Json[dict[str, Any]]
    capabilities: Json[tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRecord:
    """One dependency, seen from either end: ``n`` is the other task."""

    n: TaskId
    policy: str
    satisfied: bool
    state: TaskState
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One claim of the task."""

    lease_epoch: LeaseEpoch
    agent: AgentId
    session_epoch: SessionEpoch
    assigned_at: int
    accepted_at: int | None
    ended_at: int | None
    outcome: str | None
    """How it ended: an ``Outcome``, or the hub's own word for an attempt that never ran."""
    cause: str | None
    verdict: Verdict | None
    error: Json[dict[str, Any]] | None
    usage: Json[dict[str, Any]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRecord:
    """The body of an applied result."""

    lease_epoch: LeaseEpoch
    output: str
    output_ref: str | None
    branch: str | None
    base_sha: str | None
    head_sha: str | None
    commits: Json[list[dict[str, Any]]]
    verification: Json[dict[str, Any]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackRecord:
    """What the attempt after ``lease_epoch`` was told."""

    lease_epoch: LeaseEpoch
    at: int
    source: str
    text: str
    branch: str | None
    head_sha: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionRecord:
    """A question of the agent, and its answer."""

    lease_epoch: LeaseEpoch
    qid: str
    text: str
    options: Json[tuple[str, ...]]
    asked_at: int
    answered_at: int | None
    answered_by: str | None
    answer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOfTask:
    """A change the task led to."""

    id: ChangeId
    lease_epoch: LeaseEpoch
    state: ChangeState
    tier: Tier | None
    cause: str | None
    head_sha: str
    merged_sha: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Everything about one task. Lists are bounded; attempts, feedback, questions, changes and history are newest first."""

    task: TaskRecord
    spec: SpecRecord
    needs: tuple[EdgeRecord, ...]
    needed_by: tuple[EdgeRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    questions: tuple[QuestionRecord, ...]
    feedback: tuple[FeedbackRecord, ...]
    result: ResultRecord | None
    salvage: tuple[SalvageEntry, ...]
    changes: tuple[ChangeOfTask, ...]
    history: tuple[tuple[int, EventRow], ...]


_spec = decoder(SpecRecord)
_edge = decoder(EdgeRecord)
_attempt = decoder(AttemptRecord)
_result = decoder(ResultRecord)
_feedback = decoder(FeedbackRecord)
_question = decoder(QuestionRecord)
_change = decoder(ChangeOfTask)


async def account(reader: Reader, n: TaskId) -> Account | None:
    """Read the account of a task, or None if there is no such task. Not one snapshot: a part may be newer than another."""
    row = await reader.one("task_by_n", n=n)
    if row is None:
        return None
    result = await reader.one("task_result", n=n)
    return Account(
        task=read_task(row),
        spec=_spec(row),
        needs=tuple(map(_edge, await reader.all("task_needs", n=n))),
        needed_by=tuple(map(_edge, await reader.all("task_needed_by", n=n))),
        attempts=tuple(map(_attempt, await reader.all("task_attempts", n=n))),
        questions=tuple(map(_question, await reader.all("task_questions", n=n))),
        feedback=tuple(
            map(_feedback, await reader.all("task_feedback", n=n, lease_epoch=row["lease_epoch"], limit=FEEDBACK_ROWS))
        ),
        result=_result(result) if result is not None else None,
        salvage=await salvage.of_task(reader, n),
        changes=tuple(map(_change, await reader.all("task_changes", n=n))),
        history=tuple(await events.of_task(reader, n, limit=HISTORY_ROWS)),
    )


async def endings(reader: Reader, tasks: Collection[TaskId]) -> dict[TaskId, list[tuple[str, str | None]]]:
    """Kind and data of the events that end tasks or start them again, newest first, for each of a page of tasks."""
    found: dict[TaskId, list[tuple[str, str | None]]] = {}
    if tasks:
        for row in await reader.all("task_endings", tasks=orjson.dumps([*tasks]).decode(), limit=ENDING_ROWS):
            found.setdefault(TaskId(row["task"]), []).append((row["kind"], row["data"]))
    return found
