"""Identifiers and closed vocabularies shared by the wire, the rules and every door.

These are the nouns and states of the glossary: the same words appear in code, SQL, HTTP, metrics, logs and UI.
This module imports nothing of ours and holds no behaviour beyond formatting and parsing references.
"""

from __future__ import annotations

import re
from enum import IntEnum, StrEnum
from typing import NewType

TaskId = NewType("TaskId", int)
"""Dense, human task number; never reused. Shown as ``t-<n>``."""
ChangeId = NewType("ChangeId", int)
"""Number of a change (a proposed merge). Shown as ``c-<n>``."""
AgentId = NewType("AgentId", str)
"""Stable agent name, matching :data:`AGENT_ID`."""
LeaseEpoch = NewType("LeaseEpoch", int)
"""The fence of a task: +1 per claim, complete, requeue and rework; never reused, never decremented."""
SessionEpoch = NewType("SessionEpoch", int)
"""+1 for each new session of an agent, persisted; frames with another value never change anything."""
HubEpoch = NewType("HubEpoch", int)
"""+1 per hub start, persisted."""
Micros = NewType("Micros", int)
"""Integer microseconds: UTC since 1970 for wall-clock fields, arbitrary origin for monotonic ones."""

AGENT_ID = re.compile(r"[a-z0-9._-]{1,64}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Projects, repositories and capabilities."""

SECOND = 1_000_000
"""Microseconds per second."""
DAY = 86_400 * SECOND
"""Microseconds per day."""

_REF = re.compile(r"(?:t-)?([1-9][0-9]{0,17})")
_SALVAGE_REF = re.compile(r"(?:t-)?([1-9][0-9]{0,17})/(0|[1-9][0-9]{0,17})")
_CHANGE_REF = re.compile(r"(?:c-)?([1-9][0-9]{0,17})")


def task_ref(n: int) -> str:
    """Format a task number the way people see it: ``t-17``."""
    return f"t-{n}"


def parse_task_ref(text: str) -> TaskId:
    """Parse ``t-17`` or ``17``; raises ValueError with a message fit for the user."""
    found = _REF.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text[:40]!r} is not a task reference; write t-17 or 17")
    return TaskId(int(found[1]))


def change_ref(n: int) -> str:
    """Format a change number the way people see it: ``c-4``."""
    return f"c-{n}"


def parse_change_ref(text: str) -> ChangeId:
    """Parse ``c-4`` or ``4``; raises ValueError with a message fit for the user."""
    found = _CHANGE_REF.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text[:40]!r} is not a change reference; write c-4 or 4")
    return ChangeId(int(found[1]))


def salvage_ref(n: int, lease_epoch: int) -> str:
    """Format what was kept of one lease the way people see it: ``t-17/3``."""
    return f"{task_ref(n)}/{lease_epoch}"


def parse_salvage_ref(text: str) -> tuple[TaskId, LeaseEpoch]:
    """Parse ``t-17/3`` or ``17/3``; raises ValueError with a message fit for the user."""
    found = _SALVAGE_REF.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text[:40]!r} is not a reference to salvaged work; write t-17/3: the task and its lease")
    return TaskId(int(found[1])), LeaseEpoch(int(found[2]))


class Lane(StrEnum):
    """Priority lane of a task, most urgent first."""

    URGENT = "urgent"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class TaskState(StrEnum):
    """State of a task; the legal transitions are the table in ``hub.core.task``."""

    WAITING = "waiting"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    ASSIGNED = "assigned"
    WORKING = "working"
    BLOCKED = "blocked"
    IN_REVIEW = "in_review"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"


class TaskType(StrEnum):
    """What kind of work a task is."""

    TASK = "task"
    BUG = "bug"
    FEATURE = "feature"
    REFACTOR = "refactor"
    RESEARCH = "research"
    DOCUMENTATION = "documentation"
    PLAN = "plan"
    REVIEW = "review"
    CHECK = "check"
    """Internal: registered checks on a merge candidate; hidden in lists."""


class AgentState(StrEnum):
    """State of an agent; flags (quiet, paused, quarantined …) are separate."""

    OFFLINE = "offline"
    IDLE = "idle"
    ASSIGNED = "assigned"
    WORKING = "working"
    BLOCKED = "blocked"


class StrikeOf(StrEnum):
    """What a reason against an agent is about."""

    OFFER = "offer"
    """An offer it did not take."""
    RUN = "run"
    """A run that ended so that it may be broken."""


class Access(StrEnum):
    """What an agent may do in its workspace."""

    READ_ONLY = "read_only"
    WRITE = "write"


class FindingState(StrEnum):
    """How a check of the doctor ended."""

    OK = "ok"
    WARN = "warn"
    """It works, and may not for long."""
    FAIL = "fail"


class Phase(StrEnum):
    """How far a held assignment has come on the sidecar (its journal's phases)."""

    ASSIGNED = "assigned"
    ACCEPTED = "accepted"
    WOKEN = "woken"
    EXITED = "exited"
    VERIFIED = "verified"
    PUSHED = "pushed"
    RESULT = "result"

    @property
    def rank(self) -> int:
        """Position in the journal's order, for comparisons."""
        return _PHASES.index(self)


_PHASES = tuple(Phase)


class Outcome(StrEnum):
    """How a run ended, as the sidecar reports it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RATE_LIMITED = "rate_limited"
    INTERRUPTED = "interrupted"
    LOST = "lost"
    CANCELLED = "cancelled"


class Verdict(StrEnum):
    """What the hub did with a result."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    STALE = "stale"
    SALVAGED = "salvaged"


class SalvageState(StrEnum):
    """What became of work that was kept although it could not be applied."""

    OPEN = "open"
    """Nobody has decided; the next attempt is told of it."""
    APPLYING = "applying"
    """A person adopts it as soon as the agent that works on the task has stopped."""
    APPLIED = "applied"
    DROPPED = "dropped"


class HeldVerdict(StrEnum):
    """What the hub says at reconnection about one item the sidecar named."""

    ACCEPTED = "accepted"
    """Taken as accept (an ``accepted`` frame follows)."""
    KEEP = "keep"
    SEND_RESULT = "send_result"
    STOP = "stop"


class ControlKind(StrEnum):
    """What a ``control`` frame asks of a running assignment."""

    CANCEL = "cancel"
    INTERRUPT = "interrupt"
    STEER = "steer"
    ANSWER = "answer"


class CheckStatus(StrEnum):
    """Result of one verification; a check that could not run is ``error``, never a pass."""

    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"
    TIMEOUT = "timeout"
    SKIP = "skip"


class VerificationKind(StrEnum):
    """Kinds of verification a task or a repository can ask for."""

    COMMAND_SUCCEEDS = "command_succeeds"
    TEST_PASSES = "test_passes"
    FILE_EXISTS = "file_exists"
    GIT_CLEAN = "git_clean"
    NO_SECRETS = "no_secrets"


class Tier(IntEnum):
    """Risk tier of a change: 1 may merge by policy, 2 needs a review, 3 needs a person."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


class ChangeState(StrEnum):
    """State of a change; the legal transitions are the table in ``hub.core.change``."""

    OPEN = "open"
    """Being assessed: fetched, measured, given its tier."""
    CHECKING = "checking"
    """The candidate's registered checks are running."""
    WAITING = "waiting"
    """Waits for the approval its tier demands."""
    MERGING = "merging"
    """The intent to merge is committed; the push may have happened."""
    MERGED = "merged"
    REWORK = "rework"
    """Returned to the queue with feedback; a later attempt opens a new change."""
    CLOSED = "closed"
    """Ended without merging: rejected for good, or its task was cancelled."""


class SpaceState(StrEnum):
    """The room on the store's disk, as far as it decides what is taken."""

    AMPLE = "ample"
    LOW = "low"
    """Nothing new is taken from people; agents at work go on."""
    FULL = "full"
    """The reserve was given up: what agents at work say is written from it."""


class Scope(StrEnum):
    """What a token is good for. Approving is never implied by another scope: it needs a credential that agents cannot read."""

    ADMIN = "admin"
    """Issues tokens, enrols machines, registers projects and repositories; everything of an operator."""
    OPERATOR = "operator"
    """Steers tasks and agents; submits and observes."""
    APPROVER = "approver"
    """Approves and rejects changes; observes."""
    SUBMITTER = "submitter"
    """Submits tasks and observes."""
    OBSERVER = "observer"
    """Reads."""
    AGENT = "agent"
    """A sidecar: its socket and its blobs, for the agents named with it (``agent:<id>``)."""
    ENROL = "enrol"
    """Registers one machine, and nothing else."""


class BackupReason(StrEnum):
    """Why a backup was made."""

    SCHEDULED = "scheduled"
    ASKED = "asked"
    MIGRATION = "migration"
    """Before the schema was brought forward; kept until that happens again."""


RESTORE_JUMP = 1 << 20
"""How far a restore sets every counter ahead: the hub whose store was lost may have used that many numbers since its backup."""

AGENT_PREFIX = "agent:"
"""Before an agent's id in a token's scopes."""
ANY_AGENT = AgentId("*")
"""In place of an agent's id: whichever agent a sidecar says it is."""


def agent_scope(agent: AgentId) -> str:
    """The scope of being this agent: ``agent:<id>``."""
    return AGENT_PREFIX + agent


TERMINAL = frozenset({TaskState.DONE, TaskState.DEAD, TaskState.CANCELLED})
"""States that only an explicit requeue leaves."""
LEASED = frozenset({TaskState.ASSIGNED, TaskState.WORKING, TaskState.BLOCKED})
"""States in which an agent may hold the task (a parked blocked task has no lease)."""

CHECKS = "checks"
"""The capability of agents that run registered checks. It is exclusive: they are given checks and nothing else."""

TASK_WORDS = {"pending": "queued", "in_progress": "working", "completed": "done", "dead_letter": "dead"}
"""Words of older systems accepted for states on input."""
LANE_WORDS = {"critical": "urgent", "medium": "normal"}
"""Words of older systems accepted for lanes on input."""
NO_CHANGE_NEEDED = frozenset({TaskType.RESEARCH, TaskType.PLAN, TaskType.REVIEW, TaskType.CHECK})
"""Task types that succeed without a commit."""
