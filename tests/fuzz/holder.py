"""A hub that says anything, in any order: the holder never raises, and an agent is woken only for what was accepted and recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hub.ids import ControlKind, HeldVerdict, HubEpoch, Lane, LeaseEpoch, Outcome, Phase, SessionEpoch, TaskId, Verdict
from hub.wire import frames
from hub.wire.codec import encode
from hub.wire.spec import Spec
from sidecar.core import effects as fx
from sidecar.core import records
from sidecar.core.holder import Holder
from sidecar.core.records import JournalRecord, Key
from sidecar.runtimes.base import RunEnd
from tests.fuzz.inputs import Bytes

HELLO = frames.Hello(versions=("agentcom.v1",), agent_id="a", install_id="i", boot_id="b")
SHA = "ab" * 32
FAR_US = 1 << 50

SPANS_MS = (18_000, 18_000, 18_000, 2_000, 1, 0, 2**53)
GOOD = 0
"""The number of a step with which the hub says what a sane one would."""
WORK = ("wanted", "wanted", "wanted", "exited", "asked", "finished", "parked")
LINK = ("connect", "connect", "welcome", "welcome", "disconnect", "tick", "restart", "drain", "leave")
SAID = (
    "accepted",
    "assign",
    "assign",
    "accepted",
    "accepted",
    "beaten",
    "revoke",
    "acknowledged",
    "control",
    "ok",
    "error",
    "goaway",
)


KINDS = (*WORK, *LINK, *SAID)


@dataclass(frozen=True)
class Step:
    """One thing that happens. ``wrong``: under a session, or as the answer to a frame, that is not the newest."""

    kind: str
    task: int = 1
    epoch: int = 1
    number: int = 0
    wrong: int = 0

    @property
    def ids(self) -> dict[str, Any]:
        return {"task": TaskId(self.task), "lease_epoch": LeaseEpoch(self.epoch)}

    @property
    def span_ms(self) -> int:
        return SPANS_MS[self.number % len(SPANS_MS)]

    def one_of(self, words: Any) -> Any:
        return list(words)[self.number % len(list(words))]


def steps(data: bytes) -> Iterator[Step]:
    """A walk: four bytes are a step, of which most fit to what was before."""
    source = Bytes(data)
    while source.more:
        kind, where, number, wrong = source.take(4).ljust(4, b"\0")
        yield Step(
            KINDS[kind % len(KINDS)], task=(1, 1, 1, 2)[where % 4], epoch=(1, 1, 0, 2)[where // 4 % 4], number=number,
            wrong=max(0, wrong % 8 - 5),
        )  # fmt: skip


@dataclass
class World:
    """What the effects of a holder lead to, done at once and in order. ``journal`` outlives it."""

    now: int = 1_000_000
    journal: list[JournalRecord] = field(default_factory=list)
    begun: set[Key] = field(default_factory=set)
    running: dict[Key, str] = field(default_factory=dict)
    holder: Holder = field(default_factory=lambda: Holder(HELLO, runtime="mock"))
    sent: list[frames.FromSidecar] = field(default_factory=list)
    sessions: int = 0

    def take(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            match effect:
                case fx.Write(record=record):
                    records.decode(records.encode(record))
                    self._remember(record)
                case fx.Send(frame=frame) | fx.SendNow(frame=frame):
                    encode(frame)
                    self.sent.append(frame)
                case fx.Begin(key=key):
                    self.begun.add(key)
                case fx.Wake(key=key, run_id=run, soft_us=soft_us, hard_us=hard_us):
                    kinds = [record.k for record in self.journal if not isinstance(record, records.Seen) and record.key == key]
                    assert kinds[-1] == "woken" and "accepted" in kinds, kinds
                    assert self.now < soft_us <= hard_us
                    assert key in self.begun
                    self.running[key] = run
                case fx.Forget(key=key) | fx.Abandon(key=key):
                    self.begun.discard(key)
                    self.running.pop(key, None)

    def _remember(self, record: JournalRecord) -> None:
        if isinstance(record, records.Removed):
            self.journal = [old for old in self.journal if isinstance(old, records.Seen) or old.key != record.key]
        else:
            self.journal.append(record)

    def happen(self, event: fx.Happening) -> None:
        self.take(self.holder.apply(event, self.now))
        assert sum(held.result is None for held in self.holder._holdings.values()) <= 1, "one at a time"

    def restart(self) -> None:
        """The process dies; the journal and the shims stay."""
        self.begun.clear()
        self.holder = Holder(HELLO, runtime="mock")
        self.take(self.holder.restore(self.journal))

    def hear(self, step: Step) -> None:
        """The hub says something, most often what fits."""
        if step.kind == "welcome":
            self.sessions += 1
        newest = self.sent[-1 - step.wrong].id if len(self.sent) > step.wrong else None
        envelope: dict[str, Any] = {"re": newest, "e": SessionEpoch(max(0, (self.holder._session.epoch or 0) - step.wrong))}
        self.happen(fx.Received(self._frame(step, envelope)))

    def _frame(self, step: Step, envelope: dict[str, Any]) -> frames.FromHub:
        match step.kind:
            case "welcome":
                held = frames.HeldAnswer(**step.ids, verdict=step.one_of(HeldVerdict))
                limits = frames.Limits(resend_ms=step.span_ms, blocked_ms=step.span_ms) if step.wrong else frames.Limits()
                session = SessionEpoch(max(1, self.sessions - step.wrong))
                return frames.Welcome(
                    re=envelope["re"], session_epoch=session, hub_id="h", hub_epoch=HubEpoch(1), beat_ms=step.span_ms // 9,
                    lease_ms=step.span_ms, limits=limits, verdicts=(held,),
                )  # fmt: skip
            case "assign":
                runtime = "other" if step.wrong else None
                return frames.Assign(**envelope, **step.ids, lane=step.one_of(Lane), runtime=runtime)
            case "accepted":
                spec = Spec(**step.ids, title="t") if step.wrong < 2 else None
                return frames.Accepted(**envelope, **step.ids, lease_ms=step.span_ms, spec=spec)
            case "beaten":
                beats = [frame.sent_mono for frame in self.sent if isinstance(frame, frames.Beat)]
                lease = frames.LeaseAnswer(**step.ids, ok=step.number % 3 > 0, lease_ms=step.span_ms if step.wrong else None)
                return frames.Beaten(**envelope, leases=(lease,), sent_mono=beats[-1] if beats else step.number)
            case "revoke":
                return frames.Revoke(**envelope, **step.ids, code="expired")
            case "acknowledged":
                return frames.ResultAck(**envelope, **step.ids, verdict=step.one_of(Verdict))
            case "control":
                kind, qid = step.one_of(ControlKind), ("q", None)[step.wrong % 2]
                return frames.Control(**envelope, **step.ids, cid=step.number % 4, kind=kind, qid=qid, text="x")
            case "ok":
                return frames.Ok(**envelope)
            case "error":
                return frames.Error(**envelope, code="malformed", message="x")
            case _:
                return frames.Goaway(**envelope, reason="x", close_in_ms=0, reconnect_after_ms=step.span_ms)

    def work(self, step: str) -> None:
        """The work of one assignment goes on as it does: it wants a run, the run asks or ends, and there is a result."""
        key = next(iter(sorted(self.begun)), None)
        if key is None:
            return
        ids = {"task": key.task, "lease_epoch": key.lease_epoch}
        held = self.holder.holding(key)
        match step:
            case "wanted" if held is not None and held.phase is not Phase.WOKEN:
                number = len(held.runs)
                self.happen(fx.RunWanted(key, f"{key.task}-{key.lease_epoch}-{number}", number, "first"))
            case "asked":
                self.happen(fx.QuestionAsked(key, "q", "which?"))
            case "exited" if key in self.running:
                run = self.running.pop(key)
                self.happen(fx.RunExited(records.Exited(**ids, run_id=run, stopped=None, end=RunEnd(ok=True))))
            case "finished" if key not in self.running:
                self.happen(fx.Finished(key, frames.Result(**ids, outcome=Outcome.SUCCEEDED, sha256=SHA)))
            case "parked" if key not in self.running and held is not None and held.parked:
                self.happen(fx.ParkReady(key))


def holder(data: bytes) -> None:
    """No sequence of frames fails the holder, or wakes what is not accepted."""
    world = World()
    world.happen(fx.Connected())
    world.hear(Step("welcome", number=GOOD))
    for step in steps(data):
        world.now += 300_000
        match step.kind:
            case "connect":
                world.happen(fx.Connected())
                if not step.wrong:
                    world.hear(replace(step, kind="welcome", number=GOOD))
            case "disconnect":
                world.happen(fx.Disconnected())
            case "tick":
                due_us = world.holder.due_us or 0
                world.now = max(world.now, due_us) if due_us < FAR_US and step.wrong else world.now
                world.happen(fx.Tick())
            case "restart":
                world.restart()
            case "drain" if step.wrong:
                world.happen(fx.Drain(step.number % 2 > 0))
            case "leave" if step.wrong:
                world.happen(fx.Leave())
            case kind if kind in WORK:
                world.work(kind)
            case kind if kind in SAID or kind == "welcome":
                world.hear(step)
