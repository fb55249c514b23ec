"""What an agent is asked to do: the task as it travels to a sidecar, and the report that comes back.

Plain frozen values; the frames carry them and the sidecar's journal stores them. Sizes are limits of the protocol (semantics:
title 200, description 10 000 characters, lists 64, metadata 16 KiB).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from hub.ids import Access, CheckStatus, LeaseEpoch, TaskId, TaskType, VerificationKind

Name = Annotated[str, Field(min_length=1, max_length=64)]
Line = Annotated[str, Field(max_length=256)]
Note = Annotated[str, Field(max_length=1024)]
Text4K = Annotated[str, Field(max_length=4096)]
Text64K = Annotated[str, Field(max_length=65_536)]
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHint:
    """A file worth looking at, and why."""

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    reason: Line = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """One check of a task's outcome. ``target`` is a path or empty, ``argv`` the command of ``command_succeeds``."""

    kind: VerificationKind
    target: Annotated[str, Field(max_length=1024)] = ""
    argv: Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(max_length=64)] = ()
    description: Line = ""
    timeout_s: Annotated[int, Field(ge=1, le=3600)] = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Upper bounds of one run; ``None`` is unlimited. The wall clock always has a bound: a hung agent must not renew for ever."""

    wall_s: Annotated[int, Field(ge=1, le=86_400)] = 3600
    tokens: Count | None = None
    cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    turns: Annotated[int, Field(ge=1, le=10_000)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoRef:
    """The repository an assignment works in."""

    name: Name
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    base: Annotated[str, Field(min_length=1, max_length=255)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPoint:
    """Where a rework begins: the previous head, into which the sidecar merges the current base."""

    branch: Annotated[str, Field(max_length=255)]
    head_sha: Sha


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A question asked earlier in this task and the answer it got."""

    qid: Name
    text: Text4K
    answer: Text4K


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckJob:
    """Payload of an internal ``check`` task: run these registered checks on exactly this commit."""

    sha: Sha
    ref: Annotated[str, Field(max_length=255)]
    checks: Annotated[tuple[Verification, ...], Field(max_length=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """Work of an earlier attempt that was not applied: to be looked at, and used or not.

    ``branch`` is where its commits, or what it left uncommitted, are (None: it left nothing but words); ``head_sha`` is None for
    uncommitted work, which is wherever that branch is.
    """

    lease_epoch: LeaseEpoch
    agent: Annotated[str, Field(max_length=64)] = ""
    reason: Line = ""
    outcome: Annotated[str, Field(max_length=64)] = ""
    branch: Annotated[str, Field(max_length=255)] | None = None
    head_sha: Sha | None = None
    summary: Text4K = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Everything a sidecar needs to do a task; read from its rows and sent in ``accepted`` once the lease is committed.

    ``needs_change`` – success requires at least one commit. ``feedback`` – failure context of earlier attempts or the reviewer's
    words, newest last. ``start`` – set for a rework. ``conversation_id`` – native session to resume, if this agent has it.
    ``salvage`` – work of earlier attempts that was not applied, newest first.
    """

    task: TaskId
    lease_epoch: LeaseEpoch
    title: Annotated[str, Field(min_length=1, max_length=200)]
    description: Annotated[str, Field(max_length=10_000)] = ""
    type: TaskType = TaskType.TASK
    access: Access = Access.WRITE
    project: Name = "default"
    repo: RepoRef | None = None
    needs_change: bool = True
    attempt: Annotated[int, Field(ge=1)] = 1
    max_fix_rounds: Annotated[int, Field(ge=0, le=5)] = 2
    file_hints: Annotated[tuple[FileHint, ...], Field(max_length=64)] = ()
    success_criteria: Annotated[tuple[Note, ...], Field(max_length=64)] = ()
    verification: Annotated[tuple[Verification, ...], Field(max_length=64)] = ()
    budget: Budget = Budget()
    model: Annotated[str, Field(max_length=128)] | None = None
    complexity: Annotated[str, Field(pattern=r"^(trivial|standard|complex)$")] | None = None
    feedback: Annotated[tuple[Text64K, ...], Field(max_length=16)] = ()
    start: StartPoint | None = None
    conversation_id: Line | None = None
    answers: Annotated[tuple[Answered, ...], Field(max_length=64)] = ()
    salvage: Annotated[tuple[Salvaged, ...], Field(max_length=8)] = ()
    check: CheckJob | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One commit of a result, oldest first."""

    sha: Sha
    subject: Annotated[str, Field(max_length=512)]
    files: Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(max_length=256)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """How one verification went; ``output`` is the tail of what it printed."""

    kind: VerificationKind
    target: Annotated[str, Field(max_length=4096)] = ""
    status: CheckStatus = CheckStatus.ERROR
    duration_ms: Count = 0
    output: Text4K = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationReport:
    """The last round of all checks. ``passed`` only if every one that is not skipped passed; ``fix_rounds`` = corrective rounds used."""

    passed: bool
    fix_rounds: Count = 0
    checks: Annotated[tuple[CheckReport, ...], Field(max_length=128)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens and money of one run; ``input`` excludes ``cached``; ``cost`` in US dollars."""

    input: Count = 0
    cached: Count = 0
    output: Count = 0
    cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    model: Annotated[str, Field(max_length=128)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """Why a run did not succeed. ``cls`` is retryable, permanent, rate_limited or lost; ``code`` is stable and machine-readable."""

    cls: Annotated[str, Field(pattern=r"^(retryable|permanent|rate_limited|lost)$")]
    code: Name
    message: Text4K = ""
    retry_after_ms: Annotated[int, Field(ge=0, le=86_400_000)] | None = None
