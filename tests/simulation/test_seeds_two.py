"""Half of the seeds that every change must pass: no invariant is broken, and what was to be survived did happen."""

from __future__ import annotations

import pytest

from tests.simulation.seeds import HALF, must_have_happened, must_hold

FIRST = HALF
CHUNK = 10


@pytest.mark.parametrize("first", range(FIRST, FIRST + HALF, CHUNK))
def test_nothing_is_lost_and_nothing_runs_twice(first: int) -> None:
    must_hold(first, CHUNK)


def test_every_fault_verdict_and_transition_happened() -> None:
    must_have_happened(FIRST, HALF)
