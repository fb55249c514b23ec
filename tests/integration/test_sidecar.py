"""The whole sidecar as a process against a fake hub, with real git and scripted agents; killed where it hurts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.ids import ControlKind, HeldVerdict, LeaseEpoch, Phase, TaskId, TaskType, VerificationKind
from hub.wire import frames
from hub.wire.codec import result_digest
from hub.wire.spec import CheckJob, RepoRef, Spec, Verification
from sidecar.runs import sweep
from tests.support.fake_hub import FakeHub, running

ROOT = Path(__file__).parents[2]


def git(cwd: Path, *argv: str) -> str:
    identity = {"GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@y.z", "GIT_COMMITTER_NAME": "x", "GIT_COMMITTER_EMAIL": "x@y.z"}
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), **identity}
    return subprocess.run(["git", *argv], cwd=cwd, env=env, check=True, capture_output=True, text=True).stdout.strip()


class House:
    """A remote repository, a hub, and a sidecar that can be killed and started again."""

    def __init__(self, home: Path, hub: FakeHub) -> None:
        self.home = home
        self.hub = hub
        self.remote = home / "remote.git"
        self.runs = home / "runs.log"
        self.process: asyncio.subprocess.Process | None = None
        git(home, "init", "-q", "--bare", "-b", "main", str(self.remote))
        git(home, "clone", "-q", str(self.remote), "clone")
        (home / "clone" / "README").write_text("hello\n")
        git(home / "clone", "checkout", "-q", "-B", "main")
        git(home / "clone", "add", "-A")
        git(home / "clone", "commit", "-q", "-m", "Begin")
        git(home / "clone", "push", "-q", "origin", "main")

    async def start(self, *options: str, extra: str = "") -> None:
        config = self.home / "sidecar.toml"
        token = self.home / "token"
        token.write_text(self.hub.token)
        token.chmod(0o600)
        config.write_text(
            f'hub_url = "{self.hub.url}"\ntoken_file = "token"\nstate_dir = "state"\nreconnect_first_s = 0.2\n'
            f'drain_s = 5\nstop_grace_s = 1\n[log]\nformat = "json"\n[[agents]]\nid = "a"\nruntime = "mock"\n{extra}'
        )
        with (self.home / "sidecar.log").open("a") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sidecar", "run", "--config", str(config), *options,
                cwd=ROOT, stderr=log, env={**os.environ, "AGENTCOM_RUN_LOG": str(self.runs), "AGENTCOM_TOKEN": "planted"},
            )  # fmt: skip

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def end(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 15)

    def spec(self, task: int = 1, *steps: dict, **more) -> Spec:
        values = {
            "title": f"Task {task}",
            "repo": RepoRef(name="r", url=str(self.remote), base="main"),
            "metadata": {"mock": list(steps)} if steps else None,
            **more,
        }
        return Spec(task=TaskId(task), lease_epoch=LeaseEpoch(1), **values)

    def agent_runs(self) -> list[list[str]]:
        return [line.split() for line in self.runs.read_text().splitlines()] if self.runs.exists() else []

    async def agent_ran(self, count: int = 1) -> list[list[str]]:
        async with asyncio.timeout(20):
            while len(self.agent_runs()) < count:
                await asyncio.sleep(0.02)
        return self.agent_runs()

    def processes(self) -> list[sweep.Process]:
        """Every living process of any run."""
        marks = [process for process in sweep.processes() if process.state not in "ZX"]
        directories = (self.home / "state" / "agents" / "a" / "runs").glob("*")
        return [process for directory in directories for process in sweep.marked(str(directory), marks)]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with running(FakeHub()) as hub:
        house = House(tmp_path, hub)
        await house.start()
        yield house
        await house.kill()
        for directory in (tmp_path / "state" / "agents" / "a" / "runs").glob("*"):
            sweep.kill_run(str(directory))


def exists(target: str) -> tuple[Verification, ...]:
    return (Verification(kind=VerificationKind.FILE_EXISTS, target=target),)


async def test_a_task_becomes_a_pushed_and_verified_branch(house: House) -> None:
    await house.hub.assign(house.spec(1, verification=exists("t-1.txt")))
    result = await house.hub.expect(frames.Result)
    assert result.outcome == "succeeded"
    assert result.verification.passed
    assert result.sha256 == result_digest(result)
    assert git(house.remote, "rev-parse", "agentcom/t-1/1") == result.head_sha
    assert [commit.files for commit in result.commits] == [("t-1.txt",)]
    assert result.base_sha == git(house.remote, "rev-parse", "main")
    assert [run[:3] for run in house.agent_runs()] == [["1", "1", "0"]]
    assert await house.end() == 0
    assert house.hub.of(frames.Bye)
    assert not list((house.home / "state" / "agents" / "a" / "runs").iterdir()), "a settled run leaves nothing behind"
    assert "planted" not in (house.home / "sidecar.log").read_text()


CHANGE = {"do": "change", "path": "x"}
RESEARCH = {"needs_change": False, "type": TaskType.RESEARCH}
ENDINGS: list[tuple[list[dict], dict, str, str | None, int]] = [
    ([{"do": "fix", "path": "x", "bad": "", "good": "ok"}], {}, "succeeded", None, 1),
    ([{"do": "no_commit"}], {}, "failed", "no_change", 2),
    ([{"do": "no_commit"}], RESEARCH, "succeeded", None, 1),
    ([{"do": "change", "path": "y"}], {"verification": exists("x"), "max_fix_rounds": 1}, "failed", "verification_failed", 2),
    ([{**CHANGE, "round": 1}, {"do": "change", "path": "y"}], {"verification": exists("x")}, "succeeded", None, 2),
    ([CHANGE, {"do": "crash"}], {}, "failed", "agent_killed", 1),
    ([CHANGE, {"do": "wrong_output"}], {}, "failed", "no_outcome", 1),
    ([{"do": "fail", "message": "cannot", "retryable": False}], {}, "failed", "agent_failed", 1),
    ([CHANGE, {"do": "orphan"}], {}, "succeeded", None, 1),
]
"""Script, task, outcome, error code, how often the agent ran."""


async def test_how_an_agent_ends_decides_the_outcome(house: House) -> None:
    for task, (steps, more, outcome, code, runs) in enumerate(ENDINGS, start=1):
        await house.hub.assign(house.spec(task, *steps, **more))
        result = await house.hub.expect(frames.Result, task)
        assert (result.outcome, result.error.code if result.error else None) == (outcome, code), steps
        assert sum(run[0] == str(task) for run in house.agent_runs()) == runs, steps
        assert house.processes() == []


async def test_uncommitted_work_is_asked_for_once_and_then_salvaged(house: House) -> None:
    await house.hub.assign(
        house.spec(1, {"do": "no_commit", "round": 1}, {"do": "change", "path": "x"}, {"do": "dirty_tree", "path": "left"})
    )
    result = await house.hub.expect(frames.Result)
    assert result.outcome == "succeeded"
    assert len(house.agent_runs()) == 2
    assert result.commits[0].files == ("x",)
    assert git(house.remote, "show", f"{result.salvage_ref}:left") == "not committed"


async def test_a_killed_sidecar_finds_its_running_agent_again_and_nothing_runs_twice(house: House) -> None:
    await house.hub.assign(house.spec(1, {"do": "slow", "s": 6.0}, {"do": "change", "path": "x"}))
    await house.agent_ran()
    await house.kill()
    assert len(house.processes()) == 1
    record = house.home / "state" / "workspaces" / "work" / "t-1-1" / "workspace.json"
    assert json.loads(record.read_text())["agent"] == "a"
    await house.start()
    hello = await house.hub.expect(frames.Hello, 2)
    assert [(item.task, item.phase) for item in hello.held] == [(1, Phase.WOKEN)]
    result = await house.hub.expect(frames.Result)
    assert result.outcome == "succeeded"
    assert len(house.agent_runs()) == 1


async def test_an_agent_that_ended_while_the_sidecar_was_dead_is_reported(house: House) -> None:
    await house.hub.assign(house.spec(1, {"do": "slow", "s": 0.5}, {"do": "change", "path": "x"}))
    await house.agent_ran()
    await house.kill()
    while house.processes():
        await asyncio.sleep(0.05)
    await house.start()
    assert (await house.hub.expect(frames.Result)).outcome == "succeeded"
    assert len(house.agent_runs()) == 1


async def test_a_killed_shim_is_reported_as_lost(house: House) -> None:
    await house.hub.assign(house.spec(1, {"do": "hang"}))
    await house.agent_ran()
    agent = house.processes()[0]
    os.kill(agent.parent, signal.SIGKILL)
    result = await house.hub.expect(frames.Result)
    assert (result.outcome, result.error.code) == ("lost", "shim_lost")
    assert house.processes() == []


async def test_a_result_made_while_the_hub_is_away_arrives_afterwards(tmp_path: Path) -> None:
    hub = FakeHub()
    async with running(hub):
        house = House(tmp_path, hub)
        await house.start()
        await hub.assign(house.spec(1, {"do": "slow", "s": 0.5}, {"do": "change", "path": "x"}))
        await house.agent_ran()
    hub.verdict = lambda held: HeldVerdict.KEEP
    while house.processes():
        await asyncio.sleep(0.05)
    await house.kill()
    async with running(hub):
        await house.start()
        assert (await hub.expect(frames.Result)).outcome == "succeeded"
        assert len(house.agent_runs()) == 1
        await house.kill()


async def test_a_lease_that_is_not_renewed_kills_the_agent_by_its_deadline(tmp_path: Path) -> None:
    hub = FakeHub(beat_ms=300, lease_ms=2000)
    async with running(hub):
        house = House(tmp_path, hub)
        await house.start()
        await hub.assign(house.spec(1, {"do": "hang"}))
        await house.agent_ran()
        hub.answer_beats = False
        result = await hub.expect(frames.Result)
        assert (result.outcome, result.error.code) == ("lost", "deadline")
        await house.kill()


async def test_cancel_ends_the_agent_and_says_so(house: House) -> None:
    await house.hub.assign(house.spec(1, {"do": "change", "path": "x"}, {"do": "orphan"}, {"do": "hang"}))
    await house.agent_ran()
    await house.hub.send(frames.Control(cid=1, task=TaskId(1), lease_epoch=LeaseEpoch(1), kind=ControlKind.CANCEL))
    result = await house.hub.expect(frames.Result)
    assert result.outcome == "cancelled"
    assert house.processes() == []


async def test_an_answered_question_reaches_the_agent_also_across_a_restart(house: House) -> None:
    await house.hub.assign(house.spec(1, {"do": "question", "text": "left?"}, {"do": "use_answer", "path": "answer"}))
    assert (await house.hub.expect(frames.Question)).text == "left?"
    await house.kill()
    await house.start()
    await house.hub.expect(frames.Hello, 2)
    answer = frames.Control(
        cid=1, task=TaskId(1), lease_epoch=LeaseEpoch(1), kind=ControlKind.ANSWER, qid="q1", text="to the left"
    )
    await house.hub.send(answer)
    result = await house.hub.expect(frames.Result)
    assert git(house.remote, "show", f"{result.head_sha}:answer") == "to the left"


async def test_a_question_nobody_answers_parks_the_task(tmp_path: Path) -> None:
    hub = FakeHub(limits=frames.Limits(blocked_ms=500))
    async with running(hub):
        house = House(tmp_path, hub)
        await house.start()
        await hub.assign(house.spec(1, {"do": "change", "path": "x"}, {"do": "question"}))
        give_back = await hub.expect(frames.GiveBack)
        assert (give_back.reason, give_back.conversation_id) == ("parked", None)
        assert house.processes() == []
        await house.kill()


async def test_an_internal_check_runs_no_agent(house: House) -> None:
    sha = git(house.remote, "rev-parse", "main")
    for task, target, outcome in ((1, "README", "succeeded"), (2, "missing", "failed")):
        job = CheckJob(sha=sha, ref="refs/heads/main", checks=exists(target))
        await house.hub.assign(house.spec(task, type=TaskType.CHECK, needs_change=False, check=job))
        result = await house.hub.expect(frames.Result, task)
        assert result.outcome == outcome
        assert result.verification.passed is (outcome == "succeeded")
    assert (result.error.cls, result.error.code) == ("permanent", "checks_failed")
    assert house.agent_runs() == []


async def test_a_drain_leaves_agents_running_unless_told_to_stop_them(house: House) -> None:
    await house.hub.assign(house.spec(1, {"do": "slow", "s": 1.5}, {"do": "change", "path": "x"}))
    await house.agent_ran()
    assert await house.end() == 0
    assert len(house.processes()) == 1
    await house.start("--stop-agents")
    await house.hub.expect(frames.Hello, 2)
    assert await house.end() == 0
    assert house.processes() == []
    assert house.hub.of(frames.Result)[-1].outcome in {"lost", "succeeded"}


async def test_two_sidecars_cannot_share_a_state_directory(house: House) -> None:
    await house.hub.expect(frames.Hello)
    first = house.process
    await house.start()
    assert house.process is not None
    assert await asyncio.wait_for(house.process.wait(), 10) == 3
    house.process = first


async def test_bad_settings_end_it_with_code_2(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('hub_url = "ws://h/ws"\nagnets = []\n')
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", "run", "--config", str(tmp_path / "bad.toml"), cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"did you mean 'agents'?" in errors


async def test_a_repository_that_cannot_be_reached_fails_the_task_with_a_reason(house: House) -> None:
    gone = RepoRef(name="r", url=str(house.home / "nowhere.git"), base="main")
    await house.hub.assign(house.spec(1, repo=gone))
    result = await house.hub.expect(frames.Result)
    assert result.outcome == "failed"
    assert result.error.code
    with contextlib.suppress(FileNotFoundError):
        assert house.agent_runs() == []
