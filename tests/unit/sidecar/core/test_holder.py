"""The holder's rules one by one, with a clock made of numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hub.ids import AgentState, ControlKind, HeldVerdict, Lane, LeaseEpoch, Outcome, Phase, SessionEpoch, TaskId, Verdict
from hub.wire import frames
from hub.wire.spec import Spec
from sidecar.core import effects as fx
from sidecar.core import records
from sidecar.core.effects import StopReason
from sidecar.core.holder import Holder
from sidecar.core.records import Key
from sidecar.core.results import Delivered, compose
from sidecar.runtimes.base import RunEnd

S = 1_000_000
LEASE_MS = 180_000
KEY = Key(TaskId(7), LeaseEpoch(3))
IDS = {"task": KEY.task, "lease_epoch": KEY.lease_epoch}
HELLO = frames.Hello(versions=("agentcom.v1",), agent_id="a", install_id="i", boot_id="b")
RESULT = compose(KEY, Outcome.SUCCEEDED, None, delivered=Delivered())


class Bench:
    """A holder and what it asked for. ``at`` is the time in seconds."""

    def __init__(self, journal: list | None = None) -> None:
        self.at = 100.0
        self.journal: list = []
        self.holder = Holder(HELLO, runtime="mock")
        self.effects = self.holder.restore(journal or [])

    def happen(self, event: fx.Happening) -> list:
        self.effects = self.holder.apply(event, int(self.at * S))
        self.journal += [effect.record for effect in self.effects if isinstance(effect, fx.Write)]
        return self.effects

    def receive(self, frame: frames.FromHub) -> list:
        return self.happen(fx.Received(frame))

    def wait(self, seconds: float) -> list:
        self.at += seconds
        return self.happen(fx.Tick())

    def sent(self, kind: type) -> list:
        return [e.frame for e in self.effects if isinstance(e, (fx.Send, fx.SendNow)) and isinstance(e.frame, kind)]

    def done(self, kind: type) -> list:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    # --- shortcuts to interesting places

    def welcome(self, *verdicts: HeldVerdict, **numbers) -> Bench:
        self.happen(fx.Connected())
        answers = tuple(frames.HeldAnswer(**IDS, verdict=verdict) for verdict in verdicts)
        self.receive(
            frames.Welcome(
                session_epoch=SessionEpoch(5), hub_id="h", hub_epoch=1, beat_ms=20_000, lease_ms=LEASE_MS, verdicts=answers,
                **numbers,
            )
        )  # fmt: skip
        return self

    def assigned(self) -> Bench:
        self.welcome()
        self.receive(frames.Assign(**IDS, lane=Lane.NORMAL))
        return self

    def accepted(self) -> Bench:
        accept = self.assigned().sent(frames.Accept)[0]
        self.receive(accepted(re=accept.id))
        return self

    def woken(self) -> Bench:
        self.accepted()
        self.happen(fx.RunWanted(KEY, "7-3-0", 0, "first"))
        return self

    def exited(self) -> Bench:
        self.woken()
        self.happen(fx.RunExited(records.Exited(**IDS, run_id="7-3-0", stopped=None, end=RunEnd(ok=True))))
        return self

    def finished(self) -> Bench:
        self.exited()
        self.happen(fx.Finished(KEY, RESULT))
        return self


def accepted(re: int | None = None) -> frames.Accepted:
    return frames.Accepted(re=re, **IDS, lease_ms=LEASE_MS, spec=Spec(**IDS, title="t"))


def control(kind: ControlKind, cid: int = 1, **more) -> frames.Control:
    return frames.Control(id=900 + cid, cid=cid, **IDS, kind=kind, **more)


def order(effects: list) -> list[str]:
    return [type(effect.record if isinstance(effect, fx.Write) else effect).__name__ for effect in effects]


# --- assignment


def test_an_assignment_is_written_before_it_is_accepted() -> None:
    assert order(Bench().assigned().effects) == ["Assigned", "Send"]


def test_work_begins_only_when_the_hub_confirmed_the_lease() -> None:
    bench = Bench().assigned()
    assert bench.done(fx.Begin) == []
    bench.receive(accepted())
    assert order(bench.effects) == ["Accepted", "Begin"]


def test_the_agent_is_woken_after_the_run_is_written_down() -> None:
    assert order(Bench().woken().effects) == ["Woken", "Wake"]


def test_an_unanswered_accept_is_sent_again_after_ten_seconds() -> None:
    bench = Bench().assigned()
    assert bench.wait(9.9) == []
    assert len([bench.wait(0.1), bench.sent(frames.Accept)][1]) == 1


def test_a_repeated_assign_is_answered_but_not_written_twice() -> None:
    bench = Bench().assigned()
    bench.receive(frames.Assign(**IDS, lane=Lane.NORMAL))
    assert order(bench.effects) == ["Send"]


def test_a_repeated_accepted_changes_nothing() -> None:
    bench = Bench().woken()
    assert [e for e in bench.receive(accepted()) if not isinstance(e, fx.Extend)] == []


@pytest.mark.parametrize(
    ("prepare", "assign", "code"),
    [
        (lambda bench: bench.happen(fx.Drain(False)), {}, "quiet"),
        (lambda bench: None, {"runtime": "codex"}, "no_runtime"),
        (lambda bench: bench.receive(frames.Assign(task=99, lease_epoch=1, lane=Lane.LOW)), {}, "busy"),
    ],
)
def test_work_that_cannot_be_done_is_declined(prepare, assign, code) -> None:
    bench = Bench().welcome()
    prepare(bench)
    bench.receive(frames.Assign(**IDS, lane=Lane.NORMAL, **assign))
    assert [frame.code for frame in bench.sent(frames.Decline)] == [code]


def test_an_assignment_of_an_older_claim_is_ignored_and_a_newer_one_ends_the_older() -> None:
    bench = Bench().woken()
    assert bench.receive(frames.Assign(task=KEY.task, lease_epoch=KEY.lease_epoch - 1, lane=Lane.LOW)) == []
    bench.receive(frames.Assign(task=KEY.task, lease_epoch=KEY.lease_epoch + 1, lane=Lane.LOW))
    assert [stop.reason for stop in bench.done(fx.Stop)] == [StopReason.LOST]
    assert bench.sent(frames.Decline)[0].code == "busy"


def test_a_revoked_assignment_is_dropped_before_it_began() -> None:
    bench = Bench().assigned()
    bench.receive(frames.Revoke(**IDS, code="stale"))
    assert order(bench.effects) == ["Removed", "Forget"]
    assert bench.wait(60) == [] or bench.sent(frames.Accept) == []


def test_an_accepted_for_work_that_is_gone_is_given_back() -> None:
    bench = Bench().welcome()
    bench.receive(accepted())
    assert [frame.reason for frame in bench.sent(frames.GiveBack)] == ["unstarted"]


def test_frames_of_an_old_session_change_nothing() -> None:
    bench = Bench().woken()
    old = SessionEpoch(4)
    assert bench.receive(frames.Revoke(e=old, **IDS, code="stale")) == []
    assert bench.receive(replace(control(ControlKind.CANCEL), e=old)) == []


# --- the lease


def test_the_deadline_counts_from_when_the_answered_accept_was_sent() -> None:
    bench = Bench().assigned()
    first = bench.sent(frames.Accept)[0]
    bench.wait(10)  # sent again
    bench.at += 3
    bench.receive(accepted(re=first.id))
    bench.happen(fx.RunWanted(KEY, "7-3-0", 0, "first"))
    wake = bench.done(fx.Wake)[0]
    assert wake.soft_us == 100 * S + 165 * S
    assert wake.hard_us == 100 * S + 175 * S


def test_an_answered_beat_extends_from_when_it_was_sent() -> None:
    bench = Bench().woken()
    bench.wait(20)
    beat = bench.sent(frames.Beat)[0]
    bench.at += 4
    ok = frames.LeaseAnswer(**IDS, ok=True, lease_ms=LEASE_MS)
    bench.receive(frames.Beaten(leases=(ok,), sent_mono=beat.sent_mono))
    assert [(e.soft_us, e.hard_us) for e in bench.done(fx.Extend)] == [(120 * S + 165 * S, 120 * S + 175 * S)]


def test_an_answer_to_a_beat_that_was_never_sent_extends_nothing() -> None:
    bench = Bench().woken()
    bench.wait(20)
    ok = frames.LeaseAnswer(**IDS, ok=True, lease_ms=LEASE_MS)
    assert bench.receive(frames.Beaten(leases=(ok,), sent_mono=130 * S)) == []


def test_no_agent_is_woken_under_a_lease_that_is_over_until_it_is_renewed() -> None:
    bench = Bench().accepted()
    bench.happen(fx.Disconnected())
    bench.at += 165
    bench.happen(fx.RunWanted(KEY, "7-3-0", 0, "first"))
    assert bench.done(fx.Wake) == []
    bench.welcome(HeldVerdict.KEEP)
    assert [wake.soft_us for wake in bench.done(fx.Wake)] == [265 * S + 165 * S]


def test_a_lost_lease_stops_the_run_and_keeps_the_journal() -> None:
    bench = Bench().woken()
    bench.wait(20)
    lost = frames.LeaseAnswer(**IDS, ok=False)
    bench.receive(frames.Beaten(leases=(lost,), sent_mono=int(bench.at * S)))
    assert order(bench.effects) == ["Stop"]
    assert bench.holder.holding(KEY) is not None


def test_an_unanswered_beat_drops_the_connection_after_ten_seconds() -> None:
    bench = Bench().welcome()
    bench.wait(20)
    assert bench.wait(9.9) == []
    assert order(bench.wait(0.1)) == ["Drop"]
    assert bench.holder.due_us is None


def test_an_unanswered_hello_drops_the_connection() -> None:
    bench = Bench()
    bench.happen(fx.Connected())
    assert order(bench.wait(10)) == ["Drop"]


@pytest.mark.parametrize(
    ("place", "state"),
    [
        ("welcome", AgentState.IDLE),
        ("assigned", AgentState.ASSIGNED),
        ("accepted", AgentState.WORKING),
        ("woken", AgentState.WORKING),
        ("finished", AgentState.IDLE),
    ],
)
def test_a_beat_says_what_the_agent_is_doing(place: str, state: AgentState) -> None:
    bench = Bench()
    getattr(bench, place)()
    bench.wait(20)
    assert bench.sent(frames.Beat)[0].agent_state is state


def test_a_result_on_its_way_keeps_its_lease() -> None:
    bench = Bench().finished()
    bench.wait(20)
    assert [lease.phase for lease in bench.sent(frames.Beat)[0].leases] == [Phase.RESULT]


# --- results


def test_a_result_is_written_before_it_is_sent() -> None:
    assert order(Bench().finished().effects) == ["Concluded", "Send"]


def test_a_result_is_sent_again_for_ever_at_growing_intervals_up_to_a_minute() -> None:
    bench = Bench().finished()
    sent_at = []
    for _ in range(400):
        bench.wait(1)
        if bench.sent(frames.Result):
            sent_at.append(bench.at - 100)
        for beat in bench.sent(frames.Beat):
            bench.receive(frames.Beaten(sent_mono=beat.sent_mono))
    assert sent_at == [10, 30, 70, 130, 190, 250, 310, 370]


def test_only_an_acknowledgement_removes_a_result() -> None:
    bench = Bench().finished()
    lost = frames.LeaseAnswer(**IDS, ok=False)
    bench.wait(20)
    bench.receive(frames.Beaten(leases=(lost,), sent_mono=int(bench.at * S)))
    bench.receive(frames.Revoke(**IDS, code="stale"))
    assert bench.holder.holding(KEY) is not None
    bench.receive(frames.ResultAck(**IDS, verdict=Verdict.STALE))
    assert order(bench.effects) == ["Removed", "Forget"]


def test_an_acknowledgement_for_work_that_goes_on_is_ignored() -> None:
    bench = Bench().woken()
    assert bench.receive(frames.ResultAck(**IDS, verdict=Verdict.APPLIED)) == []


def test_new_work_is_taken_while_a_result_waits() -> None:
    bench = Bench().finished()
    bench.receive(frames.Assign(task=8, lease_epoch=1, lane=Lane.NORMAL))
    assert [frame.task for frame in bench.sent(frames.Accept)] == [8]


# --- questions and controls


def ask(bench: Bench) -> list:
    return bench.happen(fx.QuestionAsked(KEY, "q", "which?", ("a", "b")))


def test_a_question_is_sent_until_it_is_answered_by_ok() -> None:
    bench = Bench().woken()
    ask(bench)
    question = bench.sent(frames.Question)[0]
    bench.wait(10)
    assert len(bench.sent(frames.Question)) == 1
    bench.receive(frames.Ok(re=question.id))
    bench.wait(5)
    assert bench.sent(frames.Question) == []
    bench.wait(5)
    assert bench.sent(frames.Beat)[0].agent_state is AgentState.BLOCKED


def test_an_answer_is_written_then_given_then_confirmed() -> None:
    bench = Bench().woken()
    ask(bench)
    bench.receive(control(ControlKind.ANSWER, qid="q", text="a"))
    assert order(bench.effects) == ["Commanded", "Answer", "Send"]
    assert bench.done(fx.Answer)[0].text == "a"
    assert bench.sent(frames.Ok)[0].re == 901


def test_a_control_delivered_twice_has_one_effect_and_two_confirmations() -> None:
    bench = Bench().woken()
    ask(bench)
    bench.receive(control(ControlKind.ANSWER, qid="q", text="a"))
    assert order(bench.receive(control(ControlKind.ANSWER, qid="q", text="a"))) == ["Send"]


def test_a_control_survives_a_restart_and_its_answer_is_given_when_the_run_is_read_again() -> None:
    bench = Bench().woken()
    ask(bench)
    bench.receive(control(ControlKind.ANSWER, qid="q", text="a"))
    again = Bench(bench.journal).welcome(HeldVerdict.KEEP)
    assert order(again.receive(control(ControlKind.ANSWER, qid="q", text="a"))) == ["Send"]
    ask(again)
    assert [(e.key_of_send, e.text) for e in again.done(fx.Answer)] == [("control-1", "a")]
    assert again.sent(frames.Question) == []


def test_cancel_stops_a_run_and_gives_back_what_did_not_begin() -> None:
    bench = Bench().woken()
    bench.receive(control(ControlKind.CANCEL))
    assert order(bench.effects) == ["Commanded", "Stop", "Send"]
    early = Bench().assigned()
    early.receive(control(ControlKind.CANCEL))
    assert [frame.reason for frame in early.sent(frames.GiveBack)] == ["unstarted"]


def test_steering_is_refused_honestly() -> None:
    bench = Bench().woken()
    bench.receive(control(ControlKind.STEER, text="left"))
    assert [frame.code for frame in bench.sent(frames.Error)] == ["unsupported"]


def test_a_question_open_for_ten_minutes_parks_the_task() -> None:
    bench = Bench().woken()
    ask(bench)
    bench.happen(fx.Disconnected())
    assert bench.wait(599) == []
    assert order(bench.wait(1)) == ["Parked", "Stop"]
    bench.happen(fx.RunExited(records.Exited(**IDS, run_id="7-3-0", stopped="stop", end=RunEnd(ok=False))))
    bench.welcome(HeldVerdict.KEEP)
    bench.happen(fx.ParkReady(KEY))
    give_back = bench.sent(frames.GiveBack)[0]
    assert give_back.reason == "parked"
    bench.receive(frames.Ok(re=give_back.id))
    assert order(bench.effects) == ["Removed", "Forget"]


# --- draining


def test_a_drain_gives_back_what_no_agent_was_woken_for_and_lets_runs_go_on() -> None:
    bench = Bench().accepted()
    bench.happen(fx.Drain(False))
    assert "Abandon" in order(bench.effects)
    assert [frame.reason for frame in bench.sent(frames.GiveBack)] == ["drain"]
    assert bench.sent(frames.Beat)[0].quiet is True
    running = Bench().woken()
    running.happen(fx.Drain(False))
    assert running.done(fx.Stop) == []
    running.happen(fx.Drain(True))
    assert [stop.reason for stop in running.done(fx.Stop)] == [StopReason.DRAIN]


def test_a_goodbye_waits_for_its_answer() -> None:
    bench = Bench().welcome()
    bench.happen(fx.Leave())
    assert not bench.holder.settled
    bench.receive(frames.Ok(re=bench.sent(frames.Bye)[0].id))
    assert bench.holder.settled


# --- reconciling, one row of the protocol's table after the other


def hello_of(bench: Bench) -> frames.Hello:
    bench.happen(fx.Connected())
    return bench.sent(frames.Hello)[0]


@pytest.mark.parametrize("place", ["assigned", "accepted", "woken", "exited"])
def test_hello_names_what_is_held_and_its_phase(place: str) -> None:
    bench = Bench()
    getattr(bench, place)()
    hello = hello_of(Bench(bench.journal))
    assert [(item.task, item.lease_epoch, item.phase.value) for item in hello.held] == [(7, 3, place)]


def test_hello_says_when_it_was_sent() -> None:
    bench = Bench()
    bench.happen(fx.Connected())
    assert [hello.sent_mono for hello in bench.sent(frames.Hello)] == [100 * S]


def test_hello_names_results_by_their_digest() -> None:
    hello = hello_of(Bench(Bench().finished().journal))
    assert hello.held == ()
    assert [item.sha256 for item in hello.outbox] == [RESULT.sha256]


def test_an_assignment_taken_as_accepted_waits_for_its_spec() -> None:
    bench = Bench(Bench().assigned().journal).welcome(HeldVerdict.ACCEPTED)
    assert bench.done(fx.Begin) == []
    assert bench.sent(frames.Accept) == []
    bench.receive(accepted())
    assert order(bench.effects) == ["Accepted", "Begin"]


def test_accepted_work_begins_again_when_the_hub_keeps_it() -> None:
    restarted = Bench(Bench().accepted().journal)
    assert restarted.effects == []
    assert len(restarted.welcome(HeldVerdict.KEEP).done(fx.Begin)) == 1


def test_woken_work_is_resumed_before_the_hub_is_asked_and_extended_when_it_keeps_it() -> None:
    restarted = Bench(Bench().woken().journal)
    assert order(restarted.effects) == ["Begin"]
    assert len(restarted.welcome(HeldVerdict.KEEP).done(fx.Extend)) == 1


def test_the_verdict_stop_ends_a_run_and_drops_what_did_not_begin() -> None:
    assert len(Bench(Bench().woken().journal).welcome(HeldVerdict.STOP).done(fx.Stop)) == 1
    assert order(Bench(Bench().accepted().journal).welcome(HeldVerdict.STOP).effects) == ["Removed", "Forget"]


def test_a_result_is_sent_right_after_welcome() -> None:
    restarted = Bench(Bench().finished().journal)
    assert restarted.welcome(HeldVerdict.SEND_RESULT).sent(frames.Result)[0].sha256 == RESULT.sha256
