"""The rules of one agent's sidecar: what it holds, until when, and what to do next. Pure.

Events go in with the boot-clock time, effects come out in the order in which they must happen: a record before the
frame, the shim or the answer that depends on it. No clock, no I/O, no randomness, so the same events always give the
same effects. The hub's frames are idempotent here, by (task, lease epoch) or control id, and one of an old session never
counts.

The life of an assignment, by its phases (protocol §4–§7)::

    assign ─ Write ─ accept ─▶ accepted ─ Write ─ Begin ─▶ RunWanted ─ (live lease) Write woken ─ Wake ─▶ RunExited ─ Write
    ─▶ Checked ─ Write ─▶ WorkPushed ─ Write ─▶ Finished ─ Write result ─ result ─▶ result_ack ─ Write removed ─ Forget
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from hub.ids import AgentState, ControlKind, HeldVerdict, Phase
from hub.wire import frames
from sidecar.core import effects as fx
from sidecar.core import records
from sidecar.core.effects import Effect, Happening, StopReason
from sidecar.core.holding import Asking, Holding, Returning
from sidecar.core.records import SEEN_CONTROLS, JournalRecord, Key
from sidecar.core.session import Session
from sidecar.core.unanswered import RESULT_CEILING_US, Slot, Unanswered

_MS = 1000  # microseconds
BUSY_RETRY_MS = 1_000
UNFIT_RETRY_MS = 60_000
NOTE_EVERY_US = 1_000_000
OUTBOX_LIMIT = 256
"""Results that may wait for the hub; beyond, new work is declined (``hello`` can name as many)."""
QUESTION_LIMIT = 64
_BEAT_LEASES = 16


class Holder:
    """The state of one agent. Everything happens through :meth:`apply`; the rest is for reading.

    ``hello`` is the agent's introduction without what it holds; ``runtime`` the name an assignment may ask for.
    """

    def __init__(self, hello: frames.Hello, *, runtime: str) -> None:
        self._hello = hello
        self._runtime = runtime
        self._quiet = False
        self._session = Session()
        self._holdings: dict[Key, Holding] = {}
        self._seen: deque[int] = deque(maxlen=SEEN_CONTROLS)
        self._unanswered = Unanswered()
        self._note: tuple[Key, str] | None = None
        self._note_due_us = 0
        self._notes = 0
        self._effects: list[Effect] = []

    # --- reading

    @property
    def current(self) -> Holding | None:
        """The assignment that is being worked on; there is at most one."""
        return next((held for held in self._holdings.values() if held.result is None), None)

    @property
    def holds_anything(self) -> bool:
        """Whether the hub waits for something from here, so that a reconnection is urgent."""
        return bool(self._holdings)

    @property
    def settled(self) -> bool:
        """Whether a drain has nothing more to wait for: no give_back and no goodbye is unanswered."""
        returning = any(Slot("give_back", key) in self._unanswered for key in self._holdings)
        return not returning and Slot("bye") not in self._unanswered

    @property
    def connected(self) -> bool:
        """Whether the hub said welcome on the current connection."""
        return self._session.ready

    def holding(self, key: Key) -> Holding | None:
        """One assignment, worked on or waiting for its acknowledgement."""
        return self._holdings.get(key)

    def run_ids(self) -> set[str]:
        """Every run the journal owns."""
        return {woken.run_id for held in self._holdings.values() for woken in held.runs}

    @property
    def due_us(self) -> int | None:
        """When the next :class:`~sidecar.core.effects.Tick` is needed."""
        due = [self._session.due_us, self._park_due_us]
        if self._session.ready:
            due += [self._unanswered.due_us, None if self._note is None else self._note_due_us]
        return min((at for at in due if at is not None), default=None)

    @property
    def _park_due_us(self) -> int | None:
        held = self.current
        if held is None or held.stop is not None or held.blocked_since is None:
            return None
        return held.blocked_since + self._session.limits.blocked_ms * _MS

    # --- acting

    def restore(self, journalled: Iterable[JournalRecord]) -> list[Effect]:
        """Take in what the journal remembers; call once, first. The effects resume what an earlier process began."""
        for record in journalled:
            if isinstance(record, records.Seen):
                self._seen.extend(record.cids)
                continue
            if isinstance(record, records.Commanded) and record.control.cid not in self._seen:
                self._seen.append(record.control.cid)
            self._holdings.setdefault(record.key, Holding(record.key)).replay(record)
        for held in self._holdings.values():
            if held.result is not None:
                self._put_result(held)
            elif held.phase is Phase.ASSIGNED:
                self._repeat(held)
            elif held.phase.rank > Phase.ACCEPTED.rank:
                self._begin(held)
        return self._taken()

    def apply(self, event: Happening, now_us: int) -> list[Effect]:
        """Let one thing happen. Events about assignments that are gone change nothing."""
        match event:
            case fx.Received(frame=frame):
                self._receive(frame, now_us)
            case fx.Connected():
                self._greet(now_us)
            case fx.Disconnected():
                self._session.close()
            case fx.Tick():
                pass
            case fx.Drain():
                self._drain(event, now_us)
            case fx.Leave():
                self._put(Slot("bye"), frames.Bye(reason="drain" if self._quiet else ""))
            case fx.RunExited(record=record):
                self._progress(self._holdings.get(record.key), event, now_us)
            case _:
                self._progress(self._holdings.get(event.key), event, now_us)
        self._keep_time(now_us)
        return self._taken()

    def _receive(self, frame: frames.FromHub, now_us: int) -> None:
        if isinstance(frame, frames.Welcome):
            self._welcome(frame, now_us)
            return
        if not self._session.ready or frame.e not in {None, self._session.epoch}:
            return
        match frame:
            case frames.Assign():
                self._assign(frame)
            case frames.Accepted():
                self._accepted(frame, now_us)
            case frames.Revoke():
                self._lose(self._holdings.get(Key(frame.task, frame.lease_epoch)))
            case frames.Beaten():
                self._beaten(frame, now_us)
            case frames.Control():
                self._control(frame)
            case frames.ResultAck():
                held = self._holdings.get(Key(frame.task, frame.lease_epoch))
                if held is not None and held.result is not None:
                    self._remove(held)
            case frames.Ok():
                self._ok(frame)
            case _:
                pass  # goaway concerns the link; a refused frame is sent again until a verdict settles it

    # --- the session

    def _greet(self, now_us: int) -> None:
        self._session.greet(now_us)
        self._unanswered.restart()
        outbox = [held.outgoing(held.result) for held in self._holdings.values() if held.result is not None]
        hello = replace(
            self._hello,
            held=tuple(held.held() for held in self._holdings.values() if held.result is None),
            outbox=tuple(outbox[:OUTBOX_LIMIT]),
            quiet=self._quiet,
            sent_mono=now_us,
        )
        self._emit(fx.Send(self._unanswered.stamp(Slot("hello"), hello, now_us, None)))

    def _welcome(self, frame: frames.Welcome, now_us: int) -> None:
        if not self._session.welcome(frame, now_us):
            return
        for item in frame.verdicts:
            held = self._holdings.get(Key(item.task, item.lease_epoch))
            if held is None:
                continue
            match item.verdict:
                case HeldVerdict.KEEP | HeldVerdict.ACCEPTED:
                    self._unanswered.postpone(Slot("accept", held.key), now_us)  # accepted, with the spec, is on its way
                    self._renew(held, self._session.hello_us, frame.lease_ms, now_us)
                    self._begin(held)
                case HeldVerdict.STOP:
                    self._lose(held)
                case HeldVerdict.SEND_RESULT:
                    pass  # it waits in the unanswered frames, which are all due now

    def _beaten(self, frame: frames.Beaten, now_us: int) -> None:
        if not self._session.beaten(frame.sent_mono):
            return
        for answer in frame.leases:
            held = self._holdings.get(Key(answer.task, answer.lease_epoch))
            if held is not None and answer.ok:
                self._renew(held, frame.sent_mono, answer.lease_ms or self._session.lease_ms, now_us)
            elif held is not None:
                self._lose(held)

    def _keep_time(self, now_us: int) -> None:
        """What is due: parking, beats, frames to send (again), and giving up a connection that does not answer."""
        if (park_us := self._park_due_us) is not None and now_us >= park_us and (held := self.current) is not None:
            self._write(held, records.Parked(**held.ids))
            self._emit(fx.Stop(held.key, StopReason.PARK))
        if (silence_us := self._session.silence_us) is not None and now_us >= silence_us:
            self._emit(fx.Drop("the hub does not answer"))
            self._session.close()
        if not self._session.ready:
            return
        if now_us >= self._session.beat_due_us:
            self._session.beat(now_us)
            self._emit(fx.SendNow(self._beat(now_us)))
        for frame in self._unanswered.take_due(now_us, self._session.epoch):
            self._emit(fx.Send(frame))
        if self._note is not None and now_us >= self._note_due_us:
            (task, epoch), note = self._note
            self._note, self._notes, self._note_due_us = None, self._notes + 1, now_us + NOTE_EVERY_US
            self._answer(frames.Progress(task=task, lease_epoch=epoch, n=self._notes, note=note))

    def _beat(self, now_us: int) -> frames.Beat:
        leases = tuple(held.beat() for held in self._holdings.values() if held.lease is not None)
        held = self.current
        if held is None:
            state = AgentState.IDLE
        elif held.phase is Phase.ASSIGNED:
            state = AgentState.ASSIGNED
        else:
            state = AgentState.WORKING if held.blocked_since is None else AgentState.BLOCKED
        return frames.Beat(
            e=self._session.epoch, leases=leases[-_BEAT_LEASES:], agent_state=state, quiet=self._quiet, sent_mono=now_us
        )

    def _drain(self, event: fx.Drain, now_us: int) -> None:
        self._quiet = True
        self._session.beat_due_us = now_us  # the hub should know at once
        held = self.current
        if held is None or held.returning is not None:
            return
        if not held.woken:
            self._give_back(held, "drain")
        elif event.stop_agents and held.phase is Phase.WOKEN:
            self._stop(held, StopReason.DRAIN)

    # --- the assignment

    def _assign(self, frame: frames.Assign) -> None:
        key = Key(frame.task, frame.lease_epoch)
        if (held := self._holdings.get(key)) is not None:
            self._repeat(held)
            return
        newest = max((old.lease_epoch for old in self._holdings if old.task == key.task), default=None)
        if newest is not None and newest > key.lease_epoch:
            return  # a frame that lost its way; the newer claim proves that this one is over
        if newest is not None:
            self._lose(self._holdings[Key(key.task, newest)])
        if (refusal := self._refusal(frame)) is not None:
            code, retry_ms = refusal
            decline = frames.Decline(
                re=frame.id, task=key.task, lease_epoch=key.lease_epoch, code=code, retry_after_ms=retry_ms
            )
            self._answer(decline)
            return
        held = self._holdings[key] = Holding(key)
        self._write(held, records.Assigned(**held.ids))
        self._repeat(held)

    def _refusal(self, frame: frames.Assign) -> tuple[str, int] | None:
        if self._quiet:
            return "quiet", UNFIT_RETRY_MS
        if frame.runtime not in {None, self._runtime}:
            return "no_runtime", UNFIT_RETRY_MS
        if self.current is not None:
            return "busy", BUSY_RETRY_MS
        if len(self._holdings) >= OUTBOX_LIMIT:
            return "outbox_full", UNFIT_RETRY_MS
        return None

    def _repeat(self, held: Holding) -> None:
        """Say (again) what the hub does not seem to know about this assignment."""
        if held.result is not None:
            self._unanswered.hurry(Slot("result", held.key))
        elif held.returning is not None:
            self._unanswered.hurry(Slot("give_back", held.key))
        else:
            self._put(Slot("accept", held.key), frames.Accept(**held.ids))

    def _accepted(self, frame: frames.Accepted, now_us: int) -> None:
        key = Key(frame.task, frame.lease_epoch)
        held = self._holdings.get(key)
        if held is None:  # given up here in the meantime: the hub must not count on us
            self._answer(frames.GiveBack(task=key.task, lease_epoch=key.lease_epoch, reason="unstarted"))
            return
        slot, sent_us = self._unanswered.sending(frame.re) or (None, 0)
        anchor_us = sent_us if slot == Slot("accept", key) else self._session.hello_us
        self._unanswered.settle(Slot("accept", key))
        if held.phase is Phase.ASSIGNED and held.returning is None:
            if frame.spec is None:  # the link could not get the body that the frame names
                self._give_back(held, "unstarted")
                return
            self._write(held, records.Accepted(**held.ids, spec=frame.spec))
        self._renew(held, anchor_us, frame.lease_ms, now_us)
        self._begin(held)

    def _begin(self, held: Holding) -> None:
        if held.begun or held.returning is not None or held.result is not None or held.phase is Phase.ASSIGNED:
            return
        if held.stop is not None and not held.woken:
            self._give_back(held, "unstarted")
            return
        held.begun = True
        self._emit(fx.Begin(held.key))

    def _renew(self, held: Holding, anchor_us: int, lease_ms: int, now_us: int) -> None:
        if held.renew(anchor_us, lease_ms) and held.lease is not None and held.phase is Phase.WOKEN:
            self._emit(fx.Extend(held.key, held.lease.soft_us, held.lease.hard_us))
        self._try_wake(held, now_us)

    def _try_wake(self, held: Holding, now_us: int) -> None:
        """The only way an agent is started: an accepted assignment, a lease that still runs, and nobody against it."""
        wanted, lease = held.wanted, held.lease
        if wanted is None or lease is None or now_us >= lease.soft_us or held.stop is not None or held.returning is not None:
            return
        held.wanted = None
        self._write(held, records.Woken(**held.ids, run_id=wanted.run_id, round=wanted.round, cause=wanted.cause))
        self._emit(fx.Wake(held.key, wanted.run_id, lease.soft_us, lease.hard_us))

    def _progress(self, held: Holding | None, event: Happening, now_us: int) -> None:
        """What the work itself reports."""
        if held is None or held.result is not None or held.returning is not None:
            return
        match event:
            case fx.RunWanted():
                held.wanted = event
                self._try_wake(held, now_us)
            case fx.RunExited(record=record):
                self._unanswered.settle_all(held.key)
                held.questions.clear()
                self._write(held, record)
            case fx.QuestionAsked():
                self._ask(held, event, now_us)
            case fx.NoteTaken(note=note):
                self._note = (held.key, note)
            case fx.Checked(report=report):
                self._write(held, records.Verified(**held.ids, report=report))
            case fx.WorkPushed(head_sha=head_sha, salvage_ref=salvage_ref):
                self._write(held, records.Pushed(**held.ids, head_sha=head_sha, salvage_ref=salvage_ref))
            case fx.Finished(result=result):
                self._unanswered.settle_all(held.key)
                self._write(held, records.Concluded(**held.ids, result=result))
                self._put_result(held)
            case fx.ParkReady():
                self._give_back(held, "parked")
            case _:
                pass

    # --- questions and controls

    def _ask(self, held: Holding, event: fx.QuestionAsked, now_us: int) -> None:
        if event.qid in held.questions or held.phase is not Phase.WOKEN or len(held.questions) >= QUESTION_LIMIT:
            return
        question = frames.Question(**held.ids, qid=event.qid, text=event.text, options=event.options)
        held.questions[event.qid] = asking = Asking(question, now_us)
        if event.qid in held.answers:  # asked again because the run was read again: the shim drops a second answer
            self._deliver(held, asking)
        else:
            self._put(Slot("question", held.key, event.qid), question)

    def _deliver(self, held: Holding, asking: Asking) -> None:
        qid = asking.frame.qid
        cid, text = held.answers[qid]
        asking.answered = True
        self._unanswered.settle(Slot("question", held.key, qid))
        self._emit(fx.Answer(held.key, f"control-{cid}", qid, text))

    def _control(self, frame: frames.Control) -> None:
        held = self._holdings.get(Key(frame.task, frame.lease_epoch))
        if frame.kind is ControlKind.STEER:
            self._answer(frames.Error(re=frame.id, code="unsupported", message="this agent cannot be steered"))
            return
        if held is not None and held.result is None and frame.cid not in self._seen:
            self._seen.append(frame.cid)
            stopping = held.stop
            self._write(held, records.Commanded(**held.ids, control=frame))
            if frame.kind is ControlKind.ANSWER:
                if (asking := held.questions.get(frame.qid or "")) is not None:
                    self._deliver(held, asking)
            elif stopping is None and held.stop is not None:
                self._stop_now(held, held.stop)
        self._answer(frames.Ok(re=frame.id))

    def _stop(self, held: Holding, reason: StopReason) -> None:
        if held.stop is None:
            held.stop = reason
            self._stop_now(held, reason)

    def _stop_now(self, held: Holding, reason: StopReason) -> None:
        if held.begun:
            self._emit(fx.Stop(held.key, reason))
        elif held.returning is None:
            self._give_back(held, "unstarted")

    # --- the end

    def _lose(self, held: Holding | None) -> None:
        """The hub says that it is not ours. What ran is stopped and reported; a result stays until it is acknowledged."""
        if held is None or held.result is not None:
            return
        if held.returning is not None or not held.begun:
            self._remove(held)
        else:
            self._stop(held, StopReason.LOST)

    def _give_back(self, held: Holding, reason: Returning) -> None:
        held.returning = reason
        self._unanswered.settle_all(held.key)
        if held.begun and not held.woken:
            self._emit(fx.Abandon(held.key))
        self._put(Slot("give_back", held.key), held.give_back())

    def _ok(self, frame: frames.Ok) -> None:
        slot, _ = self._unanswered.sending(frame.re) or (None, 0)
        if slot is None:
            return
        self._unanswered.settle(slot)
        held = self._holdings.get(slot.key) if slot.key is not None else None
        if slot.kind == "give_back" and held is not None:
            self._remove(held)

    def _remove(self, held: Holding) -> None:
        self._unanswered.settle_all(held.key)
        del self._holdings[held.key]
        self._emit(fx.Write(records.Removed(**held.ids)))
        self._emit(fx.Forget(held.key))

    # --- effects

    def _put_result(self, held: Holding) -> None:
        assert held.result is not None
        slot = Slot("result", held.key)
        self._unanswered.put(slot, held.result, every_us=self._session.answer_us, ceiling_us=RESULT_CEILING_US)

    def _put(self, slot: Slot, frame: frames.FromSidecar) -> None:
        self._unanswered.put(slot, frame, every_us=self._session.answer_us)

    def _answer(self, frame: frames.FromSidecar) -> None:
        self._emit(fx.Send(replace(frame, e=self._session.epoch)))

    def _write(self, held: Holding, record: JournalRecord) -> None:
        held.replay(record)
        self._emit(fx.Write(record))

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def _taken(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects
