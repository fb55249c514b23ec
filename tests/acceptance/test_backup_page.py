"""The operator's page about backups is true: its commands are run, in its order, against a hub and then without one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.living_hub import living_hub

PAGE = Path(__file__).parents[2] / "ops" / "docs" / "backup.md"
pytestmark = pytest.mark.timeout(120)


def commands() -> list[str]:
    """Every command line of the page's shell blocks, without its comment."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def run(line: str, data_dir: Path) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AGENTCOM_")}
    words = [word.replace("$AGENTCOM_DATA_DIR", str(data_dir)) for word in shlex.split(line)]
    assert words[0] == "agentcom"
    done = subprocess.run(
        [sys.executable, "-m", "hub.cli", *words[1:]],
        env=environ | {"AGENTCOM_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    alive, stopped = [line for line in commands() if "restore" not in line], [line for line in commands() if "restore" in line]
    assert len(alive) == 4
    assert len(stopped) == 1
    with living_hub(tmp_path) as hub:
        (hub.data_dir / "hub.url").write_text(hub.url)
        said = {line: run(line, hub.data_dir) for line in alive}
    assert "backup_age" in said["agentcom doctor"]
    assert "restored" in run(stopped[0], hub.data_dir)
