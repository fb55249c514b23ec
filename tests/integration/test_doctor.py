"""``python -m sidecar doctor`` on real state: what it finds, what it mends, and what it never touches."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub.ids import LeaseEpoch, TaskId
from hub.wire.spec import RepoRef, Spec
from sidecar.core.records import Assigned
from sidecar.journal import Journal
from sidecar.runs import sweep
from sidecar.runs.clock import boot_us
from sidecar.runs.runner import Deadline, Order, Runner, mark
from sidecar.runtimes.base import Launch
from sidecar.workspace.workspaces import GitIdentity, Workspaces
from tests.support.repos import git, make_remote

ROOT = Path(__file__).parents[2]


def doctor(config: Path, *options: str) -> tuple[int, dict[str, dict[str, Any]], list[str]]:
    """The exit code, the worst finding by check, and what was fixed."""
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "doctor", "--config", str(config), "--json", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = json.loads(done.stdout)
    order = ["ok", "warn", "fail"]
    found: dict[str, dict[str, Any]] = {}
    for finding in said["findings"]:
        assert set(finding) == {"check", "state", "found", "fix", "fixable"}
        assert (finding["fix"] is None) == (finding["state"] == "ok")
        if order.index(finding["state"]) >= order.index(found.get(finding["check"], finding)["state"]):
            found[finding["check"]] = finding
    return done.returncode, found, said.get("fixed", [])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "sidecar.toml"
    (tmp_path / "token").write_text("ac_x")
    (tmp_path / "token").chmod(0o600)
    path.write_text(
        'hub_url = "ws://127.0.0.1:1/ws"\ntoken_file = "token"\nstate_dir = "state"\n[[agents]]\nid = "a"\nruntime = "mock"\n'
    )
    return path


def journal(config: Path, *keys: tuple[int, int]) -> Path:
    path = config.parent / "state" / "agents" / "a" / "journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    (config.parent / "state" / "install_id").write_text("0" * 32)  # or it would be somebody else's directory
    opened = Journal(path)
    for task, epoch in keys:
        opened.append(Assigned(task=TaskId(task), lease_epoch=LeaseEpoch(epoch)))
    opened.close()
    return path


async def orphan(config: Path) -> Path:
    """A run with a living shim that nobody knows of."""
    runner = Runner(config.parent / "state" / "agents" / "a" / "runs")
    order = Order(
        launch=Launch(argv=("sleep", "600"), env={"PATH": os.environ["PATH"]}),
        cwd=config.parent, prompt="", prompt_file=config.parent / "prompt", wall_s=600,
    )  # fmt: skip
    now = boot_us()
    await runner.start("7-1-0", order, Deadline(now + 600_000_000, now + 601_000_000))
    await runner.close()
    return runner.directory("7-1-0")


async def stale(config: Path) -> Path:
    """A workspace with uncommitted work that nobody knows of."""
    remote = make_remote(config.parent / "remotes", {"a.txt": "one\n"})
    identity = GitIdentity(name="Smith", email="s@example.org")
    spaces = Workspaces(config.parent / "state" / "workspaces", identity=identity)
    repo = RepoRef(name="r", url=remote.url, base="main")
    made = await spaces.prepare(Spec(task=TaskId(8), lease_epoch=LeaseEpoch(1), title="x", repo=repo))
    (made.path / "left-over.txt").write_text("precious\n")
    return made.home


def alive(run: Path) -> list[sweep.Process]:
    return [process for process in sweep.marked(mark(run), sweep.processes()) if process.state not in "ZX"]


async def test_orphans_and_stale_workspaces_are_found_and_mended_and_work_is_salvaged(config: Path) -> None:
    journal(config)
    run, home = await orphan(config), await stale(config)
    try:
        _, found, _ = await asyncio.to_thread(doctor, config)
        assert found["runs"]["fixable"]
        assert "a/7-1-0 (its shim lives)" in found["runs"]["found"]
        assert "t-8/1" in found["workspaces"]["found"]
        assert alive(run), "looking changes nothing"
        _, found, fixed = await asyncio.to_thread(doctor, config, "--fix")
        assert found["runs"]["state"] == found["workspaces"]["state"] == "ok"
        assert fixed == ["stopped and removed the run a/7-1-0", "removed the workspace t-8-1"]
        assert not alive(run)
        assert not run.exists()
        assert not home.exists()
        cache = next((config.parent / "state" / "workspaces" / "repos").iterdir())
        assert git("show", "refs/agentcom/salvage/t-8/1:left-over.txt", cwd=cache) == "precious"
    finally:
        sweep.kill_run(mark(run))


@pytest.mark.parametrize("damage", ["damaged", "missing"])
async def test_nothing_is_removed_while_a_journal_cannot_be_read(config: Path, damage: str) -> None:
    path = journal(config, (1, 1))
    run, home = await orphan(config), await stale(config)
    if damage == "damaged":
        path.write_bytes(b"\0\0\0\1XXXXX" + path.read_bytes())
    else:
        path.unlink()
    try:
        code, found, fixed = await asyncio.to_thread(doctor, config, "--fix")
        assert code == 6
        assert found["journals"]["state"] == "fail"
        assert fixed == ["nothing was removed: a journal cannot be read"]
        assert alive(run)
        assert (home / "tree" / "left-over.txt").exists()
    finally:
        sweep.kill_run(mark(run))


async def test_what_a_journal_holds_is_not_touched(config: Path) -> None:
    journal(config, (7, 1), (8, 1))
    run, home = await orphan(config), await stale(config)
    try:
        _, found, fixed = await asyncio.to_thread(doctor, config, "--fix")
        assert fixed == []
        assert found["journals"]["found"] == "1 readable, 2 unsettled assignments"
        assert alive(run)
        assert home.exists()
    finally:
        sweep.kill_run(mark(run))


def test_a_token_that_others_can_read_is_found_and_closed(config: Path) -> None:
    token = config.parent / "token"
    token.chmod(0o644)
    code, found, _ = doctor(config)
    assert code == 6
    assert found["token"]["fixable"]
    assert f"chmod 600 {token}" in found["token"]["fix"]
    _, found, fixed = doctor(config, "--fix")
    assert fixed[0] == f"closed {token} to others"
    assert token.stat().st_mode & 0o777 == 0o600


def test_without_the_agents_user_nothing_of_theirs_is_started(config: Path) -> None:
    ran, program = config.parent / "ran", config.parent / "claude"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    runtime = f'runtime = "command"\n[agents.command]\nargv = ["{program}", "{{prompt}}"]\n'
    config.write_text('run_as = "no-such-user"\n' + config.read_text().replace('runtime = "mock"\n', runtime))
    code, found, _ = doctor(config)
    assert (code, found["user"]["state"]) == (6, "fail")
    assert "runtime:a" not in found
    assert not ran.exists()


def test_a_faulty_configuration_is_a_finding_for_each_fault(config: Path) -> None:
    config.write_text(config.read_text().replace("token_file", "token_fiel") + 'runtim = "x"\n')
    code, found, _ = doctor(config)
    assert code == 6
    assert found["settings"]["state"] == "fail"
    assert found["git"]["state"] == "ok", "the machine is looked at all the same"


def test_for_people_each_finding_is_a_line_and_its_cure_below(config: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "doctor", "--config", str(config)], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 6
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("fail  hub "))
    assert "connection refused" in lines[at]
    assert lines[at + 1].startswith("      → start the hub")
    assert "\x1b" not in done.stdout
