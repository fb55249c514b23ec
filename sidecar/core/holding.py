"""What the holder knows of one assignment, and the arithmetic of its lease. Pure.

A lease runs from the moment the last *answered* frame was sent, on the boot clock: 11/12 of it is for working, by 35/36
everything is dead, and the hub gives the task to another only after 4/3, counted from when it received that frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypedDict

from hub.ids import LeaseEpoch, Phase, TaskId
from hub.wire.frames import GiveBack, Held, LeaseBeat, Outgoing, Question, Result
from hub.wire.spec import Spec
from sidecar.core.effects import RunWanted, StopReason
from sidecar.core.records import (
    Accepted,
    Assigned,
    Commanded,
    Concluded,
    Exited,
    JournalRecord,
    Key,
    Parked,
    Pushed,
    Verified,
    Woken,
)

Returning = Literal["unstarted", "drain", "parked"]
"""Why an assignment goes back to the hub without a result."""

_MS = 1000  # microseconds


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as this side may use it. ``anchor_us``: when the last answered frame was sent."""

    anchor_us: int
    lease_ms: int

    @property
    def soft_us(self) -> int:
        """From here on the agent is asked to stop."""
        return self.anchor_us + self.lease_ms * _MS * 11 // 12

    @property
    def hard_us(self) -> int:
        """By now its whole process tree is dead."""
        return self.anchor_us + self.lease_ms * _MS * 35 // 36


class Ids(TypedDict):
    """The two numbers that name an assignment in frames and records."""

    task: TaskId
    lease_epoch: LeaseEpoch


@dataclass(slots=True)
class Asking:
    """A question of the agent. ``answer`` is the control that brought the answer."""

    frame: Question
    asked_us: int
    answered: bool = False


@dataclass(slots=True)
class Holding:
    """One assignment. ``begun``: its work runs in this process. ``returning``: it goes back to the hub without a result."""

    key: Key
    phase: Phase = Phase.ASSIGNED
    spec: Spec | None = None
    lease: Lease | None = None
    begun: bool = False
    wanted: RunWanted | None = None
    stop: StopReason | None = None
    parked: bool = False
    returning: Returning | None = None
    questions: dict[str, Asking] = field(default_factory=dict)
    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By question: the control's id and the text. They outlive the process, the questions are asked again."""
    result: Result | None = None
    runs: list[Woken] = field(default_factory=list)
    last: Exited | None = None
    report: Verified | None = None
    pushed: Pushed | None = None

    def replay(self, record: JournalRecord) -> None:
        """Take in one record: the only way the durable part of this state changes, live and after a crash."""
        match record:
            case Assigned():
                self.phase = Phase.ASSIGNED
            case Accepted(spec=spec):
                self.phase, self.spec = Phase.ACCEPTED, spec
            case Woken():
                self.phase = Phase.WOKEN
                self.runs.append(record)
                self.last = self.report = None
            case Exited():
                self.phase, self.last = Phase.EXITED, record
            case Verified():
                self.phase, self.report = Phase.VERIFIED, record
            case Pushed():
                self.phase, self.pushed = Phase.PUSHED, record
            case Concluded(result=result):
                self.phase, self.result = Phase.RESULT, result
            case Parked():
                self.parked, self.stop = True, self.stop or StopReason.PARK
            case Commanded(control=control):
                if control.kind == "answer":
                    self.answers[control.qid or ""] = (control.cid, control.text)
                elif control.kind in {"cancel", "interrupt"}:
                    self.stop = self.stop or StopReason(control.kind)
            case _:
                pass

    @property
    def woken(self) -> bool:
        """Whether an agent may have run for it."""
        return bool(self.runs)

    @property
    def blocked_since(self) -> int | None:
        """Since when the agent waits for an answer; None when it does not."""
        if self.phase is not Phase.WOKEN:
            return None
        return min((asking.asked_us for asking in self.questions.values() if not asking.answered), default=None)

    @property
    def ids(self) -> Ids:
        """Its two numbers, as every frame and record takes them."""
        return {"task": self.key.task, "lease_epoch": self.key.lease_epoch}

    def held(self) -> Held:
        """As ``hello`` names it."""
        return Held(**self.ids, phase=self.phase)

    def outgoing(self, result: Result) -> Outgoing:
        """As ``hello`` names it once it has a result."""
        return Outgoing(**self.ids, sha256=result.sha256)

    def beat(self) -> LeaseBeat:
        """As ``beat`` names it."""
        return LeaseBeat(**self.ids, phase=self.phase)

    def give_back(self) -> GiveBack:
        """The frame that returns it; only for a holding that is ``returning``."""
        assert self.returning is not None
        return GiveBack(**self.ids, reason=self.returning)

    def renew(self, anchor_us: int, lease_ms: int) -> bool:
        """Count the lease from a frame sent at ``anchor_us``; False when a later one is known already."""
        if self.lease is not None and (anchor_us, lease_ms) <= (self.lease.anchor_us, self.lease.lease_ms):
            return False
        self.lease = Lease(anchor_us, lease_ms)
        return True
