"""A fleet whose hub is killed under it, small: everybody comes back, nothing is lost, nothing runs twice. Large: ``.ci/long network``."""

from __future__ import annotations

import pytest

from tests.acceptance.test_benchmarks import document

pytestmark = pytest.mark.timeout(120)


async def test_a_fleet_outlives_its_hub() -> None:
    found = await document("storm.py")
    assert found["good"], found
    assert found["answers_5xx"] == 0
    assert found["account"]["tasks"] == found["account"]["done"] > 25
    assert found["account"]["losses"] == 0
    assert 0 < found["back_after_kill_s"]["p50"] <= found["back_after_kill_s"]["last"]
    assert found["hub_cpu_s"] > 0
