"""The commands of ops/docs/storage.md do what it says, in its order, and the page tells the defaults as they are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hub.settings.tree import Retention, Storage
from hub.store.compaction import SMALL_BYTES
from sidecar.journal import ROOM_BYTES
from tests.support.living_hub import living_hub

GUIDE = Path(__file__).parents[2] / "ops" / "docs" / "storage.md"
ALIVE = [
    "agentcom db health",
    "agentcom db health --json",
    "agentcom db prune --dry-run",
    "agentcom db prune",
    "agentcom db compact",
    "agentcom db compact --stop",
]
STOPPED = ["agentcom db compact --offline", "agentcom db upgrade --dry-run", "agentcom db upgrade"]


def test_the_guide_has_these_commands_and_no_other() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert [line for block in blocks for line in block.splitlines()] == ALIVE + STOPPED


def test_the_guide_tells_the_defaults() -> None:
    text = GUIDE.read_text("utf-8")
    kept = Retention()
    assert (
        f"{kept.task_days} days after" in text
        and f"| {kept.salvage_days} days |" in text
        and f"| {kept.audit_days} days;" in text
    )
    assert f"keeps {Storage().reserve_mb} MiB" in text and f"Up to {SMALL_BYTES // 2**20} MiB" in text
    assert f"less than {ROOM_BYTES // 2**20} MiB" in text
    assert Storage().compact_above_percent == 20, "a fifth"


def test_the_commands_of_the_guide_run_in_its_order(tmp_path: Path) -> None:
    def run(command: str, env: dict[str, str]) -> str:
        argv = [sys.executable, "-m", "hub.cli", *command.split()[1:]]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    with living_hub(tmp_path) as hub:
        env = {"PATH": "", "AGENTCOM_DATA_DIR": str(hub.data_dir), "AGENTCOM_URL": hub.url}
        said = [run(command, env) for command in ALIVE]
        assert "none is long" in said[0] and "done" in said[3] and "done" in said[4]
        refused = subprocess.run(
            [sys.executable, "-m", "hub.cli", *STOPPED[0].split()[1:]], env=env, capture_output=True, text=True, check=False
        )
        assert refused.returncode == 1 and "another hub has" in refused.stderr
    said = [run(command, env) for command in STOPPED]
    assert "done" in said[0] and "nothing is to be done" in said[2]
