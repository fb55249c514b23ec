"""Whoever stops the demo, and however impatiently, finds no process and no directory left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hub.cli.demo.stage import processes_of

pytestmark = pytest.mark.timeout(90)
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("first", "again"), [(signal.SIGTERM, None), (signal.SIGINT, signal.SIGINT)])
def test_a_stopped_demo_leaves_nothing_behind(tmp_path: Path, first: signal.Signals, again: signal.Signals | None) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    demo = subprocess.Popen(
        [sys.executable, "-m", "hub.cli", "demo"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert demo.stdout is not None
    try:
        for line in demo.stdout:
            if b"working on" in line:
                break
        demo.send_signal(first)
        if again is not None:
            time.sleep(0.2)
            demo.send_signal(again)
        demo.stdout.read()
        assert demo.wait(60) == 130
    finally:
        demo.kill()
        demo.wait()
        demo.stdout.close()
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith("agentcom-demo-")]
    assert left == []
    assert processes_of(tmp_path) == []
