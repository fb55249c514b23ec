"""The large run: ``python -m tests.powercut [--rounds N] [--tasks N]`` prints what was cut, and what was lost."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from tests.powercut.campaign import Judge, Verdict, judge_all
from tests.powercut.disk import Names
from tests.powercut.git_work import judge_clone, record_fetches
from tests.powercut.hub_judge import judge_hub
from tests.powercut.hub_work import record_hub
from tests.powercut.sidecar_judge import judge_sidecar
from tests.powercut.sidecar_work import record_sidecar
from tests.powercut.tape import Tape

MEMORY = Path("/dev/shm")
HEAD = f"{'what':<46} {'names':<8} {'syncs':>6} {'cuts':>6} {'disks':>6} {'promises':>10} {'lost':>8} {'s':>6}"


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the table. ``loses`` is what is expected: that is how it is known that a loss would be seen."""

    what: str
    tape: Tape
    names: Names
    judge: Judge
    loses: bool = False
    chances: int = 1
    every: int = 1

    def run(self, place: Path) -> bool:
        """Print the line; whether it is as expected."""
        began = time.monotonic()
        verdict = judge_all(
            self.tape, self.names, self.judge, place, chances=self.chances, every=self.every, after_promises=self.loses
        )
        took = time.monotonic() - began
        print(
            f"{self.what:<46} {self.names.name.lower():<8} {self.tape.syncs:>6} {verdict.cuts:>6} {verdict.disks:>6} "
            f"{verdict.promises:>10} {len(verdict.faults):>8} {took:>6.0f}",
            flush=True,
        )
        return self._is_as_expected(verdict)

    def _is_as_expected(self, verdict: Verdict) -> bool:
        if self.loses:
            return bool(verdict.faults)
        for at, fault in verdict.faults[:10]:
            print(f"  disk {at}: {fault}")
        return not verdict.faults


def main(rounds: int, tasks: int) -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="powercut-", dir=MEMORY if MEMORY.is_dir() else None) as directory:
        place = Path(directory)

        def recorded(name: str, record: Callable[[Path], Tape]) -> Tape:
            (place / name).mkdir()
            return record(place / name)

        full = recorded("full", lambda there: record_hub(there, rounds=rounds))
        normal = recorded("normal", lambda there: record_hub(there, rounds=max(1, rounds // 10), durability="normal"))
        sidecar = recorded("sidecar", lambda there: asyncio.run(record_sidecar(there, tasks=tasks)))
        (place / "clone").mkdir()
        clone, url = record_fetches(place / "clone", fetches=10)
        parts = [
            Part("hub, durability full", full, Names.STRICT, judge_hub),
            Part("hub, durability full", full, Names.ORDERED, judge_hub, chances=0),
            Part("hub, durability normal", normal, Names.ORDERED, partial(judge_hub, durability="normal"), loses=True),
            Part("hub, its log not synced (planted)", full.without_syncs("hub.db-wal"), Names.ORDERED, judge_hub,
                 loses=True, chances=0, every=50),
            *(Part("sidecar", sidecar, names, judge_sidecar, chances=5) for names in Names),
            Part("the hub's clone, fetched into", clone, Names.ORDERED, partial(judge_clone, url), chances=5),
            Part("sidecar, its journal not synced (planted)", sidecar.without_syncs("journal"), Names.ORDERED,
                 judge_sidecar, loses=True),
        ]  # fmt: skip
        print(HEAD)
        as_expected = [part.run(place) for part in parts]
    return 0 if all(as_expected) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.powercut", description=__doc__)
    parser.add_argument("--rounds", type=int, default=115, help="how often the hub does everything; about ten syncs each")
    parser.add_argument("--tasks", type=int, default=120, help="how many tasks the sidecar does; about seven syncs each")
    asked = parser.parse_args()
    sys.exit(main(asked.rounds, asked.tasks))
