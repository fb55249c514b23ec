"""One sidecar's link: its greeting, its sessions, its order, its violations; nothing it says is answered before the commit."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from hub.core import commands as c
from hub.core.lease import Terms
from hub.edge import link as module
from hub.edge.auth import Identity
from hub.ids import (
    ANY_AGENT,
    AgentId,
    AgentState,
    HeldVerdict,
    LeaseEpoch,
    Outcome,
    Phase,
    Scope,
    SessionEpoch,
    TaskId,
    TaskState,
    Verdict,
)
from hub.store.base import CommitFailed
from hub.wire import frames
from hub.wire.codec import decode_spec, result_digest
from tests.support.conductor import turns
from tests.support.door import Door, door, hello, raw

AT: dict[str, Any] = {"task": TaskId(1), "lease_epoch": LeaseEpoch(1)}


def result(**fields: Any) -> frames.Result:
    return frames.Result(id=9, **AT, outcome=Outcome.SUCCEEDED, **({"sha256": "ab" * 32} | fields))


async def accepted(here: Door) -> tuple[Any, Any]:
    """w1 works on t-1."""
    link, wire = await here.greeted()
    await here.stage.submit()
    await wire.until(frames.Assign)
    here.say(link, frames.Accept(id=2, **AT))
    await wire.until(frames.Accepted)
    return link, wire


async def test_a_greeting_is_answered_with_the_hubs_terms() -> None:
    async with door() as here:
        _, wire = await here.greeted()
        welcome = wire.frames[0]
        assert (welcome.re, welcome.session_epoch, welcome.hub_id, welcome.hub_epoch) == (1, 1, "hub-1", 1)
        assert welcome.lease_ms == 180_000
        assert 18_000 <= welcome.beat_ms <= 20_000
        assert welcome.limits.accept_ms == 30_000
        assert here.links.connected == 1


async def test_nothing_is_welcomed_before_its_commit() -> None:
    async with door() as here:
        here.stage.close_gate()
        link, wire = here.plug()
        here.say(link, hello())
        async with asyncio.timeout(5):
            await here.stage.store.began.wait()
        await turns()
        assert wire.frames == []
        here.stage.store.gate.set()
        await wire.until(frames.Welcome)


async def test_the_whole_way_from_hello_to_the_acknowledged_result() -> None:
    async with door() as here:
        link, wire = await accepted(here)
        here.say(link, frames.Beat(id=3, sent_mono=5, leases=(frames.LeaseBeat(**AT, phase=Phase.WOKEN),)))
        beaten = await wire.until(frames.Beaten)
        assert (beaten.re, beaten.sent_mono, beaten.leases[0].ok, beaten.leases[0].lease_ms) == (3, 5, True, 180_000)
        here.say(link, result())
        assert (await wire.until(frames.ResultAck)).verdict is Verdict.APPLIED
        here.say(link, result())
        assert (await wire.until(frames.ResultAck, 2)).verdict is Verdict.DUPLICATE
        kinds = [type(frame).__name__ for frame in wire.frames]
        assert kinds == ["Welcome", "Assign", "Accepted", "Beaten", "ResultAck", "ResultAck"]


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        (frames.Decline(id=7, **AT, code="busy"), frames.Ok),
        (frames.GiveBack(id=7, **AT, reason="unstarted"), frames.Ok),
        (frames.Accept(id=7, **AT), frames.Accepted),
    ],
)
async def test_no_answer_leaves_before_its_commit(frame: Any, answer: Any) -> None:
    """The ok to a decline was the link's own and left at once."""
    async with door() as here:
        link, wire = await here.greeted()
        await here.stage.submit()
        await wire.until(frames.Assign)
        here.stage.close_gate()
        here.say(link, frame)
        async with asyncio.timeout(5):
            await here.stage.store.began.wait()
        await turns(20)
        assert wire.of(answer) == []
        here.stage.store.gate.set()
        told = await wire.until(answer)
        if answer is frames.Ok:
            assert told.re == 7


async def test_a_question_its_answer_and_the_note_of_it() -> None:
    async with door() as here:
        link, wire = await accepted(here)
        here.say(link, frames.Question(id=4, **AT, qid="q", text="which?", options=("a", "b")))
        assert (await wire.until(frames.Ok)).re == 4
        await here.stage.conductor.do(c.Answer(n=TaskId(1), text="a"))
        control = await wire.until(frames.Control)
        assert (control.id, control.cid, control.kind, control.text) == (control.cid, control.cid, "answer", "a")
        here.say(link, frames.Ok(re=control.id))
        async with asyncio.timeout(5):
            while here.stage.conductor._live.cluster.controls:
                await asyncio.sleep(0)


async def test_what_follows_a_grant_waits_for_its_spec() -> None:
    """Order: a cancel must not reach the sidecar before the lease it cancels."""
    async with door() as here:
        link, wire = await here.greeted()
        await here.stage.submit()
        await wire.until(frames.Assign)
        here.specs_read.clear()
        here.say(link, frames.Accept(**AT))
        here.say(link, frames.Accept(**AT))
        await here.stage.conductor.do(c.Cancel(n=TaskId(1)))
        await turns(20)
        assert wire.of(frames.Accepted) == wire.of(frames.Control) == []
        here.specs_read.set()
        await wire.until(frames.Control)
        assert [type(frame).__name__ for frame in wire.frames[2:]] == ["Accepted", "Accepted", "Control"]


async def test_a_spec_read_with_its_commit_is_sent_at_once_and_not_remembered() -> None:
    async with door() as here:
        here.read_with_commit = True
        link, wire = await here.greeted()
        await here.stage.submit(title="as committed")
        await wire.until(frames.Assign)
        here.specs_read.clear()  # from now on reading takes for ever
        here.say(link, frames.Accept(**AT))
        accepted = await wire.until(frames.Accepted)
        assert accepted.spec.title == "as committed"
        here.say(link, frames.Accept(**AT))
        await turns(20)
        assert len(wire.of(frames.Accepted)) == 1, "a grant without a commit is read anew"


async def test_a_spec_that_cannot_be_read_holds_nothing_up() -> None:
    async with door() as here:
        link, wire = await here.greeted()
        await here.stage.submit()
        await wire.until(frames.Assign)
        here.description = "gone"
        here.say(link, frames.Accept(**AT))
        await here.stage.conductor.do(c.Cancel(n=TaskId(1)))
        await wire.until(frames.Control)
        assert wire.of(frames.Accepted) == []


async def test_a_large_spec_travels_as_a_blob() -> None:
    async with door() as here:
        here.metadata = {"text": "x" * 70_000}
        _, wire = await accepted(here)
        told = wire.of(frames.Accepted)[0]
        assert told.spec is None
        body = here.blobs[told.spec_ref]
        assert hashlib.sha256(body).hexdigest() == told.spec_ref
        assert decode_spec(body).metadata == here.metadata


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_newer_session_closes_the_older_and_outlives_its_clean_up() -> None:
    async with door() as here:
        old, old_wire = await here.greeted()
        _, new_wire = await here.greeted()
        assert await old_wire.until_closed() == 4409
        assert new_wire.closed is None
        old.closed()
        await turns()
        assert here.knows("w1").connected
        assert new_wire.of(frames.Welcome)[0].session_epoch == 2


async def test_a_quick_reconnect_behind_a_slow_disk_finds_its_own_welcome() -> None:
    """Both hellos were of one boot: the newer link took the older one's welcome, and was closed as superseded by itself."""
    async with door() as here:
        here.stage.close_gate()
        first, first_wire = here.plug()
        here.say(first, hello())
        async with asyncio.timeout(5):
            await here.stage.store.began.wait()
        first.closed()
        second, second_wire = here.plug()
        here.say(second, hello())
        await turns()
        here.stage.store.gate.set()
        welcome = await second_wire.until(frames.Welcome)
        await turns(20)
        assert (welcome.session_epoch, second.epoch) == (2, 2)
        assert second_wire.closed is None
        assert first_wire.frames == []
        assert here.knows("w1").connected and here.links.connected == 1
        assert here.links._greeting == {}


async def test_a_socket_gone_before_its_welcome_is_seen_off() -> None:
    async with door() as here:
        here.stage.close_gate()
        link, _ = here.plug()
        here.say(link, hello())
        async with asyncio.timeout(5):
            await here.stage.store.began.wait()
        link.closed()
        here.stage.store.gate.set()
        await here.stage.published.until(lambda: "agent.joined" in here.stage.published.kinds())
        await turns(20)
        assert not here.knows("w1").connected
        assert here.links.connected == 0 and here.links._greeting == {} and here.links._all == set()


async def test_another_installation_hears_that_the_name_is_in_use_and_leaves_nothing_behind() -> None:
    async with door() as here:
        await here.greeted()
        link, wire = here.plug()
        here.say(link, hello(install_id="elsewhere"))
        assert await wire.until_closed() == 4410
        assert (wire.frames[0].code, wire.frames[0].fatal, wire.frames[0].re) == ("name_in_use", True, 1)
        assert here.links._greeting == {}


@pytest.mark.parametrize(("newer", "code"), [(0, 4505), (1, None)])
async def test_a_removed_agent_is_told_to_end_until_it_has_a_newer_token(newer: int, code: int | None) -> None:
    async with door() as here:
        link, _ = await here.greeted()
        link.closed()
        await here.stage.conductor.do(c.RemoveAgent(actor="ann", agent=AgentId("w1")))
        [removed] = here.stage.store.rows("SELECT removed_at FROM agent")
        made = removed["removed_at"] + newer
        link, wire = here.plug(Identity("x", frozenset({Scope.AGENT}), agents=frozenset({ANY_AGENT}), created_at=made))
        here.say(link, hello())
        if code is None:
            await wire.until(frames.Welcome)
        else:
            assert await wire.until_closed() == code
            assert wire.frames[0].code == "agent_removed"


async def test_a_frame_of_another_session_is_refused_and_changes_nothing() -> None:
    async with door() as here:
        link, wire = await here.greeted()
        await here.stage.submit()
        await wire.until(frames.Assign)
        here.say(link, frames.Accept(id=5, e=SessionEpoch(77), **AT))
        told = await wire.until(frames.Error)
        assert (told.re, told.code) == (5, "stale_session")
        assert here.stage.conductor.scheduler.states()[TaskState.ASSIGNED] == 1


async def test_a_link_that_goes_is_given_its_grace() -> None:
    async with door() as here:
        link, _ = await here.greeted()
        link.closed()
        await turns()
        agent = here.knows("w1")
        assert (agent.connected, agent.state) == (False, AgentState.IDLE)
        assert here.links.connected == 0


async def test_a_goodbye_is_answered_and_offline_at_once() -> None:
    async with door() as here:
        link, wire = await here.greeted()
        here.say(link, frames.Bye(id=6, reason="done"))
        assert (await wire.until(frames.Ok)).re == 6
        await here.stage.published.until(lambda: "agent.left" in here.stage.published.kinds())
        assert here.knows("w1").state is AgentState.OFFLINE


async def test_reconnecting_with_what_is_held_keeps_it() -> None:
    async with door() as here:
        link, _ = await accepted(here)
        link.closed()
        _, wire = await here.greeted(held=(frames.Held(**AT, phase=Phase.WOKEN),))
        assert wire.frames[0].verdicts == (frames.HeldAnswer(**AT, verdict=HeldVerdict.KEEP),)


async def test_a_rebuild_makes_every_link_reconcile() -> None:
    async with door() as here:
        _, wire = await accepted(here)
        here.stage.store.faults.append(CommitFailed("no"))
        with pytest.raises(Exception, match="commit failed"):
            await here.stage.conductor.do(c.PauseAgent(agent=AgentId("w1")))
        assert await wire.until_closed() == 4010
        await here.stage.published.until(lambda: here.stage.published.resyncs)
        _, wire = await here.greeted(held=(frames.Held(**AT, phase=Phase.WOKEN),))
        assert wire.frames[0].verdicts[0].verdict is HeldVerdict.KEEP


async def test_a_frame_while_the_hub_rebuilds_closes_for_a_reconciliation() -> None:
    async with door() as here:
        link, wire = await here.greeted()
        live, here.stage.conductor.scheduler_ = here.stage.conductor.scheduler_, None
        here.say(link, frames.Beat(sent_mono=1))
        here.stage.conductor.scheduler_ = live
        assert await wire.until_closed() == 4010


# ── bad frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_first_frame_is_hello() -> None:
    async with door() as here:
        link, wire = here.plug()
        here.say(link, frames.Beat(id=3, sent_mono=1))
        assert (wire.frames[0].re, wire.frames[0].code) == (3, "no_session")


async def test_one_hello_opens_one_session() -> None:
    async with door() as here:
        link, wire = await here.greeted()
        here.say(link, hello(id=8))
        assert (await wire.until(frames.Error)).code == "already_greeted"
        assert here.knows("w1").epoch == 1


async def test_another_version_is_terminal() -> None:
    async with door() as here:
        link, wire = here.plug()
        here.say(link, hello(versions=("agentcom.v9",)))
        assert await wire.until_closed() == 4502


async def test_a_token_for_one_agent_speaks_for_no_other() -> None:
    async with door() as here:
        link, wire = here.plug(Identity("w1", frozenset({Scope.AGENT}), agents=frozenset({AgentId("w1")})))
        here.say(link, hello("w2"))
        assert await wire.until_closed() == 4503
        assert here.knows("w2") is None


async def test_a_token_of_one_installation_serves_no_other() -> None:
    theirs = Identity("m1", frozenset({Scope.AGENT}), agents=frozenset({AgentId("w1")}), install_id="i-w1")
    async with door() as here:
        stranger, closed = here.plug(theirs)
        here.say(stranger, hello("w1", install_id="elsewhere"))
        assert await closed.until_closed() == 4503
        assert "another installation" in closed.frames[0].message
        link, wire = here.plug(theirs)
        here.say(link, hello("w1"))
        assert await wire.until(frames.Welcome)


async def test_revoking_a_token_closes_what_came_in_with_it_and_nothing_else() -> None:
    async with door() as here:
        _, other = await here.greeted("w2")
        link, wire = here.plug(Identity("m1", frozenset({Scope.AGENT}), agents=frozenset({ANY_AGENT}), token="5f3a9c01"))
        here.say(link, hello("w1"))
        await wire.until(frames.Welcome)
        here.links.revoked("5f3a9c01")
        assert await wire.until_closed() == 4504
        assert other.closed is None
        assert here.links.connected == 1


async def test_a_session_ends_with_its_token() -> None:
    async with door(Terms(beat_us=100_000, lease_us=900_000)) as here:
        link, wire = here.plug(Identity("m1", frozenset({Scope.AGENT}), agents=frozenset({ANY_AGENT}), ends_at=1))
        here.say(link, hello("w1"))
        assert await wire.until_closed() == 4005


async def test_an_unknown_type_is_unsupported_and_no_violation() -> None:
    async with door() as here:
        link, wire = await here.greeted()
        for i in range(30):
            link.received(raw(t="transcript", id=i, task=1))
        assert wire.closed is None
        assert {(frame.code, frame.re) for frame in wire.of(frames.Error)} == {("unsupported", i) for i in range(30)}


async def test_ten_violations_in_a_minute_are_terminal() -> None:
    async with door() as here:
        link, wire = await here.greeted()
        for _ in range(9):
            link.received(b"{nonsense")
        assert wire.closed is None
        link.received(raw(t="accept", id=4, task="one"))
        assert await wire.until_closed() == 4501
        told = wire.of(frames.Error)[-1]
        assert (told.re, told.code) == (4, "malformed")
        assert {error.loc for error in told.errors} >= {"accept.task", "accept.lease_epoch"}


async def test_a_flood_of_frames_closes_the_link_and_no_other() -> None:
    async with door() as here:
        link, wire = await here.greeted()
        _, quiet = await here.greeted("w2")
        for n in range(1300):
            here.say(link, frames.Progress(id=n + 2, **AT, n=n))
        assert wire.closed == (4009, "more than 1200 frames a minute")
        assert quiet.closed is None


async def test_beats_and_results_may_come_ten_times_as_often() -> None:
    async with door() as here:
        link, wire = await here.greeted()
        for n in range(2000):
            here.say(link, frames.Beat(id=n + 2, sent_mono=n))
        assert wire.closed is None


async def test_answers_cost_a_sidecar_nothing_however_fast_it_works() -> None:
    async with door() as here:
        link, wire = await here.greeted()
        budget = link._budget._tokens
        for n in range(1, 41):
            at: dict[str, Any] = {"task": TaskId(n), "lease_epoch": LeaseEpoch(1)}
            await here.stage.submit()
            await wire.until(frames.Assign, n)
            here.say(link, frames.Accept(id=n + 2, **at))
            await wire.until(frames.Accepted, n)
            done = frames.Result(id=n + 2, **at, outcome=Outcome.SUCCEEDED, sha256="ab" * 32)
            here.say(link, done)
            await wire.until(frames.ResultAck, n)
        assert link._budget._tokens >= budget - 1


async def test_ten_violations_over_a_longer_time_are_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VIOLATION_WINDOW_S", 0.0)
    async with door() as here:
        link, wire = await here.greeted()
        for _ in range(30):
            link.received(b"{nonsense")
        assert wire.closed is None


async def test_a_malformed_result_still_ends_in_a_verdict_and_is_no_violation() -> None:
    async with door() as here:
        link, wire = await accepted(here)
        body = raw(t="result", id=9, task=1, lease_epoch=1, outcome="triumph", sha256="short")
        for _ in range(12):
            link.received(body)
        await wire.until(frames.ResultAck, 12)
        assert [frame.verdict for frame in wire.of(frames.ResultAck)] == [Verdict.APPLIED, *[Verdict.DUPLICATE] * 11]
        assert wire.closed is None
        [row] = here.stage.store.rows("SELECT body FROM salvage")
        assert row["body"].encode() == body


async def test_a_result_of_an_attempt_out_of_memory_is_settled_from_its_row() -> None:
    async with door() as here:
        link, wire = await here.greeted()
        frame = frames.Result(task=TaskId(55), lease_epoch=LeaseEpoch(3), outcome=Outcome.SUCCEEDED, sha256="ab" * 32)
        here.say(link, frame)
        assert (await wire.until(frames.ResultAck)).verdict is Verdict.SALVAGED
        assert result_digest(frame) != frame.sha256


async def test_no_hello_in_time_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELLO_S", 0.001)
    async with door() as here:
        _, wire = here.plug()
        assert await wire.until_closed() == 4408
        assert here.links._all == set()


async def test_nothing_is_heard_or_said_after_the_close() -> None:
    async with door() as here:
        link, wire = await here.greeted()
        link.close(4000, "shutdown")
        seen = len(wire.frames)
        link.close(4000, "again")
        here.say(link, frames.Beat(sent_mono=1))
        link.send(frames.Ok())
        assert len(wire.frames) == seen


async def test_a_drain_announces_itself_and_spreads_the_return() -> None:
    async with door() as here:
        wires = [(await here.greeted(agent))[1] for agent in ("w1", "w2", "w3")]
        await here.links.drain(0, 1.0)
        told = [wire.of(frames.Goaway)[0].reconnect_after_ms for wire in wires]
        assert len(set(told)) == 3 and all(1000 <= after < 2000 for after in told)
        assert [wire.closed[0] for wire in wires if wire.closed is not None] == [4000] * 3
