"""What the journal of an agent remembers: one frozen value per step of an assignment's life.

Replaying the records of an assignment in order gives back everything the holder must know after a crash. A record is
durable before the effect that follows it: ``assigned`` before ``accept`` is sent, ``woken`` before the shim is spawned,
``commanded`` before a control is obeyed or answered, ``result`` before the result is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import orjson
from pydantic import Field, TypeAdapter

from hub.ids import LeaseEpoch, TaskId
from hub.wire.frames import Control, Result
from hub.wire.spec import Spec, VerificationReport
from sidecar.runtimes.base import RunEnd

RECORD_BYTES = 4 * 1024 * 1024
"""Nothing larger is ever written."""
SEEN_CONTROLS = 1024
"""How many control ids are remembered. The hub repeats only unanswered ones, of which a task has few."""

Cause = Literal["first", "no_change", "dirty", "checks"]
"""Why a run was started: the first of its assignment, or what it is to correct."""


class RecordError(ValueError):
    """A record could not be read back, so it must not be written: nothing was, and whatever it reports did not happen."""

    code = "unwritable_record"
    retryable = True


class Key(NamedTuple):
    """An assignment: the task and the fence under which this sidecar holds it."""

    task: TaskId
    lease_epoch: LeaseEpoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Every record names its assignment."""

    task: TaskId
    lease_epoch: LeaseEpoch

    @property
    def key(self) -> Key:
        """The assignment it is about."""
        return Key(self.task, self.lease_epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned(Record):
    """The hub offered it; about to be accepted."""

    k: Literal["assigned"] = "assigned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Record):
    """The lease is committed at the hub; work may begin."""

    k: Literal["accepted"] = "accepted"
    spec: Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Woken(Record):
    """A shim for this run is about to be spawned. ``round`` counts from 0; corrective rounds follow."""

    k: Literal["woken"] = "woken"
    run_id: str
    round: int
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited(Record):
    """The run is over and its whole process tree is dead. ``stopped`` is what the shim says ended it, if not the agent."""

    k: Literal["exited"] = "exited"
    run_id: str
    stopped: str | None
    end: RunEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified(Record):
    """The checks ran on what the last run left."""

    k: Literal["verified"] = "verified"
    report: VerificationReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed(Record):
    """The branch, and the salvage if there is one, are at the remote."""

    k: Literal["pushed"] = "pushed"
    head_sha: str | None
    salvage_ref: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Concluded(Record):
    """The result as it is sent until the hub acknowledges it."""

    k: Literal["result"] = "result"
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Commanded(Record):
    """A control that is about to take effect; the same ``cid`` never does twice."""

    k: Literal["commanded"] = "commanded"
    control: Control


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked(Record):
    """Its question stayed open too long: the agent is about to be stopped and the task given back."""

    k: Literal["parked"] = "parked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed(Record):
    """Settled with the hub; nothing about it is kept but the ids of its controls."""

    k: Literal["removed"] = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Ids of controls obeyed in assignments that are gone; written when the journal is compacted."""

    k: Literal["seen"] = "seen"
    cids: tuple[int, ...]


JournalRecord = Assigned | Accepted | Woken | Exited | Verified | Pushed | Concluded | Commanded | Parked | Removed | Seen
_record: TypeAdapter[JournalRecord] = TypeAdapter(Annotated[JournalRecord, Field(discriminator="k")])


def encode(record: JournalRecord) -> bytes:
    """One record as JSON; raises :class:`RecordError` for one that is too large or that :func:`decode` would refuse.

    A dataclass holds whatever it is given, and a number JSON cannot express becomes ``null`` on the way: without this check
    the agent would find out at its next start, when it is too late.
    """
    try:
        data = orjson.dumps(record)
        decode(data)
    except (TypeError, ValueError) as fault:  # orjson's and pydantic's
        raise RecordError(f"a record {record.k!r} could not be read back: {str(fault)[:1000]}") from fault
    if len(data) > RECORD_BYTES:
        raise RecordError(f"a record {record.k!r} of {len(data)} bytes is over the limit of {RECORD_BYTES}")
    return data


def decode(data: bytes) -> JournalRecord:
    """The record of some bytes; raises ValueError (pydantic's) for anything else."""
    return _record.validate_json(data, strict=True)
