"""Every frame of ``agentcom.v1`` as a frozen value, valid by construction once decoded.

The written specification is PROTOCOL.md beside this file; a frame's docstring names its direction (S = sidecar, H = hub), answer and
idempotency key. Unknown fields from a peer are ignored, so both sides can grow. Nothing here knows sockets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hub.ids import (
    Access,
    AgentState,
    ControlKind,
    HeldVerdict,
    Lane,
    LeaseEpoch,
    Outcome,
    Phase,
    SessionEpoch,
    TaskId,
    Verdict,
)
from hub.wire.spec import (
    Commit,
    Count,
    Digest,
    Line,
    Name,
    Note,
    RunError,
    Sha,
    Spec,
    Text4K,
    Text64K,
    Usage,
    VerificationReport,
)

Epoch = Annotated[LeaseEpoch, Field(ge=0, le=2**53)]
Session = Annotated[SessionEpoch, Field(ge=0, le=2**53)]
Task = Annotated[TaskId, Field(ge=1, le=2**53)]
AgentName = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,64}$")]
Registered = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""The name of a project or a capability, as tasks may name it (:data:`hub.ids.NAME`)."""
Mark = Annotated[str, Field(pattern=r"^[!-~]{1,64}$")]
"""A name that machines give: printable ASCII without spaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Fields every frame may carry: own id, id answered, session epoch, W3C trace context."""

    id: Count | None = None
    re: Count | None = None
    e: Session | None = None
    tp: Annotated[str, Field(max_length=64)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeInfo:
    """A runtime installed beside a sidecar and what it can do (``caps``)."""

    name: Mark
    version: Line = ""
    caps: Annotated[tuple[Mark, ...], Field(max_length=32)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the machine of a sidecar is; ``boot`` names the present one of its boots, within which clocks can be compared."""

    hostname: Line = ""
    os: Line = ""
    cpus: Count = 0
    memory_bytes: Count = 0
    boot: Line = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An assignment the sidecar holds and has no result for yet."""

    task: Task
    lease_epoch: Epoch
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A result the sidecar has journalled and the hub has not acknowledged."""

    task: Task
    lease_epoch: Epoch
    sha256: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Envelope):
    """S→H, first frame. Answer: ``welcome``. Key: install_id + boot_id.

    ``versions`` lists protocol versions, best first; ``build`` is the software version; ``sent_mono`` is the boot clock at sending.
    """

    t: Literal["hello"] = "hello"
    versions: Annotated[tuple[Name, ...], Field(min_length=1, max_length=8)]
    agent_id: AgentName
    install_id: Mark
    boot_id: Mark
    build: Line = ""
    name: Line = ""
    capabilities: Annotated[tuple[Registered, ...], Field(max_length=64)] = ()
    projects: Annotated[tuple[Registered, ...], Field(max_length=64)] = ()
    runtimes: Annotated[tuple[RuntimeInfo, ...], Field(max_length=16)] = ()
    host: HostFacts = HostFacts()
    held: Annotated[tuple[Held, ...], Field(max_length=16)] = ()
    outbox: Annotated[tuple[Outgoing, ...], Field(max_length=256)] = ()
    quiet: bool = False
    takeover: bool = False
    sent_mono: Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAnswer:
    """The hub's verdict on one item named in ``hello``."""

    task: Task
    lease_epoch: Epoch
    verdict: HeldVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Numbers the hub chooses for the link (milliseconds and bytes)."""

    accept_ms: Count = 30_000
    resend_ms: Count = 10_000
    blocked_ms: Count = 600_000
    frame_bytes: Count = 262_144
    inline_bytes: Count = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome(Envelope):
    """H→S, answers ``hello``. From now on the sidecar's frames carry ``e = session_epoch``."""

    t: Literal["welcome"] = "welcome"
    session_epoch: Session
    hub_id: Name
    hub_epoch: Count
    build: Line = ""
    beat_ms: Count
    lease_ms: Count
    limits: Limits = Limits()
    verdicts: Annotated[tuple[HeldAnswer, ...], Field(max_length=512)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign(Envelope):
    """H→S. Answer: ``accept`` or ``decline``. Key: task + lease_epoch. Small: the spec follows in ``accepted``."""

    t: Literal["assign"] = "assign"
    task: Task
    lease_epoch: Epoch
    lane: Lane
    repo: Name | None = None
    access: Access = Access.WRITE
    runtime: Name | None = None
    needs: Annotated[tuple[Name, ...], Field(max_length=64)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept(Envelope):
    """S→H, after the journal holds the assignment. Answer: ``accepted`` or ``revoke``."""

    t: Literal["accept"] = "accept"
    task: Task
    lease_epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Decline(Envelope):
    """S→H. ``code`` busy, quiet, rate_limited, no_runtime, no_workspace …; answer ``ok``."""

    t: Literal["decline"] = "decline"
    task: Task
    lease_epoch: Epoch
    code: Name
    retry_after_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Envelope):
    """H→S: the lease is committed; only now may the agent be woken. ``spec_ref`` replaces a spec beyond 64 KiB."""

    t: Literal["accepted"] = "accepted"
    task: Task
    lease_epoch: Epoch
    lease_ms: Count
    spec: Spec | None = None
    spec_ref: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke(Envelope):
    """H→S: this assignment is not (any more) yours; drop it."""

    t: Literal["revoke"] = "revoke"
    task: Task
    lease_epoch: Epoch
    code: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseBeat:
    """A lease the sidecar still holds; ``checkpoint`` is kept for the next attempt's context."""

    task: Task
    lease_epoch: Epoch
    phase: Phase
    checkpoint: Text4K | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat(Envelope):
    """S→H every ``beat_ms``. Answer: ``beaten`` with the same ``sent_mono``. Monotone: only the latest counts."""

    t: Literal["beat"] = "beat"
    leases: Annotated[tuple[LeaseBeat, ...], Field(max_length=16)] = ()
    agent_state: AgentState = AgentState.IDLE
    quiet: bool = False
    note: Line = ""
    sent_mono: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseAnswer:
    """``ok``: extended by lease_ms from when the beat was sent; not ok: lost, stop the run, keep journal and outbox."""

    task: Task
    lease_epoch: Epoch
    ok: bool
    lease_ms: Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Beaten(Envelope):
    """H→S, answers ``beat``."""

    t: Literal["beaten"] = "beaten"
    leases: Annotated[tuple[LeaseAnswer, ...], Field(max_length=16)] = ()
    sent_mono: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Envelope):
    """S→H, droppable, latest wins, at most one a second per task. No answer."""

    t: Literal["progress"] = "progress"
    task: Task
    lease_epoch: Epoch
    n: Count
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    note: Note = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Envelope):
    """S→H: the agent asks; the task is blocked. Answer ``ok``, later ``control`` of kind answer. Key: task + lease_epoch + qid."""

    t: Literal["question"] = "question"
    task: Task
    lease_epoch: Epoch
    qid: Name
    text: Annotated[str, Field(min_length=1, max_length=4096)]
    options: Annotated[tuple[Line, ...], Field(max_length=16)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Envelope):
    """S→H: how the run ended. Answer: ``result_ack``; sent again until acknowledged. Key: task + lease_epoch.

    ``sha256`` is :func:`hub.wire.codec.result_digest` of the body. ``output_ref`` names a blob when the output is over 64 KiB.
    ``salvage_ref`` is a pushed ref with work that was left uncommitted.
    """

    t: Literal["result"] = "result"
    task: Task
    lease_epoch: Epoch
    outcome: Outcome
    error: RunError | None = None
    output: Text64K = ""
    output_ref: Digest | None = None
    branch: Annotated[str, Field(max_length=255)] | None = None
    base_sha: Sha | None = None
    head_sha: Sha | None = None
    commits: Annotated[tuple[Commit, ...], Field(max_length=256)] = ()
    verification: VerificationReport | None = None
    usage: Usage | None = None
    salvage_ref: Annotated[str, Field(max_length=255)] | None = None
    conversation_id: Line | None = None
    sha256: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultAck(Envelope):
    """H→S, after the commit. The sidecar deletes its journal entry only on this."""

    t: Literal["result_ack"] = "result_ack"
    task: Task
    lease_epoch: Epoch
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack(Envelope):
    """S→H: returns work without a result. Answer ``ok``.

    ``unstarted`` and ``drain`` never woke the agent; ``parked`` stopped it because its question stayed open.
    """

    t: Literal["give_back"] = "give_back"
    task: Task
    lease_epoch: Epoch
    reason: Literal["unstarted", "drain", "parked"]
    conversation_id: Line | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Control(Envelope):
    """H→S, kept in a row until answered and sent again after ``welcome``. Answer ``ok``, after the sidecar journalled ``cid``."""

    t: Literal["control"] = "control"
    cid: Count
    task: Task
    lease_epoch: Epoch
    kind: ControlKind
    qid: Name | None = None
    mode: Name | None = None
    text: Text4K = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye(Envelope):
    """S→H: a deliberate goodbye. Answer ``ok``."""

    t: Literal["bye"] = "bye"
    reason: Line = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goaway(Envelope):
    """H→S: the hub will close; the link stays up and beats are answered until then."""

    t: Literal["goaway"] = "goaway"
    reason: Line
    close_in_ms: Count
    reconnect_after_ms: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Ok(Envelope):
    """Either way: done, nothing more to say. ``re`` names the frame answered."""

    t: Literal["ok"] = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One fault of a refused frame: where, stable type, words."""

    loc: Annotated[str, Field(max_length=256)]
    type: Annotated[str, Field(max_length=64)]
    msg: Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Error(Envelope):
    """Either way: refuses the frame ``re``. ``fatal`` announces a close."""

    t: Literal["error"] = "error"
    code: Name
    message: Note = ""
    fatal: bool = False
    errors: Annotated[tuple[FieldError, ...], Field(max_length=32)] = ()


FromSidecar = Hello | Accept | Decline | Beat | Progress | Question | Result | GiveBack | Bye | Ok | Error
FromHub = Welcome | Assign | Accepted | Revoke | Beaten | ResultAck | Control | Goaway | Ok | Error
Frame = FromSidecar | FromHub

LATER = frozenset(
    {
        "transcript",
        "mail",
        "mail_ack",
        "send",
        "subscribe",
        "unsubscribe",
        "publish",
        "history",
        "query",
        "event",
        "token",
    }
)
"""Frame types of the protocol that this version answers with ``error{code: "unsupported"}``, like any unknown type."""
