"""Everything that can be asked of the scheduler, as frozen values.

A command carries all it needs: who asks (``actor``), committed facts the scheduler cannot read itself, and nothing from a clock. The
moment and the random jitter arrive beside it in a :class:`Stamp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hub.ids import (
    Access,
    AgentId,
    AgentState,
    Lane,
    LeaseEpoch,
    Outcome,
    Phase,
    SessionEpoch,
    TaskId,
    TaskState,
    TaskType,
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a command is applied: monotonic and UTC microseconds, and a jitter in [0, 1)."""

    mono: int
    wall: int
    jitter: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Root of the commands. ``actor`` is the authenticated identity that asked."""

    actor: str = "hub"


# ── submitting and steering tasks ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """``needs`` is a task number, or a ``ref`` of the same batch; ``policy`` when it fails: skip, run or fail."""

    needs: TaskId | str
    policy: str = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A validated submission. ``spec`` holds the descriptive part as JSON text; the scheduler never looks into it.

    ``body_hash`` identifies the body for idempotency; nobody looks at it without a key. ``ref`` is a name inside the batch, for
    dependencies.
    """

    title: str
    spec: str
    body_hash: str
    ref: str | None = None
    type: TaskType = TaskType.TASK
    lane: Lane = Lane.NORMAL
    project: str = "default"
    repo: str | None = None
    base: str | None = None
    access: Access = Access.WRITE
    needs_change: bool | None = None
    capabilities: tuple[str, ...] = ()
    assign_to: AgentId | None = None
    not_before: int | None = None
    deadline: int | None = None
    queue_ttl_us: int | None = None
    depends_on: tuple[Dependency, ...] = ()
    parent: TaskId | None = None
    max_tries: int = 3
    hold: bool = False
    idempotency_key: str | None = None
    unique_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Committed rows a command may need; memory overrides them.

    ``states`` – terminal states of tasks that are not live. ``idempotent`` – (key → (n, hash)) of earlier submissions.
    ``task`` – full row and dependency rows of a terminal task. ``attempt`` – the attempt row a result belongs to.
    ``salvage`` – what was kept of that lease, newest first.
    """

    states: Mapping[int, TaskState] = field(default_factory=dict)
    idempotent: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    task: Mapping[str, Any] | None = None
    deps: tuple[Mapping[str, Any], ...] = ()
    attempt: Mapping[str, Any] | None = None
    salvage: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit(Command):
    """Submit one batch atomically (1–1000 tasks). Answer: :class:`~hub.core.decision.Submitted`."""

    tasks: tuple[NewTask, ...]
    facts: Facts = Facts()


@dataclass(frozen=True, slots=True, kw_only=True)
class OnTask(Command):
    """Root of the commands about one task."""

    n: TaskId


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(OnTask):
    """Keep a scheduled or queued task from running."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(OnTask):
    """Undo a hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch(Command):
    """Release held tasks of a project and lane (``None`` = all), in lane order, a bounded number at a time.

    Answer: :class:`~hub.core.decision.Dispatched`, which says whether to ask again.
    """

    project: str | None = None
    lane: Lane | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign(OnTask):
    """Pin a task to an agent, or to the least busy eligible one (``agent=None``). ``force`` stops a running attempt first."""

    agent: AgentId | None = None
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(OnTask):
    """Cancel; of a leased task sets ``stopping`` and ends when the sidecar has stopped everything."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete(OnTask):
    """Done by a person; from working only with ``force``, which stops the agent first."""

    reason: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue(OnTask):
    """A terminal task starts a new generation."""

    facts: Facts = Facts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Commits of a salvaged lease, as the forge has them now."""

    branch: str
    base_sha: str
    head_sha: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptSalvage(OnTask):
    """A person adopts what was kept of ``lease_epoch``, under a new fence. ``work`` is its commits, if it has any.

    ``sha256`` names the record they were looked up for: a lease can leave several. ``force`` stops a running attempt first.
    Idempotent.
    """

    lease_epoch: LeaseEpoch
    sha256: str | None = None
    work: Work | None = None
    force: bool = False
    facts: Facts = Facts()


@dataclass(frozen=True, slots=True, kw_only=True)
class DropSalvage(OnTask):
    """Nobody needs what was kept of ``lease_epoch``: the next attempt is not told of it. Idempotent."""

    lease_epoch: LeaseEpoch
    reason: str
    facts: Facts = Facts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(OnTask):
    """Answer an open question (the only one, if ``qid`` is None)."""

    text: str
    qid: str | None = None


# ── from the gatekeeper ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class IntendMerge(OnTask):
    """From here a cancel answers 409 ``merging``; refused unless in review at this fence. Idempotent."""

    lease_epoch: LeaseEpoch


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonMerge(OnTask):
    """The intended merge did not happen (the base moved): cancelling is possible again. Idempotent."""

    lease_epoch: LeaseEpoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged(OnTask):
    """The change is on its base branch: in_review → done. Idempotent."""

    lease_epoch: LeaseEpoch
    sha: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rework(OnTask):
    """in_review → queued with feedback, starting from ``head_sha``; refused with code ``rework_limit`` after three. Idempotent by fence."""

    lease_epoch: LeaseEpoch
    feedback: str
    branch: str | None = None
    head_sha: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bury(OnTask):
    """in_review → dead: the change was rejected for good. Idempotent by fence."""

    lease_epoch: LeaseEpoch
    cause: str


# ── agents by hand ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseAgent(Command):
    """No new work for this agent until it is resumed."""

    agent: AgentId


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeAgent(Command):
    """Ends a pause and a quarantine."""

    agent: AgentId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseAgent(Command):
    """Its machine is gone for good, or says itself that it runs nothing any more (``cause``)."""

    agent: AgentId
    cause: str = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAgent(Command):
    """It is no part of this hub any more."""

    agent: AgentId


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry(Command):
    """The committed projects and repositories changed: {project: (paused, dispatch)}, {repo: paused}."""

    projects: Mapping[str, tuple[bool, str]]
    repos: Mapping[str, bool]


# ── from a sidecar's link ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldItem:
    """An assignment the sidecar says it holds (``phase``) or has a result for (``sha256``)."""

    task: TaskId
    lease_epoch: LeaseEpoch
    phase: Phase | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Command):
    """A sidecar opens a session. Answer: :class:`~hub.core.decision.Session`; refused 409 ``name_in_use``.

    ``greeting`` is the door's number for the link that said it; the welcome names it again. ``sent_mono`` is the machine's boot clock
    at sending (0: unknown), to be compared with others of the same ``host_boot`` only. ``admitted_at`` is when its token was
    given out (microseconds UTC): an agent that was removed comes back with a newer one only.
    """

    agent: AgentId
    install_id: str
    boot_id: str
    name: str = ""
    capabilities: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    runtimes: str = "[]"
    host: str = "{}"
    held: tuple[HeldItem, ...] = ()
    outbox: tuple[HeldItem, ...] = ()
    quiet: bool = False
    admitted_at: int = 0
    greeting: int = 0
    host_boot: str = ""
    sent_mono: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FromSession(Command):
    """Root of what a session says; with another epoch than the newest it changes nothing (invariant I8)."""

    agent: AgentId
    session_epoch: SessionEpoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(FromSession):
    """The socket is gone; leases run on."""

    bye: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept(FromSession):
    """The assignment is journalled. ``re`` is the frame's id: the grant names it, for the lease is counted from when it was sent."""

    n: TaskId
    lease_epoch: LeaseEpoch
    re: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decline(FromSession):
    """The assignment is refused."""

    n: TaskId
    lease_epoch: LeaseEpoch
    code: str
    retry_after_ms: int = 0
    re: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHeld:
    """A lease named in a beat."""

    task: TaskId
    lease_epoch: LeaseEpoch
    phase: Phase
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat(FromSession):
    """Renews every lease it names. ``sent_mono`` is echoed."""

    leases: tuple[LeaseHeld, ...] = ()
    agent_state: AgentState = AgentState.IDLE
    quiet: bool = False
    note: str = ""
    sent_mono: int = 0
    re: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(FromSession):
    """Latest wins; kept in memory only."""

    n: TaskId
    lease_epoch: LeaseEpoch
    seq: int
    percent: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(FromSession):
    """The agent asks a question."""

    n: TaskId
    lease_epoch: LeaseEpoch
    qid: str
    text: str
    options: str = "[]"
    re: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(FromSession):
    """A result. JSON texts as they will be stored; ``has_change`` = commits and a head; ``passed`` None when nothing was verified.

    ``salvage_ref`` is the branch of what its agent left uncommitted.
    """

    n: TaskId
    lease_epoch: LeaseEpoch
    outcome: Outcome
    sha256: str
    has_change: bool = False
    passed: bool | None = None
    error_class: str | None = None
    error_code: str | None = None
    error_message: str = ""
    retry_after_ms: int | None = None
    output: str = ""
    output_ref: str | None = None
    branch: str | None = None
    base_sha: str | None = None
    head_sha: str | None = None
    commits: str = "[]"
    verification: str | None = None
    usage: str | None = None
    error: str | None = None
    conversation_id: str | None = None
    salvage_ref: str | None = None
    body: str = "{}"
    facts: Facts = Facts()


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack(FromSession):
    """Work returned without a result: unstarted, drain or parked."""

    n: TaskId
    lease_epoch: LeaseEpoch
    reason: str
    conversation_id: str | None = None
    re: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlNoted(FromSession):
    """The sidecar journalled this control."""

    cid: int


# ── time and life of the hub ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick(Command):
    """Fire every timer that is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyPass(Command):
    """Match everything again. It must never find anything: what it moves is counted and logged as a defect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain(Command):
    """Stop claiming; everything else goes on."""
