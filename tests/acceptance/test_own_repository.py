"""Real input: a task changes a clone of this very repository through the `command` runtime, is verified by real checks and merged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, wait_until

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "support" / "agent_program.py"
LINE = "This line was added by an agent and merged by the gatekeeper."


@pytest.fixture
async def fleet(tmp_path: Path):
    fleet = Fleet(tmp_path, agents=1)
    fleet.make_repository(_committed_copy(tmp_path))
    try:
        await fleet.start_hub()
        yield fleet
    finally:
        await fleet.close()


def _committed_copy(tmp_path: Path) -> Path:
    """This repository as a clone, with what is not committed yet on top: the test is about the code as it stands."""
    copy = tmp_path / "own"
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    subprocess.run([*git, "init", "--quiet", "--initial-branch=main", str(copy)], check=True)
    files = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    for name in files.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*git, "-C", str(copy), "add", "--all"], check=True)
    subprocess.run([*git, "-C", str(copy), "commit", "--quiet", "--message", "As it stands"], check=True)
    return copy


async def test_a_real_program_changes_this_repository_and_the_change_is_merged(fleet: Fleet) -> None:
    home = fleet.root / "builder"
    home.mkdir()
    argv = ", ".join(f'"{word}"' for word in (sys.executable, str(PROGRAM), "{prompt_file}"))
    (home / "sidecar.toml").write_text(
        f'hub_url = "ws://127.0.0.1:{fleet.port}/ws"\ntoken_file = "{fleet.agent_token_file}"\nstate_dir = "{home / "state"}"\n'
        f'reconnect_first_s = 0.1\n[[agents]]\nid = "builder"\nruntime = "command"\n[agents.command]\nargv = [{argv}]\n'
    )
    await fleet.start_sidecar("builder")
    compiles = {
        "kind": "command_succeeds",
        "argv": [sys.executable, "-m", "compileall", "-q", "hub", "sidecar"],
        "timeout_s": 100,
    }
    contract = {"kind": "command_succeeds", "argv": [sys.executable, "-c", "import hub.wire.codec, hub.core.scheduler"]}
    async with fleet.client() as hub:
        await hub.add_repo(
            "own", str(fleet.remote), base="main", policy={"auto_merge_tier1": True}, checks=[compiles, contract]
        )  # type: ignore[list-item]
        task = await hub.submit(
            {"title": "Extend the changelog", "repo": "own", "description": f"Please do this:\nAPPEND NOTES.md: {LINE}",
             "success_criteria": ["NOTES.md ends with the line"], "verification": [{"kind": "file_exists", "target": "NOTES.md"}]}
        )  # fmt: skip

        async def ended() -> bool:
            return (await hub.task(task["id"]))["state"] in {"done", "dead", "cancelled"}

        await wait_until(ended, limit_s=90, what="the task ends")
        detail = await hub.task(task["id"])
    assert detail["state"] == "done", detail["explanation"]
    assert detail["changes"][-1]["state"] == "merged"
    assert detail["changes"][-1]["tier"] == 1
    assert detail["result"] is not None
    report = detail["result"]["verification"]
    assert report is not None
    assert report["passed"]
    assert [check["status"] for check in report["checks"]] == ["pass", "pass", "pass"]
    merged = subprocess.run(
        ["git", "-C", str(fleet.remote), "show", "main:NOTES.md"], capture_output=True, text=True, check=True
    )
    assert merged.stdout.endswith(LINE + "\n")
    assert os.fspath(ROOT) not in merged.stdout
