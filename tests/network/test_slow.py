"""Peers that do not read or do not finish speaking, small: the others are served meanwhile. Large: ``.ci/long network``."""

from __future__ import annotations

import pytest

from tests.acceptance.test_benchmarks import document

pytestmark = pytest.mark.timeout(120)

LOOSELY = 10.0
"""A sample of twelve on a busy machine: only a wait for the slow ones, which lasts seconds, would show."""


async def test_those_who_do_not_read_delay_nobody() -> None:
    found = await document("slow.py")
    assert len(found["kinds"]) == 4
    for name, kind in found["kinds"].items():
        assert 0 < kind["ratio"] < LOOSELY, name
        assert kind["kib_each"] < 8192, name
