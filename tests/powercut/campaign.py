"""Cuts the power at every sync of a tape, and has judged what is left."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

from tests.powercut.disk import Disk, Names
from tests.powercut.tape import Op, Step, Tape

Judge = Callable[[Path, Sequence[Step]], list[str]]
"""Given a directory that a power cut left, and what others were told before it (promises, and directories made): the faults."""


@dataclass(slots=True)
class Verdict:
    """``cuts`` places at which the power was cut, ``disks`` that were left of it by some chance, and what was wrong with them."""

    cuts: int = 0
    disks: int = 0
    promises: int = 0
    """How often a promise was looked for."""
    faults: list[tuple[int, str]] = field(default_factory=list)
    """Which cut, and what was lost or broken."""

    @property
    def bad(self) -> int:
        """Disks on which anything was wrong."""
        return len({at for at, _ in self.faults})


def cuts(tape: Tape, names: Names, *, after_promises: bool = False) -> Iterator[tuple[Disk, list[Step]]]:
    """The disk just before every sync and at the end, with what was told until then; on demand after every promise, too.

    Between two syncs nothing becomes durable: the last moment before a sync is the one at which most is promised.
    """
    disk, told = Disk(names), list[Step]()
    for step in tape.steps:
        if step.op is Op.SYNCED:
            yield disk, told
        disk.take(step)
        if step.op in (Op.MARK, Op.MADE):
            told.append(step)
        if after_promises and step.op is Op.MARK:
            yield disk, told
    yield disk, told


def judge_all(
    tape: Tape, names: Names, judge: Judge, place: Path, *, chances: int = 1, every: int = 1, after_promises: bool = False
) -> Verdict:
    """Judge each cut, or ``every`` n-th: with everything lost that was not synced, and ``chances`` times with some of it left."""
    verdict = Verdict()
    for disk, told in islice(cuts(tape, names, after_promises=after_promises), 0, None, every):
        verdict.cuts += 1
        for chance in (None, *(Random(verdict.cuts * 1000 + number) for number in range(chances))):
            left = place / "left"
            left.mkdir()
            disk.cut(left, chance)
            verdict.disks += 1
            verdict.promises += len(told)
            verdict.faults += [(verdict.disks, fault) for fault in judge(left, told)]
            shutil.rmtree(left)
    return verdict
