"""What the failure classes share: a hub whose leases are short, and one cluster of real processes for a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.fleet import Fleet, merging_fleet
from tests.support.living_hub import PATIENT, LivingHub, living_hub

SHORT = PATIENT | {
    "AGENTCOM_LEASE_TERM_S": "2.1",
    "AGENTCOM_LEASE_BEAT_S": "0.35",
    "AGENTCOM_LEASE_ACCEPT_S": "1",
    "AGENTCOM_LEASE_GRACE_S": "0.5",
}
"""A silent agent's task is given away after 2.8 s, an offer taken back after 1, a lost link shows for half a second."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivingHub]:
    """A hub as its own process in which things expire."""
    with living_hub(tmp_path_factory.mktemp("short"), SHORT) as hub:
        yield hub


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivingHub]:
    """A hub as its own process in which nothing expires: what happens there happens for another reason."""
    with living_hub(tmp_path_factory.mktemp("patient")) as hub:
        yield hub


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """A hub, a repository with a registered check that merges small changes, an agent and one for checks."""
    async with merging_fleet(Path(tmp_path_factory.mktemp("fleet"))) as fleet:
        yield fleet
