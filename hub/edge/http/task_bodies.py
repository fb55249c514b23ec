"""Bodies about tasks that people send, and how a submission becomes a command."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hub.core.commands import Dependency, NewTask
from hub.edge.http.fields import (
    AgentName,
    Body,
    Branch,
    Description,
    Key,
    LaneWord,
    Line,
    Metadata,
    Name,
    NewTypeWord,
    Note,
    SomeLine,
    SomeText4K,
    TaskRef,
    Text4K,
    Title,
    When,
    moment,
    words,
)
from hub.ids import SECOND, Access, Lane, TaskType, VerificationKind, parse_task_ref

MAX_BATCH = 1000


def _inside(path: str) -> str:
    """A path of the workspace: the sidecar enforces it, here the submitter learns of it early."""
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ValueError("a path is relative to the repository and does not leave it")
    return path


class FileHint(Body):
    """A file worth looking at, and why."""

    path: Annotated[SomeLine, AfterValidator(_inside)]
    reason: Line = ""


class Verification(Body):
    """One check of the outcome. ``command_succeeds`` takes ``argv`` (no shell), ``file_exists`` a path as ``target``."""

    kind: Annotated[VerificationKind, BeforeValidator(words(VerificationKind))]
    target: Annotated[Line, AfterValidator(_inside)] = ""
    argv: list[Text4K] = Field(default_factory=list, max_length=64)
    description: Line = ""
    timeout_s: int = Field(default=120, ge=1, le=3600)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind is VerificationKind.COMMAND_SUCCEEDS and not self.argv:
            raise ValueError("command_succeeds needs argv, the command as a list")
        if self.kind is VerificationKind.FILE_EXISTS and not self.target:
            raise ValueError("file_exists needs target, the path of the file")
        return self


class Budget(Body):
    """Upper bounds of one run; absent is unlimited, but for the wall clock."""

    wall_s: int = Field(default=3600, ge=1, le=86_400)
    tokens: int | None = Field(default=None, ge=0, le=2**53)
    cost: float | None = Field(default=None, ge=0, description="US dollars")
    turns: int | None = Field(default=None, ge=1, le=10_000)


class DependsOn(Body):
    """A task that must be done first; ``policy`` when it fails: skip (cancel this one), run anyway, or fail."""

    task: Annotated[str, Field(min_length=1, max_length=64), Field(description="t-17, or a ref of the same batch")]
    policy: Literal["skip", "run", "fail"] = "skip"

    def command(self) -> Dependency:
        """As the scheduler knows it: what reads like a task is one, everything else is a ref of the batch."""
        try:
            return Dependency(needs=parse_task_ref(self.task), policy=self.policy)
        except ValueError:
            return Dependency(needs=self.task, policy=self.policy)


def _named(value: Any) -> Any:
    return {"task": value} if isinstance(value, str) else value


def _batch_ref(text: str) -> str:
    try:
        parse_task_ref(text)
    except ValueError:
        return text
    raise ValueError("a ref must not read like a task reference")


class NewTaskBody(Body):
    """A task to submit. Only the title is required."""

    title: Title
    description: Description = ""
    ref: Annotated[Name, AfterValidator(_batch_ref)] | None = Field(
        default=None, description="a name inside the batch, for depends_on"
    )
    type: NewTypeWord = TaskType.TASK
    lane: LaneWord = Lane.NORMAL
    project: Name = "default"
    repo: Name | None = Field(default=None, description="absent: the project's default; null: none")
    base: Branch | None = Field(default=None, description="branch to start from; absent: the repository's")
    access: Annotated[Access, BeforeValidator(words(Access))] = Access.WRITE
    needs_change: bool | None = Field(default=None, description="whether success needs a commit; absent: by type")
    capabilities: list[Name] = Field(default_factory=list, max_length=64)
    assign_to: AgentName | None = None
    not_before: When | None = Field(default=None, description="RFC 3339, or a delay like +10m", examples=["+10m"])
    deadline: When | None = Field(default=None, description="RFC 3339, or a delay like +2h")
    queue_ttl_s: int | None = Field(default=None, ge=1, le=31_622_400, description="dies if it queues longer")
    depends_on: list[Annotated[DependsOn, BeforeValidator(_named)]] = Field(default_factory=list, max_length=64)
    parent: TaskRef | None = None
    max_tries: int = Field(default=3, ge=1, le=20)
    max_fix_rounds: int = Field(default=2, ge=0, le=5)
    hold: bool = Field(default=False, description="wait until released, assigned or dispatched")
    idempotency_key: Key | None = None
    unique_key: Key | None = Field(default=None, description="at most one live task has it")
    file_hints: list[FileHint] = Field(default_factory=list, max_length=64)
    success_criteria: list[Note] = Field(default_factory=list, max_length=64)
    verification: list[Verification] = Field(default_factory=list, max_length=64)
    budget: Budget = Field(default_factory=Budget)
    model: Annotated[Line, Field(max_length=128)] | None = None
    complexity: Literal["trivial", "standard", "complex"] | None = None
    tags: list[Name] = Field(default_factory=list, max_length=64)
    effort: Annotated[Line, Field(max_length=64)] | None = None
    metadata: Metadata = Field(default_factory=dict)

    def command(self, *, repo: str | None, now: int, key: str | None) -> NewTask:
        """The submission as a value; ``repo`` is resolved, ``key`` the idempotency key, ``now`` what delays count from."""
        return NewTask(
            title=self.title,
            spec=self.model_dump_json(include=self.model_fields_set & _DESCRIBED, exclude_defaults=True),
            body_hash=self.fingerprint() if key is not None else "",
            ref=self.ref,
            type=self.type,
            lane=self.lane,
            project=self.project,
            repo=repo,
            base=self.base,
            access=self.access,
            needs_change=self.needs_change,
            capabilities=tuple(sorted(set(self.capabilities))),
            assign_to=self.assign_to,
            not_before=_moment(self.not_before, now),
            deadline=_moment(self.deadline, now),
            queue_ttl_us=None if self.queue_ttl_s is None else self.queue_ttl_s * SECOND,
            depends_on=tuple(dependency.command() for dependency in self.depends_on),
            parent=self.parent,
            max_tries=self.max_tries,
            hold=self.hold,
            idempotency_key=key,
            unique_key=self.unique_key,
        )

    def fingerprint(self) -> str:
        """SHA-256 of what was asked, without the key that names the asking: same key and same print is the same request.

        Canonical and without defaults, so a field this version does not know yet changes no print later. Moments count as
        they were written: a repeated ``+10m`` is the same request.
        """
        asked = self.model_dump(mode="json", exclude={"idempotency_key"}, exclude_defaults=True)
        explicit = {"repo": None} if self.repo is None and "repo" in self.model_fields_set else {}
        return hashlib.sha256(orjson.dumps(asked | explicit, option=orjson.OPT_SORT_KEYS)).hexdigest()


_DESCRIBED = {
    "description",
    "file_hints",
    "success_criteria",
    "verification",
    "budget",
    "model",
    "complexity",
    "tags",
    "effort",
    "metadata",
    "max_fix_rounds",
}


def _moment(text: str | None, now: int) -> int | None:
    return None if text is None else moment(text, now)


class BatchBody(Body):
    """Tasks submitted together: all or none. They may depend on one another by ``ref``."""

    tasks: list[NewTaskBody] = Field(min_length=1, max_length=MAX_BATCH)


class ReasonBody(Body):
    """Why; shown in the history."""

    reason: Line = ""


class AssignBody(Body):
    """The agent, or none for the least busy eligible one; ``force`` stops a running attempt first."""

    agent: AgentName | None = None
    force: bool = False


class CompleteBody(Body):
    """Why a person calls it done; ``force`` stops a working agent first."""

    reason: SomeLine
    force: bool = False


class AnswerBody(Body):
    """The answer to the open question, or to the one named."""

    text: SomeText4K
    qid: Annotated[SomeLine, Field(max_length=64)] | None = None


class DispatchBody(Body):
    """Which held tasks to release; absent is all."""

    project: Name | None = None
    lane: LaneWord | None = None
