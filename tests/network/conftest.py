"""A hub with short terms, as a process, for the tests of one file; what they leave in its log is judged at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.living_hub import LivingHub, living_hub

HASTY = {
    # what is noticed by silence is noticed within seconds; no lease runs out but in tests of that
    "AGENTCOM_LEASE_TERM_S": "30",
    "AGENTCOM_LEASE_BEAT_S": "1",
    "AGENTCOM_LEASE_ACCEPT_S": "3",
    "AGENTCOM_LEASE_GRACE_S": "2",
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivingHub]:
    with living_hub(tmp_path_factory.mktemp("network"), HASTY) as hub:
        yield hub
        assert hub.complaints() == [], "no fault of a network is an error of the hub"
