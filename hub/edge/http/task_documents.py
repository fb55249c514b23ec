"""Tasks as the HTTP API shows them. References read ``t-17``, moments are RFC 3339."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from hub.core.rows import EventRow
from hub.edge.http.event_documents import EventOut
from hub.edge.http.fields import ChangeId_, Moment, Out, TaskId_
from hub.edge.http.salvage_documents import SalvageOut
from hub.edge.http.task_explanations import ending, explain
from hub.ids import Access, ChangeState, Lane, LeaseEpoch, TaskState, TaskType, Verdict
from hub.store.task_account import Account
from hub.store.tasks import TaskRecord


class TaskOut(Out):
    """A task. ``agent`` holds it now; ``stopping`` is the state it takes when its agent has stopped.

    ``cause`` is the code of its last step; ``reason`` the words given when it was ended, by a person or for a dependency.
    """

    id: TaskId_ = Field(validation_alias="n")
    title: str
    state: TaskState
    type: TaskType
    lane: Lane
    project: str
    repo: str | None
    base: str | None
    access: Access
    needs_change: bool
    agent: str | None = Field(validation_alias="holder_agent")
    assign_to: str | None
    tries: int
    max_tries: int
    lost: int
    rework: int
    lease_epoch: LeaseEpoch
    generation: int
    held: bool
    parked: bool
    stopping: TaskState | None
    merging: bool
    cause: str | None
    reason: str | None = None
    parent: TaskId_ | None
    unique_key: str | None
    created_by: str
    created_at: Moment
    updated_at: Moment
    queued_at: Moment | None
    not_before: Moment | None
    deadline: Moment | None
    finished_at: Moment | None

    @classmethod
    def of(cls, task: TaskRecord, reason: str | None = None) -> TaskOut:
        """From its row, and what was said when it ended."""
        found = cls.model_validate(task)
        found.reason = reason
        return found


class TaskPage(Out):
    """Newest first. ``next`` is the cursor of the following page; a page can be short, the list ends when it is null."""

    tasks: list[TaskOut]
    next: str | None


class EdgeOut(Out):
    """A dependency, seen from either end."""

    id: TaskId_ = Field(validation_alias="n")
    title: str
    state: TaskState
    policy: str
    satisfied: bool


class AttemptOut(Out):
    """One claim. ``cause`` is why it ended as it did."""

    lease_epoch: LeaseEpoch
    agent: str
    session_epoch: int
    assigned_at: Moment
    accepted_at: Moment | None
    ended_at: Moment | None
    outcome: str | None
    cause: str | None
    verdict: Verdict | None
    error: dict[str, Any] | None
    usage: dict[str, Any] | None


class QuestionOut(Out):
    """A question of the agent; open while ``answer`` is null."""

    lease_epoch: LeaseEpoch
    qid: str
    text: str
    options: list[str]
    asked_at: Moment
    answered_at: Moment | None
    answered_by: str | None
    answer: str | None


class FeedbackOut(Out):
    """What later attempts are told."""

    lease_epoch: LeaseEpoch
    at: Moment
    source: str
    text: str
    branch: str | None
    head_sha: str | None


class ResultOut(Out):
    """The applied result; ``output_ref`` names a blob when the output did not fit."""

    lease_epoch: LeaseEpoch
    output: str
    output_ref: str | None
    branch: str | None
    base_sha: str | None
    head_sha: str | None
    commits: list[dict[str, Any]]
    verification: dict[str, Any] | None


class ChangeOfTaskOut(Out):
    """A change this task led to."""

    id: ChangeId_
    lease_epoch: LeaseEpoch
    state: ChangeState
    tier: int | None
    cause: str | None
    head_sha: str
    merged_sha: str | None


class ProgressOut(Out):
    """What the agent said last about how far it is."""

    percent: int | None
    note: str


def _event(entry: tuple[int, EventRow]) -> EventOut:
    return EventOut.of(*entry)


class TaskDetail(TaskOut):
    """A task with everything that is known of it. Lists are newest first and bounded (history: 200)."""

    explanation: str
    progress: ProgressOut | None
    capabilities: list[str]
    spec: dict[str, Any]
    depends_on: list[EdgeOut]
    needed_by: list[EdgeOut]
    attempts: list[AttemptOut]
    questions: list[QuestionOut]
    feedback: list[FeedbackOut]
    result: ResultOut | None
    salvage: list[SalvageOut]
    changes: list[ChangeOfTaskOut]
    history: list[Annotated[EventOut, BeforeValidator(lambda value: _event(value) if isinstance(value, tuple) else value)]]

    @classmethod
    def of_account(cls, account: Account, *, live: str | None, progress: tuple[int | None, str] | None) -> TaskDetail:
        """From its account in the store and what only the scheduler knows: ``live`` is its explanation."""
        return cls.model_validate(
            {
                **TaskOut.of(account.task, ending(account)).model_dump(),
                "explanation": explain(account, live),
                "progress": None if progress is None else {"percent": progress[0], "note": progress[1]},
                "capabilities": list(account.spec.capabilities),
                "spec": account.spec.spec,
                "depends_on": account.needs,
                "needed_by": account.needed_by,
                "attempts": account.attempts,
                "questions": account.questions,
                "feedback": account.feedback,
                "result": account.result,
                "salvage": account.salvage,
                "changes": account.changes,
                "history": account.history,
            }
        )


class SubmittedOut(Out):
    """An accepted submission; ``created`` is false when the idempotency key had brought this task before."""

    id: TaskId_ = Field(validation_alias="n")
    state: TaskState
    created: bool


class BatchOut(Out):
    """The tasks of a batch in its order."""

    tasks: list[SubmittedOut]


class TaskAnswerOut(Out):
    """The task after a command. ``pending``: it takes effect when the agent has stopped (status 202)."""

    id: TaskId_ = Field(validation_alias="n")
    state: TaskState
    lease_epoch: LeaseEpoch
    pending: bool


class DispatchedOut(Out):
    """How many held tasks were released, and why none."""

    released: int
    why: str


class ExplanationOut(Out):
    """Why the task is not running now: the first unmet condition."""

    id: TaskId_
    explanation: str
