"""`agentcom demo` as a user runs it: its exit code, its last line, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(170)
ROOT = Path(__file__).parents[2]


def demo(*options: str, cwd: Path) -> tuple[int, dict[str, Any], str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, "-m", "hub.cli", "demo", "--json", *options],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=160,
        check=False,
    )
    assert done.stdout.strip(), done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_demo_with_a_killed_hub_merges_everything_exactly_once(tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    code, seen, told = demo("--kill-hub", "--keep", str(keep), cwd=tmp_path)
    assert code == 0, told
    assert seen["ok"] is True
    assert (seen["merged"], seen["lost"], seen["doubled"], seen["hub_restarts"]) == (6, 0, 0, 1)
    assert {task["state"] for task in seen["tasks"]} == {"done"}
    assert sum(task["runs"] for task in seen["tasks"]) == 8, "one corrective round and one killed agent beside six runs"
    assert all(task["push_ms"] is not None and task["push_ms"] > 0 for task in seen["tasks"])
    assert (keep / "remote.git" / "HEAD").exists()
    log = subprocess.run(["git", "-C", str(keep / "remote.git"), "log", "--format=%(trailers:key=AgentCom-Task,valueonly)", "main"],
                         capture_output=True, text=True, check=True).stdout.split()  # fmt: skip
    assert {f"t-{n}" for n in range(1, 7)} <= set(log)


def test_demo_on_a_clone_leaves_the_given_repository_alone(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    git = ["git", "-c", "user.name=me", "-c", "user.email=me@example.invalid", "-C", str(source)]
    subprocess.run(["git", "init", "--quiet", "--initial-branch=trunk", str(source)], check=True)
    (source / "README.md").write_text("mine\n")
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "mine"], check=True)
    before = subprocess.run([*git, "for-each-ref"], capture_output=True, text=True, check=True).stdout
    code, seen, told = demo("--repo", str(source), "--agents", "2", cwd=tmp_path)
    assert code == 0, told
    assert seen["merged"] == 6
    assert any("mine" in line for line in seen["base_log"])
    assert subprocess.run([*git, "for-each-ref"], capture_output=True, text=True, check=True).stdout == before
    assert subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout == ""
