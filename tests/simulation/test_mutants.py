"""The simulation sees what it is there to see: each planted fault breaks an invariant, in a seed known to show it or in the next few."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, hunt

MOST = 200
"""Seeds tried: a change of the product, or of the simulation, may move a fault into another one."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_fault_is_caught(name: str) -> None:
    mutant = MUTANTS[name]
    caught = hunt(mutant, mutant.seed, MOST)
    assert caught.invariant, f"{mutant.what}: nothing noticed in {caught.steps} steps"
