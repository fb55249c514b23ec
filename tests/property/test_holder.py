"""The holder, its journal on a disk that forgets, and the network, against a small honest model of the hub.

Every rule is one thing that can happen; effects are performed one by one, so a crash falls between any two of them.
Checked on the way (I15, I16 and the order of §4 to §7): no frame, shim or answer precedes the record it depends on; an agent
is woken only under an accepted, running lease and once per run; no agent lives when the hub may lease its task again; what
ran stays in the journal until the hub acknowledged it; a control takes effect once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hub.ids import ControlKind, HeldVerdict, HubEpoch, Lane, LeaseEpoch, Outcome, Phase, SessionEpoch, TaskId, Verdict
from hub.wire import frames
from hub.wire.spec import Spec, VerificationReport
from sidecar.core import effects as fx
from sidecar.core import records
from sidecar.core.holder import Holder
from sidecar.core.records import Key
from sidecar.core.results import Delivered, compose
from sidecar.journal import Journal
from sidecar.runtimes.base import RunEnd
from tests.support.fake_disk import FakeDisk

LONG = os.environ.get("HYPOTHESIS") == "long"
LEASE_MS = 18_000
LEASE_US = LEASE_MS * 1000
BEAT_MS = LEASE_MS // 9
PATH = Path("journal")
HELLO = frames.Hello(versions=("agentcom.v1",), agent_id="a", install_id="i", boot_id="b")


@dataclass
class Lease:
    """What the hub knows of one claim."""

    state: str = "assigned"  # assigned, working, ended
    renewed_us: int = 0


@dataclass
class Shim:
    """A run in the world; survives the sidecar, dies by its own deadline."""

    run_id: str
    soft_us: int
    hard_us: int
    alive: bool = True


class Sidecar(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.now = 1_000_000_000
        self.disk = FakeDisk()
        self.leases: dict[Key, Lease] = {}
        self.epochs: dict[int, int] = {}
        self.results: dict[Key, int] = {}
        self.shims: dict[Key, Shim] = {}
        self.runs_ever: set[str] = set()
        self.woken_ever: set[Key] = set()
        self.released: set[Key] = set()
        self.cids = 0
        self.controls: list[frames.Control] = []
        self.controls_by_id: dict[int, frames.Control] = {}
        self.pointless: set[int] = set()
        self.sessions = 0
        self.boot()

    def boot(self) -> None:
        self.connected = False
        self.to_hub: list[frames.FromSidecar] = []
        self.to_sidecar: list[frames.FromHub] = []
        self.queue: list[fx.Effect] = []
        self.works: set[Key] = set()
        self.asked: set[Key] = set()
        self.journal = Journal(PATH, self.disk)
        self.holder = Holder(HELLO, runtime="mock")
        self.take(self.holder.restore(self.journal.records))

    # --- the machinery

    def happen(self, event: fx.Happening) -> None:
        self.take(self.holder.apply(event, self.now))

    def take(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            assert not isinstance(effect, fx.Wake) or self.now < effect.soft_us, "woken under a lease that is over"
            if isinstance(effect, fx.IMMEDIATE):
                self.perform(effect)
            else:
                self.queue.append(effect)

    def durable(self) -> list:
        return list(Journal(PATH, self.disk.after_power_cut(PATH)).records)

    def durably(self, kind: type, key: Key) -> bool:
        return any(isinstance(record, kind) and record.key == key for record in self.durable())

    def perform(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Write(record=record):
                self.check_record(record)
                self.journal.append(record)
            case fx.Send(frame=frame) | fx.SendNow(frame=frame):
                self.check_frame(frame)
                if self.connected:
                    self.to_hub.append(frame)
            case fx.Begin(key=key):
                assert key not in self.works
                self.works.add(key)
            case fx.Wake(key=key):
                self.check_wake(effect)
                # the disk may have held the effect up for longer than the lease: a shim started too late exits unrun
                self.shims[key] = Shim(effect.run_id, effect.soft_us, effect.hard_us, alive=self.now < effect.soft_us)
                self.asked.discard(key)
            case fx.Extend(key=key):
                if self.leases[key].state == "working":
                    assert effect.hard_us <= self.leases[key].renewed_us + LEASE_US, "extended beyond what the hub knows"
                if (shim := self.shims.get(key)) is not None and shim.alive and key in self.works:
                    shim.soft_us, shim.hard_us = max(shim.soft_us, effect.soft_us), max(shim.hard_us, effect.hard_us)
            case fx.Stop(key=key):
                if (shim := self.shims.get(key)) is not None:
                    shim.alive = False
                self.asked.discard(key)
            case fx.Abandon(key=key):
                assert key not in self.woken_ever
                self.works.discard(key)
            case fx.Drop():
                self.cut()
            case _:
                pass

    def cut(self) -> None:
        self.connected = False
        self.to_hub.clear()
        self.to_sidecar.clear()
        # What was queued for this connection is thrown away by the agent when it is performed.
        self.queue = [effect for effect in self.queue if not isinstance(effect, fx.Send)]

    # --- what must hold when something is done

    def check_record(self, record: records.JournalRecord) -> None:
        if isinstance(record, records.Removed) and record.key in self.woken_ever:
            assert record.key in self.released, "removed without the hub's word"

    def check_frame(self, frame: frames.FromSidecar) -> None:
        match frame:
            case frames.Accept(task=task, lease_epoch=epoch):
                assert self.durably(records.Assigned, Key(task, epoch))
            case frames.Result(task=task, lease_epoch=epoch):
                assert self.durably(records.Concluded, Key(task, epoch))
            case frames.Hello(held=held, outbox=outbox):
                for item in held:
                    assert self.durably(records.Assigned, Key(item.task, item.lease_epoch))
                for item in outbox:
                    assert self.durably(records.Concluded, Key(item.task, item.lease_epoch))
            case frames.Ok(re=re):
                control = self.controls_by_id[re]
                held = self.holder.holding(Key(control.task, control.lease_epoch))
                if held is not None and held.result is None and control.cid not in self.pointless:
                    assert any(isinstance(r, records.Commanded) and r.control.cid == re for r in self.durable())

    def check_wake(self, wake: fx.Wake) -> None:
        assert self.durably(records.Accepted, wake.key)
        assert any(isinstance(r, records.Woken) and r.run_id == wake.run_id for r in self.durable())
        assert self.leases[wake.key].state != "assigned", "woken before the hub committed the lease"
        assert wake.run_id not in self.runs_ever, "a run was started twice"
        assert not any(shim.alive for key, shim in self.shims.items() if key.task == wake.key.task)
        if self.leases[wake.key].state == "working":
            assert wake.hard_us <= self.leases[wake.key].renewed_us + LEASE_US
        self.runs_ever.add(wake.run_id)
        self.woken_ever.add(wake.key)

    # --- the sidecar's own steps

    @rule(steps=st.integers(1, 40), ask=st.booleans(), work=st.booleans(), lag_us=st.sampled_from([0, 0, 300_000, 900_000]))
    def all_goes_well_for_a_while(self, steps: int, ask: bool, work: bool, lag_us: int) -> None:
        """What would take many small steps: effects, frames and work, each as far as it comes, with a lag."""
        if not self.connected:
            self.connects()
        if all(lease.state == "ended" for lease in self.leases.values()) and self.sessions:
            self.hub_assigns(1 + self.now % 2)
        for _ in range(steps):
            if lag_us:
                self.time_passes(lag_us)
            if self.queue:
                self.perform(self.queue.pop(0))
            elif self.to_hub:
                self.hub_receives()
            elif self.to_sidecar:
                self.sidecar_receives(False)
            elif self.works and work:
                self.work_goes_on(False, ask)
            else:
                break

    @precondition(lambda self: self.queue)
    @rule(steps=st.integers(1, 6))
    def perform_effects(self, steps: int) -> None:
        for _ in range(min(steps, len(self.queue))):
            if self.queue:
                self.perform(self.queue.pop(0))

    @precondition(lambda self: self.works and not self.queue)
    @rule(crashed=st.booleans(), ask=st.booleans())
    def work_goes_on(self, crashed: bool, ask: bool) -> None:
        key = min(self.works)
        held = self.holder.holding(key)
        if held is None or held.result is not None or held.returning is not None:
            self.works.discard(key)
            return
        ids = {"task": key.task, "lease_epoch": key.lease_epoch}
        result = compose(key, Outcome.SUCCEEDED, None, delivered=Delivered())
        match held.phase:
            case Phase.ACCEPTED if held.stop is not None:
                self.happen(fx.Finished(key, result))
            case Phase.ACCEPTED if key not in self.asked:
                self.asked.add(key)
                self.happen(fx.RunWanted(key, f"{key.task}-{key.lease_epoch}-0", 0, "first"))
            case Phase.WOKEN:
                shim = self.shims.get(key)
                if shim is not None and shim.alive and ask and not held.questions:
                    self.happen(fx.QuestionAsked(key, "q", "which?"))
                elif shim is None or not shim.alive or not held.questions:
                    stopped = None if shim is not None and shim.alive and not crashed else "lost"
                    if shim is not None:
                        shim.alive = False
                    end = RunEnd(ok=stopped is None)
                    self.happen(fx.RunExited(records.Exited(**ids, run_id=held.runs[-1].run_id, stopped=stopped, end=end)))
            case Phase.EXITED if held.parked:
                self.happen(fx.ParkReady(key))
            case Phase.EXITED:
                self.happen(fx.Checked(key, VerificationReport(passed=True)))
            case Phase.VERIFIED:
                self.happen(fx.WorkPushed(key, None, None))
            case Phase.PUSHED:
                self.happen(fx.Finished(key, result))
            case _:
                pass

    @rule(us=st.sampled_from([1_000, BEAT_MS * 1000, 5_000_000, LEASE_US // 2, LEASE_US * 11 // 12, LEASE_US * 2]))
    def time_passes(self, us: int) -> None:
        until = self.now + us
        while True:
            due = self.holder.due_us
            self.now = until if due is None or due > until else max(self.now, due)
            for shim in self.shims.values():
                shim.alive = shim.alive and self.now < shim.hard_us
            if self.now >= until:
                break
            self.happen(fx.Tick())
            assert self.holder.due_us is None or self.holder.due_us > self.now, "a tick must make progress"
        self.happen(fx.Tick())

    @rule(keep=st.integers(0, 40))
    def sidecar_crashes(self, keep: int) -> None:
        self.disk.crash(keep)
        self.boot()

    @precondition(lambda self: not self.connected)
    @rule()
    def connects(self) -> None:
        self.connected = True
        self.happen(fx.Connected())

    @precondition(lambda self: self.connected)
    @rule()
    def connection_breaks(self) -> None:
        self.cut()
        self.happen(fx.Disconnected())

    @rule(stop_agents=st.booleans())
    def drains(self, stop_agents: bool) -> None:
        self.happen(fx.Drain(stop_agents))

    @precondition(lambda self: self.to_sidecar)
    @rule(twice=st.booleans())
    def sidecar_receives(self, twice: bool) -> None:
        frame = self.to_sidecar.pop(0)
        match frame:
            case frames.ResultAck():
                self.released.add(Key(frame.task, frame.lease_epoch))
            case frames.Welcome(verdicts=verdicts):
                self.note_lost([(v.task, v.lease_epoch) for v in verdicts if v.verdict is HeldVerdict.STOP])
            case frames.Beaten(leases=leases):
                self.note_lost([(v.task, v.lease_epoch) for v in leases if not v.ok])
            case frames.Control(cid=cid, task=task, lease_epoch=epoch):
                held = self.holder.holding(Key(task, epoch))
                if held is None or held.result is not None:
                    self.pointless.add(cid)
            case frames.Revoke():
                self.note_lost([(frame.task, frame.lease_epoch)])
            case frames.Ok(re=re) if re is not None and self.was_give_back(re):
                self.released.add(self.was_give_back(re))
            case _:
                pass
        for _ in range(2 if twice else 1):
            self.happen(fx.Received(frame))

    def note_lost(self, keys: list) -> None:
        for key in keys:
            held = self.holder.holding(Key(*key))
            if held is not None and held.returning is not None:
                self.released.add(Key(*key))

    def was_give_back(self, re: int) -> Key | None:
        slot, _ = self.holder._unanswered.sending(re) or (None, 0)
        return slot.key if slot is not None and slot.kind == "give_back" else None

    # --- the hub

    def reply(self, frame: frames.FromHub) -> None:
        if self.connected:
            self.to_sidecar.append(replace(frame, e=SessionEpoch(self.sessions)))

    @precondition(lambda self: self.connected and self.sessions)
    @rule(task=st.integers(1, 2))
    def hub_assigns(self, task: int) -> None:
        if any(lease.state != "ended" for lease in self.leases.values()):
            return
        self.epochs[task] = self.epochs.get(task, 0) + 1
        key = Key(TaskId(task), LeaseEpoch(self.epochs[task]))
        self.leases[key] = Lease()
        self.reply(frames.Assign(task=key.task, lease_epoch=key.lease_epoch, lane=Lane.NORMAL))

    @precondition(lambda self: self.to_hub)
    @rule()
    def hub_receives(self) -> None:
        frame = self.to_hub.pop(0)
        key = Key(getattr(frame, "task", 0), getattr(frame, "lease_epoch", 0))
        lease = self.leases.get(key)
        match frame:
            case frames.Hello():
                self.greet(frame)
            case frames.Accept() if lease is not None:
                if lease.state == "ended":
                    self.reply(frames.Revoke(re=frame.id, task=key.task, lease_epoch=key.lease_epoch, code="stale"))
                else:
                    self.accepted(key, lease, frame.id)
            case frames.Decline() if lease is not None and lease.state == "assigned":
                lease.state = "ended"
            case frames.Beat():
                self.beaten(frame)
            case frames.Result():
                assert frame.e == self.sessions
                if lease is not None:
                    lease.state = "ended"
                    self.results[key] = self.results.get(key, 0) + 1
                self.reply(frames.ResultAck(re=frame.id, task=key.task, lease_epoch=key.lease_epoch, verdict=Verdict.APPLIED))
            case frames.GiveBack():
                if lease is not None:
                    assert key not in self.results
                    lease.state = "ended"
                self.reply(frames.Ok(re=frame.id))
            case frames.Question():
                self.reply(frames.Ok(re=frame.id))
            case _:
                pass

    def accepted(self, key: Key, lease: Lease, re: int | None) -> None:
        lease.state, lease.renewed_us = "working", self.now
        spec = Spec(task=key.task, lease_epoch=key.lease_epoch, title="t")
        ids = {"task": key.task, "lease_epoch": key.lease_epoch}
        self.reply(frames.Accepted(re=re, **ids, lease_ms=LEASE_MS, spec=spec))

    def greet(self, hello: frames.Hello) -> None:
        self.sessions += 1
        verdicts, again = [], []
        outbox = {Key(item.task, item.lease_epoch) for item in hello.outbox}
        held = {Key(item.task, item.lease_epoch): item.phase for item in hello.held}
        for key in [*held, *outbox]:
            lease = self.leases.get(key, Lease("ended"))
            if key in outbox:
                verdict = HeldVerdict.SEND_RESULT
            elif lease.state == "ended":
                verdict = HeldVerdict.STOP
            else:
                verdict = HeldVerdict.ACCEPTED if lease.state == "assigned" else HeldVerdict.KEEP
                lease.renewed_us = self.now
                again += [(key, lease)] if held[key].rank < Phase.WOKEN.rank else []
            verdicts.append(frames.HeldAnswer(task=key.task, lease_epoch=key.lease_epoch, verdict=verdict))
        self.reply(
            frames.Welcome(
                re=hello.id, session_epoch=SessionEpoch(self.sessions), hub_id="h", hub_epoch=HubEpoch(1),
                beat_ms=BEAT_MS, lease_ms=LEASE_MS, verdicts=tuple(verdicts),
            )
        )  # fmt: skip
        for key, lease in again:
            self.accepted(key, lease, None)
        for key, lease in self.leases.items():
            if lease.state == "working" and key not in held and key not in outbox:
                lease.state = "ended"  # same install, neither held nor in the outbox: lost at once
            elif lease.state == "assigned" and key not in held:
                self.reply(frames.Assign(task=key.task, lease_epoch=key.lease_epoch, lane=Lane.NORMAL))

    def beaten(self, beat: frames.Beat) -> None:
        answers = []
        for item in beat.leases:
            key = Key(item.task, item.lease_epoch)
            ok = self.leases[key].state == "working"
            if ok:
                self.leases[key].renewed_us = self.now
            answers.append(frames.LeaseAnswer(task=key.task, lease_epoch=key.lease_epoch, ok=ok, lease_ms=LEASE_MS))
        self.reply(frames.Beaten(re=beat.id, leases=tuple(answers), sent_mono=beat.sent_mono))

    @rule()
    def hub_expires_leases(self) -> None:
        for key, lease in self.leases.items():
            if lease.state == "working" and self.now >= lease.renewed_us + LEASE_US * 4 // 3:
                lease.state = "ended"
                shim = self.shims.get(key)
                assert shim is None or not shim.alive, "an agent outlived its lease"

    @precondition(lambda self: self.connected and self.sessions and self.leases)
    @rule(kind=st.sampled_from([ControlKind.CANCEL, ControlKind.ANSWER, ControlKind.INTERRUPT]), old=st.booleans())
    def hub_controls(self, kind: ControlKind, old: bool) -> None:
        if old and self.controls:
            self.reply(self.controls[-1])
            return
        key = list(self.leases)[-1]
        self.cids += 1
        control = frames.Control(
            id=self.cids, cid=self.cids, task=key.task, lease_epoch=key.lease_epoch, kind=kind, qid="q", text="so"
        )
        self.controls.append(control)
        self.controls_by_id[control.cid] = control
        self.reply(control)

    # --- always

    @invariant()
    def at_most_one_assignment_is_worked_on(self) -> None:
        if hasattr(self, "holder"):
            assert sum(held.result is None for held in self.holder._holdings.values()) <= 1

    @invariant()
    def a_control_is_commanded_once(self) -> None:
        if hasattr(self, "holder"):
            durable = [r.control.cid for r in self.durable() if isinstance(r, records.Commanded)]
            assert len(durable) == len(set(durable))


def test_a_wake_that_the_disk_held_up_beyond_its_lease_starts_nothing() -> None:
    state = Sidecar()
    state.start()
    state.all_goes_well_for_a_while(ask=False, lag_us=0, steps=2, work=False)
    state.connection_breaks()
    state.all_goes_well_for_a_while(ask=False, lag_us=0, steps=11, work=False)
    state.connection_breaks()
    state.work_goes_on(ask=False, crashed=False)
    assert any(isinstance(effect, fx.Wake) for effect in state.queue)
    state.time_passes(us=2 * LEASE_US)
    state.perform_effects(steps=2)
    assert [shim.alive for shim in state.shims.values()] == [False]
    state.hub_expires_leases()


class TestSidecar(Sidecar.TestCase):
    settings = settings(
        max_examples=3000 if LONG else 150,
        stateful_step_count=60,
        derandomize=not LONG,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
