"""One seed is one run: whoever plays it, wherever, sees the same steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.simulation.world import run

ROOT = Path(__file__).parents[2]


def digest(seed: int, hash_seed: str) -> str:
    command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed), "--steps", "1500"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


def test_a_seed_is_the_same_run_whatever_the_order_of_hashes() -> None:
    first, second = digest(7, "1"), digest(7, "2")
    assert first == second
    assert run(7, 1500).digest in first, "and in this process"


def test_another_seed_is_another_run() -> None:
    assert run(7, 300).digest != run(8, 300).digest
