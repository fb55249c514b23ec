"""The commands of ops/docs/upgrade.md do what it says, in its order."""

from __future__ import annotations

import os
import re
import shlex
import string
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet

GUIDE = Path(__file__).parents[2] / "ops" / "docs" / "upgrade.md"
RUN = [
    "agentcom doctor",
    "agentcom backup create",
    "agentcom --version",
    "agentcom doctor",
    "agentcom agent drain builder-1",
    "agentcom agent list",
    "agentcom agent resume builder-1",
    'agentcom backup list --data-dir "$AGENTCOM_DATA_DIR"',
]
"""Every command of the guide in its order, but for those of the machine's supervisor."""


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    return [
        line.strip()
        for block in blocks
        for line in block.splitlines()
        if line.strip() and not line.strip().startswith("systemctl")
    ]


def test_the_guide_has_these_commands_and_no_other() -> None:
    assert commands() == RUN


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path, agents=1)
    try:
        await fleet.start_hub()
        await fleet.start_agents("builder-1")
        yield fleet
    finally:
        await fleet.close()


async def test_the_commands_of_the_guide_run_in_its_order(fleet: Fleet) -> None:
    env = os.environ | {
        "AGENTCOM_URL": fleet.url,
        "AGENTCOM_TOKEN": fleet.admin_token,
        "AGENTCOM_DATA_DIR": str(fleet.data_dir),
    }
    said = []
    for command in RUN:
        done = subprocess.run(
            [sys.executable, "-m", "hub.cli", *shlex.split(string.Template(command).substitute(env))[1:]],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        said.append(done.stdout)
    assert "builder-1 is empty, and paused" in said[4]
    assert "paused" in said[5] and "paused" not in said[6]
