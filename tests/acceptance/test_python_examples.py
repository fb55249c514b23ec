"""Every program of the Python guide runs as it is printed, against a real hub with a real sidecar."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.fleet import Fleet

pytestmark = pytest.mark.timeout(90)

GUIDE = Path(__file__).resolve().parents[2] / "ops" / "docs" / "python.md"
SAYS = {
    "Submit a task and wait for it": r"^t-\d+ done done",
    "Submit what belongs together": r"t-\d+ waiting: dependency t-\d+ is ",
    "Hear of everything that happens": r"t-\d+ working -> done",
    "When the hub says no": r"(?s)^422 invalid\n.*  title .*  lane .*no answer from http://127\.0\.0\.1:9",
    "Issue tokens and let machines join": r"^\['submitter'\]\njoin before 20",
}
"""What the program under each heading prints."""


def programs() -> dict[str, str]:
    found = {}
    for part in GUIDE.read_text("utf-8").split("\n## ")[1:]:
        heading = part.partition("\n")[0]
        for code in re.findall(r"```python\n(.*?)```", part, re.DOTALL):
            found[heading] = code
    return found


async def run(code: str, env: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
    )
    out, _ = await asyncio.wait_for(process.communicate(code.encode()), 60)
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_the_programs_of_the_guide_do_what_it_says(tmp_path: Path) -> None:
    assert set(programs()) == set(SAYS)
    fleet = Fleet(tmp_path, agents=1)
    try:
        await fleet.start_hub()
        fleet.configure_sidecar("a-1", [])
        config = tmp_path / "a-1" / "sidecar.toml"
        config.write_text(config.read_text().replace('runtime = "mock"', 'runtime = "command"\ncommand = { argv = ["true"] }'))
        await fleet.start_sidecar("a-1")
        env = {
            **os.environ,
            "AGENTCOM_URL": fleet.url,
            "AGENTCOM_TOKEN": (fleet.data_dir / "operator.token").read_text().strip(),
            "AGENTCOM_ADMIN_TOKEN": fleet.admin_token,
        }
        for heading, code in programs().items():
            assert re.search(SAYS[heading], await run(code, env)), heading
    finally:
        await fleet.close()
