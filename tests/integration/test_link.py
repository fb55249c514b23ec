"""The link against a real WebSocket server: who it says it is, how it comes back, and that nothing blocks the beat."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from hub.ids import ControlKind, Lane, LeaseEpoch, Outcome, TaskId
from hub.wire import frames
from hub.wire.codes import Close
from hub.wire.spec import Spec, Usage
from sidecar.agent import Agent
from sidecar.backoff import Reconnect, Refused
from sidecar.core.holder import Holder
from sidecar.core.results import compose
from sidecar.journal import Journal, RealDisk
from sidecar.link import OUTBOX_BYTES, Link
from sidecar.runs.runner import Runner
from sidecar.runtimes.base import RunEnd
from sidecar.runtimes.command import CommandReader, SuccessRule
from sidecar.runtimes.mock import MockRuntime
from sidecar.settings import SettingsError
from sidecar.work import Tools
from sidecar.workspace.workspaces import GitIdentity, Workspaces
from tests.support.fake_hub import FakeHub, running

HELLO = frames.Hello(versions=("agentcom.v1",), agent_id="a", install_id="i", boot_id="b")


class Ears:
    """Greets, and remembers."""

    def __init__(self) -> None:
        self.wanted = True
        self.heard: list[frames.FromHub] = []
        self.opens = 0
        self.closes = 0
        self.link: Link | None = None

    def opened(self) -> None:
        self.opens += 1
        assert self.link is not None
        self.link.send(HELLO)

    def received(self, frame: frames.FromHub) -> None:
        self.heard.append(frame)

    def closed(self) -> None:
        self.closes += 1


def make_link(hub: FakeHub, ears: Ears, token: Callable[[], str] = lambda: "secret") -> Link:
    reconnect = Reconnect(Random(1), first_s=0.05)
    ears.link = Link(hub.url, token, agent="a", reconnect=reconnect, listener=ears, clock_s=time.monotonic)
    return ears.link


@contextlib.asynccontextmanager
async def linked(hub: FakeHub, ears: Ears, token: Callable[[], str] = lambda: "secret") -> AsyncIterator[Link]:
    link = make_link(hub, ears, token)
    task = asyncio.create_task(link.run(), name="link")
    try:
        yield link
    finally:
        await link.close()
        await asyncio.wait_for(task, 5)


async def test_it_says_who_it_is_in_a_header_and_greets() -> None:
    async with running() as hub, linked(hub, Ears()):
        await hub.expect(frames.Hello)
        assert hub.headers[0]["authorization"] == "Bearer secret"
        assert hub.headers[0]["sec-websocket-protocol"] == "agentcom.v1"
        assert "sec-websocket-extensions" not in hub.headers[0], "compression is off"


@pytest.mark.parametrize("code", [None, Close.SHUTDOWN, Close.SLOW, 1011])
async def test_it_comes_back_after_a_connection_ended(code: int | None) -> None:
    ears = Ears()
    async with running() as hub, linked(hub, ears):
        await hub.expect(frames.Hello)
        await hub.disconnect(code)
        await hub.expect(frames.Hello, 2)
        assert (ears.opens, ears.closes) == (2, 1)


async def test_it_comes_back_when_the_hub_was_away() -> None:
    hub, ears = FakeHub(), Ears()
    async with running(hub):
        link = make_link(hub, ears)
        task = asyncio.create_task(link.run(), name="link")
        await hub.expect(frames.Hello)
    async with running(hub):
        await hub.expect(frames.Hello, 2)
        await link.close()
        await asyncio.wait_for(task, 5)


async def test_a_final_close_code_ends_it() -> None:
    async with running() as hub:
        link = make_link(hub, Ears())
        task = asyncio.create_task(link.run(), name="link")
        await hub.expect(frames.Hello)
        await hub.disconnect(Close.REVOKED)
        with pytest.raises(Refused) as refused:
            await asyncio.wait_for(task, 5)
        assert refused.value.code == Close.REVOKED


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.BAD_GATEWAY, HTTPStatus.NOT_FOUND])
async def test_a_refusal_before_the_upgrade_is_not_final(status: HTTPStatus) -> None:
    async with running(FakeHub(refuse_with=status)) as hub, linked(hub, Ears()):
        await hub.until(lambda: hub.attempts >= 2)
        hub.refuse_with = None
        await hub.expect(frames.Hello)


async def test_an_unknown_version_is_final() -> None:
    async with running(FakeHub(refuse_with=HTTPStatus.UPGRADE_REQUIRED)) as hub:
        with pytest.raises(Refused):
            await asyncio.wait_for(make_link(hub, Ears()).run(), 5)


async def test_goaway_says_when_to_come_back() -> None:
    async with running() as hub, linked(hub, Ears()):
        await hub.expect(frames.Hello)
        await hub.send(frames.Goaway(reason="deploy", close_in_ms=0, reconnect_after_ms=600))
        left = time.monotonic()
        await hub.disconnect(Close.GOAWAY)
        await hub.expect(frames.Hello, 2)
        assert time.monotonic() - left >= 0.6


@pytest.mark.parametrize(
    ("text", "code"), [('{"t": "mail", "id": 4}', "unsupported"), ('{"t": "assign"}', "malformed"), ("nonsense", "malformed")]
)
async def test_a_frame_it_cannot_read_is_answered_and_the_link_lives_on(text: str, code: str) -> None:
    ears = Ears()
    async with running() as hub, linked(hub, ears):
        await hub.expect(frames.Hello)
        assert hub.socket is not None
        await hub.socket.send(text)
        error = await hub.expect(frames.Error)
        assert error.code == code
        await hub.socket.send(text)
        await hub.expect(frames.Error, 2)
        assert (ears.opens, ears.closes) == (1, 0)


async def test_more_than_the_socket_takes_drops_the_connection() -> None:
    ears = Ears()
    async with running() as hub, linked(hub, ears) as link:
        await hub.expect(frames.Hello)
        note = frames.Progress(task=TaskId(1), lease_epoch=LeaseEpoch(1), n=1, note="x" * 1000)
        for _ in range(2 * OUTBOX_BYTES // 1000):
            link.send(note)
        await hub.expect(frames.Hello, 2)


# --- an agent on the link


class SlowDisk(RealDisk):
    """Takes its time."""

    def sync(self, file) -> None:
        time.sleep(0.8)  # in the journal's thread
        super().sync(file)


@contextlib.asynccontextmanager
async def agent_on(hub: FakeHub, home: Path, disk: RealDisk | None = None) -> AsyncIterator[Agent]:
    workspaces = Workspaces(home / "workspaces", identity=GitIdentity(name="x", email="x@y.z"))
    tools = Tools(
        workspaces=workspaces,
        runner=Runner(home / "runs"),
        runtime=MockRuntime(),
        environment=lambda workspace, access: dict(workspace),
    )
    agent = Agent(
        "a",
        holder=Holder(HELLO, runtime="mock"),
        journal=Journal(home / "journal", disk),
        tools=tools,
        workspaces=workspaces,
        link=lambda listener: Link(
            hub.url, lambda: "secret", agent="a", reconnect=Reconnect(Random(1), first_s=0.05), listener=listener,
            clock_s=time.monotonic,
        ),
    )  # fmt: skip
    task = asyncio.create_task(agent.run(), name="agent")
    try:
        yield agent
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def spec(task: int = 1, **more) -> Spec:
    return Spec(task=TaskId(task), lease_epoch=LeaseEpoch(1), title="t", needs_change=False, **more)


async def test_a_slow_disk_delays_the_accept_but_never_the_beat(tmp_path: Path) -> None:
    async with running(FakeHub(beat_ms=50)) as hub, agent_on(hub, tmp_path, SlowDisk()):
        await hub.assign(spec())
        beats = len(hub.of(frames.Beat))
        await hub.expect(frames.Accept)
        assert len(hub.of(frames.Beat)) - beats >= 5


async def test_a_hub_that_does_not_answer_beats_is_left_and_greeted_again(tmp_path: Path) -> None:
    hub = FakeHub(beat_ms=50, answer_beats=False, limits=frames.Limits(resend_ms=300))
    async with running(hub), agent_on(hub, tmp_path):
        await hub.expect(frames.Hello, 2)


async def test_an_unanswered_result_is_sent_again_and_again_after_a_reconnection(tmp_path: Path) -> None:
    hub = FakeHub(answer_results=False, limits=frames.Limits(resend_ms=200))
    async with running(hub), agent_on(hub, tmp_path):
        await hub.assign(spec(metadata={"mock": [{"do": "no_commit"}]}))
        first = await hub.expect(frames.Result)
        again = await hub.expect(frames.Result, 2)
        assert again.sha256 == first.sha256
        await hub.disconnect()
        hello = await hub.expect(frames.Hello, 2)
        assert [item.sha256 for item in hello.outbox] == [first.sha256]
        hub.answer_results = True
        count = len(hub.of(frames.Result))
        await hub.expect(frames.Result, count + 1)


async def test_a_control_that_arrives_twice_is_obeyed_once_and_confirmed_twice(tmp_path: Path) -> None:
    async with running() as hub, agent_on(hub, tmp_path):
        await hub.assign(spec(metadata={"mock": [{"do": "question"}, {"do": "question", "qid": "q2"}]}))
        await hub.expect(frames.Question)
        answer = frames.Control(cid=1, task=TaskId(1), lease_epoch=LeaseEpoch(1), kind=ControlKind.ANSWER, qid="q1", text="a")
        await hub.send(answer)
        await hub.send(answer)
        await hub.expect(frames.Ok, 2)
        await hub.expect(frames.Question, 2)
        await hub.send(frames.Control(cid=2, task=TaskId(1), lease_epoch=LeaseEpoch(1), kind=ControlKind.ANSWER, qid="q2"))
        assert (await hub.expect(frames.Result)).outcome == "succeeded"


async def test_a_token_that_cannot_be_read_for_a_moment_is_waited_for() -> None:
    ears, missing = Ears(), [True, True]

    def token() -> str:
        if missing:
            missing.pop()
            raise SettingsError(Path("token"), ["cannot read the token"])
        return "secret"

    async with running() as hub, linked(hub, ears, token):
        await hub.expect(frames.Hello)
        missing.append(True)
        await hub.send(frames.Accepted(re=1, task=TaskId(1), lease_epoch=LeaseEpoch(1), lease_ms=1000, spec_ref="a" * 64))
        await hub.send(frames.Ok(re=1))
        async with asyncio.timeout(5):
            while not any(isinstance(frame, frames.Ok) for frame in ears.heard):
                await asyncio.sleep(0.01)
        (accepted,) = [frame for frame in ears.heard if isinstance(frame, frames.Accepted)]
        assert accepted.spec is None, "given back, like any spec that cannot be had"
        assert (ears.opens, ears.closes) == (1, 0)


class StuckDisk(RealDisk):
    """Takes nothing until it is told to."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def sync(self, file) -> None:
        self.free.wait()
        super().sync(file)


async def test_what_waits_for_a_stuck_disk_is_bounded_and_the_hub_is_greeted_when_it_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.agent.BACKLOG_EFFECTS", 50)
    hub, disk = FakeHub(), StuckDisk()
    steer = frames.Control(cid=1, task=TaskId(9), lease_epoch=LeaseEpoch(1), kind=ControlKind.STEER)
    async with running(hub), agent_on(hub, tmp_path, disk) as agent:
        try:
            await hub.assign(spec(metadata={"mock": [{"do": "no_commit"}]}))
            first = hub.socket
            with contextlib.suppress(ConnectionClosed):
                while hub.socket is first:  # each is answered, once the disk has taken the assignment
                    await hub.send(steer)
            before = hub.attempts
            await hub.until(lambda: hub.attempts >= before + 2)
            assert len(agent._queue) <= 5, "what was meant for the lost connection is gone, and nothing was added"
            assert len(hub.of(frames.Hello)) == 1, "no new connection is greeted meanwhile"
        finally:
            disk.free.set()
        await hub.expect(frames.Hello, 2)
        await hub.assign(spec(metadata={"mock": [{"do": "no_commit"}]}))
        assert (await hub.expect(frames.Result)).outcome == "succeeded"


class FullDisk(RealDisk):
    """Has room for the first bytes of a record, and no more, while it is full."""

    def __init__(self) -> None:
        self.full = False

    def open(self, path: Path) -> Any:
        disk = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                if not disk.full:
                    return super().write(data)
                super().write(data[:5])
                raise OSError(errno.ENOSPC, "No space left on device")

        return File(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+b")


async def test_on_a_full_disk_a_result_waits_the_beats_go_on_and_new_work_is_declined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sidecar ended at the first record without room: leases ran out, and work of hours was given to others."""
    monkeypatch.setattr("sidecar.writing.RETRY_S", 0.05)
    disk = FullDisk()
    async with running() as hub, agent_on(hub, tmp_path, disk) as agent:
        await hub.assign(spec(metadata={"mock": [{"do": "slow", "s": 3.0}, {"do": "no_commit"}]}))
        await hub.until(agent.holder.run_ids)
        disk.full = True  # while the agent is at work: whatever it ends with finds no room
        await hub.until(lambda: agent._writing._waits)
        beats = len(hub.of(frames.Beat))
        await hub.until(lambda: len(hub.of(frames.Beat)) > beats + 2)
        assert hub.of(frames.Result) == [], "nothing leaves before it is written down"
        await hub.send(frames.Assign(id=70, task=TaskId(99), lease_epoch=LeaseEpoch(1), lane=Lane.NORMAL))
        declined = await hub.expect(frames.Decline)
        assert (declined.task, declined.code) == (99, "disk_full")
        disk.full = False
        assert (await hub.expect(frames.Result)).outcome == "succeeded"


class Overspent(CommandReader):
    """A reader whose sums nobody checked."""

    def end(self, terminal, cwd: Path) -> RunEnd:
        return replace(super().end(terminal, cwd), usage=Usage(cost=float("inf")))


async def test_a_run_that_no_journal_could_give_back_fails_and_the_agent_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as hub:
        with monkeypatch.context() as patch:
            patch.setattr(MockRuntime, "reader", lambda _: Overspent(SuccessRule(), jsonl=True))
            async with agent_on(hub, tmp_path) as agent:
                await hub.assign(spec(metadata={"mock": [{"do": "no_commit"}]}))
                result = await hub.expect(frames.Result)
                assert result.outcome == "failed"
                assert "could not be read back" in result.error.message
                await hub.until(lambda: not agent.holder.holds_anything)
        async with agent_on(hub, tmp_path):
            await hub.expect(frames.Hello, 2)
            await hub.assign(spec(2, metadata={"mock": [{"do": "no_commit"}]}))
            assert (await hub.expect(frames.Result, 2)).outcome == "succeeded"


async def test_a_result_or_spec_that_no_journal_could_give_back_is_replaced_or_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overspent(self, step, delivered):
        return compose(self._held.key, Outcome.SUCCEEDED, None, delivered=delivered, usage=Usage(cost=float("inf")))

    monkeypatch.setattr("sidecar.work.Work._result", overspent)
    async with running() as hub, agent_on(hub, tmp_path) as agent:
        await hub.assign(spec(metadata={"mock": [{"do": "no_commit"}]}))
        result = await hub.expect(frames.Result)
        assert (result.outcome, result.error.code) == ("failed", "unwritable_record")
        await hub.until(lambda: not agent.holder.holds_anything)
        await hub.send(frames.Assign(task=TaskId(2), lease_epoch=LeaseEpoch(1), lane=Lane.NORMAL))
        accept = await hub.expect(frames.Accept, 2)
        large = spec(2, metadata={"n": 2**70})
        agent.received(frames.Accepted(re=accept.id, task=TaskId(2), lease_epoch=LeaseEpoch(1), lease_ms=9000, spec=large))
        assert (await hub.expect(frames.GiveBack)).reason == "unstarted"


async def test_a_workspace_that_cannot_be_removed_stays_and_the_agent_works_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(self, workspace) -> None:
        raise PermissionError(1, "somebody else's files")

    monkeypatch.setattr(Workspaces, "release", stuck)
    async with running() as hub, agent_on(hub, tmp_path):
        for task in (1, 2):
            await hub.assign(spec(task, metadata={"mock": [{"do": "no_commit"}]}))
            assert (await hub.expect(frames.Result, task)).outcome == "succeeded"
