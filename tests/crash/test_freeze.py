"""What stops for longer than a lease and goes on changes nothing that others did meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.freeze import overlaps, run, show
from tests.crash.world import Noted

pytestmark = pytest.mark.timeout(300)


async def test_frozen_processes_lose_nothing_and_no_stale_write_lands(tmp_path: Path) -> None:
    findings, freezer = await run(1, 7, tmp_path)
    print("\n".join(show(findings, freezer)))
    assert findings.faults == []
    assert findings.merged == 4


def test_the_account_shows_two_agents_at_once() -> None:
    one = [Noted("start", 1, 1, 10, 100), Noted("alive", 1, 1, 10, 200)]
    assert overlaps([*one, Noted("start", 1, 2, 11, 201)]) == {}
    assert overlaps([*one, Noted("start", 2, 2, 11, 150)]) == {}
    assert overlaps([*one, Noted("start", 1, 2, 11, 150)]) == {1: 50}
