"""What the scheduler decided: rows to write, effects and answers to publish once they are written.

Effects are values in the scheduler's own words; the doors translate them into frames. Nothing here leaves the process before the
commit of its group (invariant I6).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hub.core.errors import Refused
from hub.core.rows import EventRow, Row
from hub.ids import (
    Access,
    AgentId,
    ControlKind,
    HeldVerdict,
    Lane,
    LeaseEpoch,
    SessionEpoch,
    TaskId,
    TaskState,
    Verdict,
)

# ── effects: what a session is to be told ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class PushAssign:
    """Offer the task to its holder."""

    n: TaskId
    lease_epoch: LeaseEpoch
    lane: Lane
    repo: str | None
    access: Access
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantLease:
    """The lease is committed: send ``accepted`` with the spec hydrated from the store. ``re`` is the accept it answers, if one."""

    n: TaskId
    lease_epoch: LeaseEpoch
    re: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """The assignment is not this session's."""

    n: TaskId
    lease_epoch: LeaseEpoch
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRenewed:
    """One line of a ``beaten`` answer."""

    n: TaskId
    lease_epoch: LeaseEpoch
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Beaten:
    """Answer to a beat."""

    leases: tuple[LeaseRenewed, ...]
    sent_mono: int
    re: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AckResult:
    """The verdict on a result."""

    n: TaskId
    lease_epoch: LeaseEpoch
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class SendControl:
    """A control, kept in its row until noted."""

    cid: int
    n: TaskId
    lease_epoch: LeaseEpoch
    kind: ControlKind
    qid: str | None
    mode: str | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Okay:
    """The frame ``re`` was obeyed (or had been before)."""

    re: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAnswer:
    """The verdict on one item named in hello."""

    n: TaskId
    lease_epoch: LeaseEpoch
    verdict: HeldVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSession:
    """Close the socket of a session that is over (code of ``hub.wire.codes``)."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The session asked for by this greeting is open; first of everything the session is told."""

    greeting: int
    verdicts: tuple[HeldAnswer, ...]


Effect = Welcome | PushAssign | GrantLease | Revoke | Beaten | AckResult | SendControl | Okay | CloseSession


# ── answers: what the caller is told ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedTask:
    """One accepted submission; ``created`` is False for an idempotent repeat."""

    n: TaskId
    state: TaskState
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """Answer to a batch, in its order."""

    tasks: tuple[SubmittedTask, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAnswer:
    """Answer to a command about one task. ``pending`` = it ends when the agent has stopped (HTTP 202)."""

    n: TaskId
    state: TaskState
    lease_epoch: LeaseEpoch
    pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """How many held tasks were released, why none if so, and whether more are held that the same command releases next."""

    released: int
    why: str = ""
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session is open."""

    agent: AgentId
    epoch: SessionEpoch


Reply = Submitted | TaskAnswer | Dispatched | Session | None


@dataclass(slots=True)
class Decision:
    """Collected while one command is applied.

    ``tasks`` are the numbers whose rows this decision writes; the conductor uses them to know what is not committed yet.
    ``answer`` is what the caller hears (a refusal is an answer, too), ``claims`` how many tasks were given out.
    ``early`` marks the one exception to commit-before-publish: a ``beaten`` that only says ok about leases no uncommitted
    decision touches.
    """

    rows: list[Row] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    effects: list[tuple[AgentId, SessionEpoch, Effect]] = field(default_factory=list)
    answer: Reply | Refused = None
    tasks: set[int] = field(default_factory=set)
    early: tuple[int, ...] | None = None
    claims: int = 0
