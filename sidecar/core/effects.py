"""The holder's vocabulary: what can happen to it and what it can ask for. Values only.

Effects are done in the order given, across all events: a ``Write`` is durable before anything after it happens. The
exceptions are the :data:`IMMEDIATE` ones, which depend on no record and must not wait for a slow disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hub.wire.frames import FromHub, FromSidecar, Result
from hub.wire.spec import VerificationReport
from sidecar.core.records import Cause, Exited, JournalRecord, Key


class StopReason(StrEnum):
    """Why work is stopped from outside. The first reason stays."""

    CANCEL = "cancel"
    INTERRUPT = "interrupt"
    LOST = "lost"
    """The hub says that the lease is not ours any more."""
    PARK = "park"
    DRAIN = "drain"


# --- what happens


@dataclass(frozen=True, slots=True)
class Connected:
    """A socket is open; nothing was sent on it yet."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The socket is gone."""


@dataclass(frozen=True, slots=True)
class Received:
    """The hub sent a frame."""

    frame: FromHub


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; :attr:`Holder.due_us` says when this is next needed."""


@dataclass(frozen=True, slots=True)
class RunWanted:
    """The work is ready for a run. Answered by ``Wake`` as soon as the lease allows it."""

    key: Key
    run_id: str
    round: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class RunExited:
    """A run ended."""

    record: Exited


@dataclass(frozen=True, slots=True)
class QuestionAsked:
    """The agent asked something, or a re-attached run was read again from its beginning."""

    key: Key
    qid: str
    text: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NoteTaken:
    """Something worth showing to people; only the latest is sent."""

    key: Key
    note: str


@dataclass(frozen=True, slots=True)
class Checked:
    """Verification is done."""

    key: Key
    report: VerificationReport


@dataclass(frozen=True, slots=True)
class WorkPushed:
    """What was worth keeping is at the remote."""

    key: Key
    head_sha: str | None
    salvage_ref: str | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The work has a result."""

    key: Key
    result: Result


@dataclass(frozen=True, slots=True)
class ParkReady:
    """A parked assignment's agent is stopped and its work is safe."""

    key: Key


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no new work and give back what was not started."""

    stop_agents: bool


@dataclass(frozen=True, slots=True)
class Leave:
    """Say goodbye."""


Happening = (
    Connected | Disconnected | Received | Tick | RunWanted | RunExited | QuestionAsked | NoteTaken | Checked | WorkPushed
    | Finished | ParkReady | Drain | Leave
)  # fmt: skip


# --- what to do


@dataclass(frozen=True, slots=True)
class Write:
    """Append to the journal and make it durable."""

    record: JournalRecord


@dataclass(frozen=True, slots=True)
class Send:
    """Hand a frame to the socket; it may get lost."""

    frame: FromSidecar


@dataclass(frozen=True, slots=True)
class SendNow:
    """Like ``Send``, ahead of everything that waits for the disk: beats."""

    frame: FromSidecar


@dataclass(frozen=True, slots=True)
class Begin:
    """Start this assignment's work in this process, at whatever phase it is."""

    key: Key


@dataclass(frozen=True, slots=True)
class Wake:
    """Start the agent now; it is asked to stop at ``soft_us`` and dead at ``hard_us`` (boot clock)."""

    key: Key
    run_id: str
    soft_us: int
    hard_us: int


@dataclass(frozen=True, slots=True)
class Extend:
    """Move the deadline of a running agent."""

    key: Key
    soft_us: int
    hard_us: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End the work: its agent, if one runs, or the wait for one."""

    key: Key
    reason: StopReason


@dataclass(frozen=True, slots=True)
class Answer:
    """Give the agent the answer to its question; ``key_of_send`` makes a repetition harmless."""

    key: Key
    key_of_send: str
    qid: str
    text: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """End the work without any result: it never woke an agent and goes back to the hub."""

    key: Key


@dataclass(frozen=True, slots=True)
class Forget:
    """The assignment is settled: its run directories and its workspace may go."""

    key: Key


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the socket: the hub does not answer."""

    reason: str


Effect = Write | Send | SendNow | Begin | Wake | Extend | Stop | Answer | Abandon | Forget | Drop
IMMEDIATE = (SendNow, Extend, Drop)
