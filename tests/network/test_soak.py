"""A soak for seconds instead of minutes, by the same program: its faults happen, its account is right. Large: ``.ci/long soak``."""

from __future__ import annotations

import pytest

from tests.acceptance.test_benchmarks import document

pytestmark = pytest.mark.timeout(240)


async def test_a_few_bad_seconds_lose_nothing_and_everything_is_measured() -> None:
    found = await document("soak.py")
    assert found["good"], found
    assert found["settled"]
    assert found["gaps"] == 0
    assert found["account"]["done"] > 20
    assert sum(found["faults"].values()) > 3
    measured = ("rss_bytes_per_task", "fds_per_minute", "asyncio_tasks_per_minute", "push_in_hub_p99_s", "submit_p99_s")
    assert all(name in found for name in measured)
    assert not any(status.startswith("5") for status in found["statuses"])
