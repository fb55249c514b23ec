"""The seeds that every change must pass, and what must have happened in them for that to mean something."""

from __future__ import annotations

from collections import Counter
from functools import cache

from hub.core.task import TRANSITIONS
from hub.ids import TaskState, Verdict
from tests.simulation.faults import KINDS
from tests.simulation.world import Run, run

HALF = 150
RARE_FROM, RARE = 1_000, 300
"""More seeds to play for what happens too seldom to be sure of in half of them."""
S = TaskState
UNREACHED = frozenset(
    {
        (S.ASSIGNED, S.DEAD),  # an offer is taken back before its task can end, and claims are used up by acceptances alone
    }
)
"""Legal transitions that nothing takes, and why."""


@cache
def played(seed: int) -> Run:
    """A seed, played once in this process."""
    return run(seed)


def expected() -> set[str]:
    """Every kind of fault, every verdict (late ones are applied ones of their own kind), every transition of a task."""
    edges = {f"task.{before}.{to}" for before, after in TRANSITIONS.items() for to in after if (before, to) not in UNREACHED}
    verdicts = {f"verdict.{verdict}" for verdict in (*Verdict, "late")}
    return edges | verdicts | {f"fault.{kind}" for kind in KINDS}


def must_hold(first: int, number: int) -> None:
    """Play some seeds; fail with all it takes to play the one again that broke something."""
    for seed in range(first, first + number):
        done = played(seed)
        assert not done.invariant, (
            f"{done.invariant}: {done.what}\n{done.caused_by}\n"
            + "\n".join(done.trace)
            + f"\nagain: python -m tests.simulation --seed {seed} --trace"
        )


def must_have_happened(first: int, number: int) -> None:
    """A simulation in which something never happens proves nothing about it."""
    seen: Counter[str] = Counter()
    for seed in (*range(first, first + number), *range(first + RARE_FROM, first + RARE_FROM + RARE)):
        missing = sorted(expected() - seen.keys())
        if not missing:
            return
        seen += played(seed).seen
    raise AssertionError(f"never happened: {missing}")
