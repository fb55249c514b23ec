"""A new version with a migration to run, started on a store that is large, while agents work and people submit.

``MIGRATED_TASKS`` says how large; ``.ci/long.d/keeping`` says 100 000.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from hub.store.sqlite import STORE_FILE
from tests.support.doors import NOW, Rows
from tests.support.fleet import ROOT
from tests.support.pending_migration import newer_schema
from tests.support.rolling import RollingFleet

AGENTS = ("a-1", "a-2")
TASKS = int(os.environ.get("MIGRATED_TASKS", "2000"))
FIRST = 1_000_000
pytestmark = pytest.mark.timeout(120 + TASKS // 200)


class Migrating(RollingFleet):
    """``schema``: what the next hub knows beyond this one's."""

    schema: Path | None = None

    async def _spawn(self, argv: list[str], name: str, env: dict[str, str]) -> asyncio.subprocess.Process:
        if name == "hub" and self.schema is not None:
            argv, env = ["tests.support.pending_migration", str(self.schema), *argv], env | {"PYTHONPATH": str(ROOT)}
        return await super()._spawn(argv, name, env)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Migrating]:
    fleet = Migrating(tmp_path, agents=len(AGENTS))
    try:
        await fleet.start_hub()
        await fleet.start_agents(*AGENTS)
        yield fleet
    finally:
        await fleet.close()


def fill(store: Path) -> None:
    """As if it had done this for years."""
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        rows = Rows(connection)
        for n in range(FIRST, FIRST + TASKS):
            rows.task(n, state="done", finished_at=NOW, spec="x" * 500, requirement_id=1)
        connection.execute("COMMIT")


async def test_a_migration_under_load_loses_and_repeats_nothing(fleet: Migrating) -> None:
    await fleet.submit_surely(3.0, 3.0, 0.1, 0.1)
    await fleet.working(2)
    await fleet.stop_hub()
    fill(fleet.data_dir / STORE_FILE)
    fleet.schema = newer_schema(fleet.root / "newer")
    began = time.monotonic()
    late = asyncio.create_task(fleet.submit_surely(0.1, 0.1))  # again and again, until the new hub takes it
    await fleet.start_hub()
    away_s = time.monotonic() - began
    await late
    await fleet.all_done_exactly_once()
    await fleet.stop_hub()
    with closing(sqlite3.connect(fleet.data_dir / STORE_FILE)) as store:
        assert store.execute("PRAGMA user_version").fetchone() == (9000,)
        (carried,) = store.execute("SELECT count(*) FROM carried WHERE n >= ?", (FIRST,)).fetchone()
        (expired,) = store.execute("SELECT count(*) FROM event WHERE cause = 'lease_expired'").fetchone()
    assert (carried, expired) == (TASKS, 0)
    print(f"{TASKS:,} tasks migrated; ready again after {away_s:.1f} s; {len(fleet.submitted)} tasks around it, each done once")
