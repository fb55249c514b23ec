"""The conductor: what waits for its commit, what may not, what happens when a commit fails, and who wakes it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hub.core import commands as c
from hub.core.decision import Beaten, GrantLease, PushAssign
from hub.core.errors import IllegalTransition, OutcomeUnknown, Refused, StoreFull
from hub.core.lease import Terms
from hub.core.rows import EventRow
from hub.core.scheduler import HANDLERS
from hub.ids import AgentId, Outcome, SessionEpoch, TaskId, TaskState
from hub.services import conductor as module
from hub.services.clock import STALL_US, SteadyClock
from hub.services.conductor import Conductor
from hub.store.base import CommitFailed, StoreBroken, Tx
from tests.support.cluster import SHA, lease, needs
from tests.support.conductor import Stage, nothing_leaves_before_its_commit, stage, turns
from tests.support.stores import GatedStore

W1 = AgentId("w1")


def beat(n: int, lease_epoch: int = 1, epoch: int = 1) -> c.Beat:
    return c.Beat(agent=W1, session_epoch=SessionEpoch(epoch), leases=(lease(n, lease_epoch),))


async def test_nothing_leaves_before_its_commit() -> None:
    await nothing_leaves_before_its_commit()


async def test_a_refusal_that_rests_on_an_uncommitted_decision_waits_for_it() -> None:
    async with stage() as here:
        here.close_gate()
        first = asyncio.ensure_future(here.submit(unique_key="u"))
        second = asyncio.ensure_future(here.submit(title="other", unique_key="u"))
        async with asyncio.timeout(5):
            await here.store.began.wait()
        await turns()
        assert not second.done()
        here.store.gate.set()
        await first
        with pytest.raises(Refused, match="unique key"):
            await second


async def test_a_refusal_with_nothing_in_flight_is_immediate() -> None:
    async with stage() as here:
        here.close_gate()
        with pytest.raises(Refused, match="no live task"):
            async with asyncio.timeout(5):
                await here.conductor.do(c.Cancel(n=TaskId(9)))


# ── the one exception ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def uncommitted(here: Stage, command: Any) -> None:
    """Apply a command whose commit hangs."""
    here.close_gate()
    here.conductor.post(command)
    async with asyncio.timeout(5):
        await here.store.began.wait()


async def test_beaten_ok_of_a_committed_lease_overtakes_a_hanging_commit() -> None:
    async with stage() as here:
        n = await here.working()
        await uncommitted(here, c.PauseAgent(agent=W1))
        here.conductor.post(beat(n))
        [told] = here.published.effects_seen
        assert isinstance(told, Beaten) and told.leases[0].ok


async def test_beaten_ok_waits_when_an_uncommitted_decision_touches_the_task() -> None:
    async with stage() as here:
        n = await here.working()
        await uncommitted(here, c.Cancel(n=TaskId(n)))
        here.conductor.post(beat(n))
        await turns()
        assert not any(isinstance(effect, Beaten) for effect in here.published.effects_seen)
        here.store.gate.set()
        await here.published.until(lambda: any(isinstance(effect, Beaten) for effect in here.published.effects_seen))


async def test_beaten_ok_waits_for_the_commit_of_its_own_grant() -> None:
    async with stage() as here:
        await here.hello()
        n = await here.submit()
        here.published.effects_seen.clear()
        await uncommitted(here, c.Accept(agent=W1, session_epoch=SessionEpoch(1), n=TaskId(n), lease_epoch=1))  # type: ignore[arg-type]
        here.conductor.post(beat(n))
        await turns()
        assert here.published.effects_seen == []
        here.store.gate.set()
        await here.published.until(lambda: len(here.published.effects_seen) == 2)
        assert [type(effect) for effect in here.published.effects_seen] == [GrantLease, Beaten]


async def test_beaten_lost_waits_for_its_group() -> None:
    async with stage() as here:
        n = await here.working()
        await uncommitted(here, c.PauseAgent(agent=W1))
        here.conductor.post(beat(n, lease_epoch=7))
        await turns()
        assert here.published.effects_seen == []


# ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_arrives_during_a_commit_forms_the_next_group() -> None:
    async with stage() as here:
        here.close_gate()
        first = asyncio.ensure_future(here.submit(title="first"))
        async with asyncio.timeout(5):
            await here.store.began.wait()
        rest = [asyncio.ensure_future(here.submit(title=f"t{i}")) for i in range(20)]
        await turns()
        here.store.gate.set()
        numbers = [await first, *[await one for one in rest]]
        assert numbers == list(range(1, 22))
        assert here.published.groups == [1, 20]


async def test_a_submit_that_finds_an_idle_agent_is_claimed_in_the_same_group() -> None:
    async with stage() as here:
        await here.hello()
        here.store.groups.clear()
        await here.submit()
        [group] = here.store.groups
        assert [event.kind for event in group.events] == ["task.submitted", "task.queued", "task.assigned"]
        assert any(isinstance(effect, PushAssign) for effect in here.published.effects_seen)


async def test_a_record_operation_that_raises_rolls_back_alone() -> None:
    def good(tx: Tx) -> str:
        tx.run("meta_set", key="good", value="1")
        tx.emit(EventRow(tx.now, "test.good", "ann"))
        return "fine"

    def bad(tx: Tx) -> None:
        tx.run("meta_set", key="bad", value="1")
        tx.emit(EventRow(tx.now, "test.bad", "ann"))
        raise LookupError("not there")

    async with stage() as here:
        here.close_gate()
        blocker = asyncio.ensure_future(here.submit(title="blocker"))
        async with asyncio.timeout(5):
            await here.store.began.wait()
        asked = [asyncio.ensure_future(here.conductor.record(operation)) for operation in (good, bad, good)]
        submitted = asyncio.ensure_future(here.submit())
        await turns()
        here.store.gate.set()
        await blocker
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert outcomes[0] == outcomes[2] == "fine"
        assert isinstance(outcomes[1], LookupError)
        assert await submitted == 2
        assert {row["key"] for row in here.store.rows("SELECT key FROM meta")} == {"good"}
        assert "test.bad" not in here.published.kinds()
        assert [seq for seq, _ in here.published.events_seen] == list(range(1, len(here.published.events_seen) + 1))


async def test_a_transaction_is_dead_after_its_operation() -> None:
    kept: list[Tx] = []
    async with stage() as here:
        await here.conductor.record(kept.append)
        with pytest.raises(RuntimeError, match="over"):
            kept[0].one("meta_get", key="x")


async def test_a_cancelled_caller_does_not_cancel_its_write() -> None:
    async with stage() as here:
        here.close_gate()
        asked = asyncio.ensure_future(here.submit())
        async with asyncio.timeout(5):
            await here.store.began.wait()
        asked.cancel()
        await turns()
        here.store.gate.set()
        await here.published.until(lambda: "task.submitted" in here.published.kinds())
        assert here.store.rows("SELECT state FROM task") == [{"state": "queued"}]


async def test_too_much_that_waits_for_the_disk_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNCOMMITTED", 3)
    async with stage() as here:
        n = await here.working()
        here.close_gate()
        waiting = [asyncio.ensure_future(here.submit(title=f"t{i}")) for i in range(3)]
        await turns()
        with pytest.raises(Refused) as refused:
            await here.submit(title="one more")
        assert (refused.value.status, refused.value.code, refused.value.retryable) == (503, "busy", True)
        with pytest.raises(Refused):
            await here.conductor.record(lambda tx: None)
        here.conductor.post(
            c.Report(agent=W1, session_epoch=SessionEpoch(1), n=TaskId(n), lease_epoch=1, outcome=Outcome.SUCCEEDED, sha256=SHA)  # type: ignore[arg-type]
        )
        here.store.gate.set()
        await asyncio.gather(*waiting)
        await here.published.until(lambda: "task.done" in here.published.kinds())


async def test_an_old_backlog_is_503_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAIT_S", 0.0)
    async with stage() as here:
        here.close_gate()
        first = asyncio.ensure_future(here.submit())
        await turns()
        with pytest.raises(Refused, match="wait for the disk"):
            await here.submit(title="late")
        here.store.gate.set()
        await first


# ── failing ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_failed_commit_publishes_nothing_and_the_hub_recovers() -> None:
    async with stage() as here:
        n = await here.working()
        discarded = here.conductor.scheduler_
        here.store.faults.append(CommitFailed("the disk hiccuped"))
        here.close_gate()
        lost = asyncio.ensure_future(here.submit())
        behind = asyncio.ensure_future(here.conductor.record(lambda tx: None))
        async with asyncio.timeout(5):
            await here.store.began.wait()
        here.store.gate.set()
        for asked in (lost, behind):
            with pytest.raises(OutcomeUnknown):
                await asked
        await here.published.until(lambda: here.published.resyncs)
        assert here.published.effects_seen == []
        assert here.published.kinds() == []
        assert here.conductor.scheduler_ is not discarded
        assert here.conductor.scheduler.states()[TaskState.WORKING] == 1, "what was committed is back"
        assert await here.submit(title="again") == n + 1, "the number of what never happened is free"
        await here.hello()


async def test_what_was_decided_during_a_failing_commit_fails_with_it() -> None:
    async with stage() as here:
        here.store.faults.append(CommitFailed("no"))
        here.close_gate()
        first = asyncio.ensure_future(here.submit(title="a"))
        async with asyncio.timeout(5):
            await here.store.began.wait()
        second = asyncio.ensure_future(here.submit(title="b"))
        await turns()
        here.store.gate.set()
        for asked in (first, second):
            with pytest.raises(OutcomeUnknown):
                await asked
        await here.published.until(lambda: here.published.resyncs)
        assert await here.submit(title="c") == 1


async def broken(*faults: Exception | None) -> BaseException:
    """Let submits meet these faults until the conductor gives up; what it raised."""
    here = Stage(Terms())
    await here.conductor.open()
    here.store.faults.extend(faults)
    run = asyncio.create_task(here.conductor.run())
    for fault in faults:
        try:
            await here.submit()
        except OutcomeUnknown:
            assert fault is not None
        await turns()
    async with asyncio.timeout(5):
        [caught] = await asyncio.gather(run, return_exceptions=True)
    assert isinstance(caught, BaseExceptionGroup)
    return caught.exceptions[0]


async def test_two_failures_in_a_row_end_the_process() -> None:
    assert isinstance(await broken(CommitFailed("no"), CommitFailed("no")), StoreBroken)


async def test_a_broken_store_ends_the_process_at_once() -> None:
    assert isinstance(await broken(StoreBroken("I/O error")), StoreBroken)


async def test_a_success_between_two_failures_forgives_the_first() -> None:
    async with stage() as here:
        for i in range(3):
            here.store.faults.append(CommitFailed("no"))
            with pytest.raises(OutcomeUnknown):
                await here.submit()
            await here.published.until(lambda: here.published.resyncs)
            here.published.resyncs = 0
            await here.submit(title=f"fine {i}")


async def test_a_rebuild_that_cannot_be_committed_ends_the_process() -> None:
    """The opening commit's failure used to escape as itself."""
    here = Stage(Terms())
    await here.conductor.open()
    run = asyncio.create_task(here.conductor.run())
    await here.hello()
    here.store.faults.extend([CommitFailed("no"), CommitFailed("still no")])
    with pytest.raises(OutcomeUnknown):
        await here.submit()
    [caught] = await asyncio.gather(run, return_exceptions=True)
    assert isinstance(caught, BaseExceptionGroup) and isinstance(caught.exceptions[0], StoreBroken)


async def test_a_full_disk_is_the_callers_and_the_hub_waits_for_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an agent connected the rebuild itself has rows to write: on a full disk it ended the process."""
    monkeypatch.setattr(module, "FULL_RETRY_S", 0.0)
    async with stage() as here:
        await here.hello()
        here.store.faults.extend([StoreFull("full"), StoreFull("full"), StoreFull("full"), None])
        with pytest.raises(StoreFull) as full:
            await here.submit()
        assert full.value.status == 507
        await here.published.until(lambda: here.published.resyncs)
        assert await here.submit() == 1


async def test_a_command_that_breaks_off_half_way_is_never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect left the state half changed, and everything after it was decided on that."""

    def half(step: Any, command: c.Hold) -> None:
        task = step.task(command.n)
        task.lease_epoch += 17
        raise IllegalTransition("a defect")

    async with stage() as here:
        n = await here.submit()
        monkeypatch.setitem(HANDLERS, c.Hold, half)  # type: ignore[arg-type]
        with pytest.raises(IllegalTransition):
            await here.conductor.do(c.Hold(n=TaskId(n)))
        with pytest.raises(OutcomeUnknown):
            here.conductor.post(c.Cancel(n=TaskId(n)))
        await here.published.until(lambda: here.published.resyncs)
        answer: Any = await here.conductor.do(c.Cancel(n=TaskId(n)))
        assert answer.lease_epoch == 0


async def test_a_stopping_conductor_decides_nothing_it_cannot_write() -> None:
    """Applied and then not written, a second accept was granted from memory alone."""
    async with stage() as here:
        await here.hello()
        n = await here.submit()
        here.published.effects_seen.clear()
        await here.conductor.close()
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                here.conductor.post(c.Accept(agent=W1, session_epoch=SessionEpoch(1), n=TaskId(n), lease_epoch=1))  # type: ignore[arg-type]
        assert here.published.effects_seen == []
        assert here.conductor.scheduler.states()[TaskState.ASSIGNED] == 1


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_hanging_commit_counts_against_nobodys_lease() -> None:
    now = 10_000_000
    async with stage() as here:
        clock = here.conductor.clock = SteadyClock(lambda: now)
        before = clock.mono()
        here.close_gate()
        asked = asyncio.ensure_future(here.submit())
        async with asyncio.timeout(5):
            await here.store.began.wait()
        for _ in range(600):
            now += 500_000
            clock.mono()
        here.store.gate.set()
        await asked
        assert clock.mono() - before <= STALL_US
        now += 500_000
        assert clock.mono() - before > STALL_US - 1, "and afterwards time passes again"


async def test_the_schedulers_own_deadline_wakes_it() -> None:
    async with stage(Terms(accept_us=60_000)) as here:
        await here.hello()
        await here.submit()
        await here.published.until(lambda: ("task.queued", "accept_timeout") in causes(here))
        assert here.conductor.safety_pass() == 0


async def test_progress_never_comes_from_the_safety_pass() -> None:
    claims: list[int] = []
    async with stage(Terms(accept_us=40_000)) as here:
        here.conductor.on_safety_claims = claims.append
        for agent in ("w1", "w2", "w3"):
            await here.hello(agent)
        for i in range(10):
            n = await here.submit(title=f"t{i}")
            assert here.conductor.safety_pass() == 0
            holder = here.conductor._live.cluster.tasks[n].holder
            if holder is not None and i % 2:
                epoch = here.conductor._live.cluster.agents[holder].epoch
                here.conductor.post(
                    c.Report(
                        agent=holder, session_epoch=epoch, n=TaskId(n), lease_epoch=1, outcome=Outcome.SUCCEEDED, sha256=SHA
                    )  # type: ignore[arg-type]
                )
                assert here.conductor.safety_pass() == 0
        await here.published.until(lambda: ("task.queued", "accept_timeout") in causes(here))
        assert here.conductor.safety_pass() == 0
    assert claims == []


async def test_a_deadline_before_a_frozen_clock_does_not_make_the_loop_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the clock standing still just before a deadline each tick armed the next at once, and each waited for the commit."""
    async with stage(Terms(accept_us=60_000)) as here:
        await here.hello()
        await here.submit()
        due = here.conductor._live.next_deadline(here.conductor.clock.stamp())
        assert due is not None
        here.conductor.clock.mono = lambda: due - 1  # type: ignore[method-assign]
        here.close_gate()
        asked = asyncio.ensure_future(here.submit(title="hangs"))
        await turns()
        delays: list[float] = []
        loop = asyncio.get_running_loop()
        call_later = loop.call_later
        monkeypatch.setattr(loop, "call_later", lambda delay, *args: (delays.append(delay), call_later(60, *args))[1])
        for _ in range(50):
            assert here.conductor._timer is not None
            here.conductor._timer[1].cancel()
            here.conductor._tick()
        monkeypatch.undo()
        assert here.conductor._pending == [], "an early tick leaves nothing behind"
        assert len(delays) == 50 and min(delays) >= module.MIN_TIMER_S
        here.store.gate.set()
        await asked


def causes(here: Stage) -> list[tuple[str, str | None]]:
    return [(event.kind, event.cause) for _, event in here.published.events_seen]


async def test_the_group_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_DECISIONS", 4)
    async with stage() as here:
        here.close_gate()
        asked = [asyncio.ensure_future(here.submit(title=f"t{i}")) for i in range(10)]
        await turns()
        here.store.gate.set()
        await asyncio.gather(*asked)
        assert max(here.published.groups) <= 4
        assert sum(here.published.groups) == 10


def test_the_conductor_says_what_it_is_while_rebuilding() -> None:
    here = Conductor(GatedStore(), None, None, None, Terms(), 1, None)  # type: ignore[arg-type]
    with pytest.raises(OutcomeUnknown, match="rebuilding"):
        _ = here.scheduler


async def test_a_task_that_is_being_pruned_cannot_be_named_and_one_that_is_named_cannot_be_pruned() -> None:
    """Between the reading of a fact and its use the row could go: the group broke on a reference to nothing."""
    async with stage() as here:
        named, dead = here.conductor.facts.named, await here.submit(title="old")
        await here.conductor.do(c.Cancel(n=TaskId(dead)))
        await here.conductor.open()  # as after a restart: memory knows it no more
        assert named.doom([dead]) == [dead]
        with pytest.raises(Refused, match="nothing was submitted"):
            await here.submit(title="late", depends_on=(needs(dead),))
        named.settle()
        here.store.gate.clear()
        waiting = asyncio.create_task(here.submit(title="in time", depends_on=(needs(dead, "run"),)))
        async with asyncio.timeout(5):
            while not named._named:
                await asyncio.sleep(0)
        assert named.doom([dead]) == [], "until what names it is committed"
        here.store.gate.set()
        await waiting
        assert named.doom([dead]) == [dead], "from then on the row that names it keeps it"
