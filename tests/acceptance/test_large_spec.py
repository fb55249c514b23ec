"""A task whose spec is too large for a frame travels by reference and is done like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fleet import Fleet, wait_until

pytestmark = pytest.mark.timeout(60)


async def test_a_spec_beyond_64_kib_reaches_the_agent(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, agents=1)
    try:
        await fleet.start_hub()
        await fleet.start_agents("a-1")
        async with fleet.client() as hub:
            task = await hub.submit(
                {
                    "title": "Read a lot",
                    "type": "research",
                    "description": "ä" * 10_000,
                    "success_criteria": ["ö" * 1000] * 60,
                    "metadata": {"mock": [{"do": "no_commit"}]},
                }
            )

            async def ended() -> bool:
                return (await hub.task(task["id"]))["state"] in {"done", "dead", "cancelled"}

            await wait_until(ended, limit_s=40, what="the task ends")
            detail = await hub.task(task["id"])
        assert detail["state"] == "done", detail["explanation"]
        assert len(detail["attempts"]) == 1
    finally:
        await fleet.close()
