"""Fuzzing led by coverage: ``python -m tests.fuzz NAME|all --runs N`` (needs ``pip install -e ".[fuzz]"``; Linux only).

Each target runs in a process of its own, from the kept inputs on. The table says how many inputs were tried, how fast, and the most
memory it took. A crash leaves its input in ``tests/fuzz/crashes``; when it is mended, its place is in ``tests/fuzz/corpus``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.place import ROOM
from tests.fuzz.targets import CORPUS, TARGETS

CRASHES = Path(__file__).with_name("crashes")
KEPT = 16
"""Inputs of each target."""
LIMIT_S = 10
"""One input."""
MEMORY_MB = 1024
_FIGURE = re.compile(rb"stat::(\w+):\s+(\d+)")
HEAD = f"{'target':<20} {'inputs':>10} {'per second':>11} {'peak MB':>8} {'new':>5} {'s':>6}"


def fuzz(name: str, runs: int, seconds: int, *, keep: bool) -> tuple[int, bool]:
    """Run one target; how many inputs were tried, and whether all were taken. Prints its line, and what crashed.

    ``keep`` adds what led somewhere new to the corpus, small and large, as long as there is room.
    """
    target, began = TARGETS[name], time.monotonic()
    CRASHES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as found, tempfile.TemporaryDirectory(prefix="fuzz-", dir=ROOM) as place:
        known = CORPUS / name
        argv = [
            *(sys.executable, "-m", "tests.fuzz.led", name, found, *([str(known)] if known.is_dir() else [])),
            *(f"-runs={runs}", f"-max_total_time={seconds}", f"-max_len={target.largest}", f"-timeout={LIMIT_S}"),
            *(f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={CRASHES}/{name}-", "-print_final_stats=1", "-verbosity=0"),
        ]
        done = subprocess.run(
            argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "FUZZ_PLACE": place}
        )
        new = sorted(Path(found).iterdir(), key=lambda path: path.stat().st_size)
        if keep:
            _keep(new, known)
    figures = {figure.decode(): int(value) for figure, value in _FIGURE.findall(done.stdout)}
    tried, took = figures.get("number_of_executed_units", 0), time.monotonic() - began
    print(
        f"{name:<20} {tried:>10} {tried / took:>11.0f} {figures.get('peak_rss_mb', 0):>8} {len(new):>5} {took:>6.0f}",
        flush=True,
    )
    if done.returncode:
        print(done.stdout.decode(errors="replace")[-4000:])
    return tried, done.returncode == 0


def _keep(new: list[Path], known: Path) -> None:
    known.mkdir(parents=True, exist_ok=True)
    room = max(0, KEPT - len(list(known.iterdir())))
    for path in new[:: max(1, len(new) // max(1, room))][:room]:
        shutil.copy(path, known / path.name[:12])


def main(asked: argparse.Namespace) -> int:
    names = list(TARGETS) if asked.target == "all" else [asked.target]
    shares = {name: TARGETS[name].share / sum(TARGETS[each].share for each in names) for name in names}
    print(HEAD)
    done = [fuzz(name, int(asked.runs * share), int(asked.seconds * share), keep=asked.keep) for name, share in shares.items()]
    failed = sum(not taken for _, taken in done)
    print(f"{sum(tried for tried, _ in done)} inputs, {failed} targets with a crash")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=["all", *TARGETS])
    parser.add_argument("--runs", type=int, default=2_000_000, help="inputs, shared out among the targets")
    parser.add_argument("--seconds", type=int, default=400, help="and for how long at most, shared out likewise")
    parser.add_argument("--keep", action="store_true", help="add what led somewhere new to the kept inputs")
    sys.exit(main(parser.parse_args()))
