"""Reading the scheduler back: everything it needs, from the partial indexes, in one read transaction."""

from __future__ import annotations

import sqlite3
from typing import Any, Protocol

import orjson

from hub.core.recall import Snapshot
from hub.core.rows import LiveTask
from hub.store.sql import statements

RESTORED = "restored"
"""In the table of meta: the account of the last restore, in JSON; ``at`` is microseconds UTC."""


class SnapshotReader(Protocol):
    """Whatever can run one function in one read transaction."""

    async def run(self, fn: Any) -> Any:
        """Run it."""


async def load_snapshot(reader: SnapshotReader) -> Snapshot:
    """The committed state the scheduler is rebuilt from."""
    snapshot: Snapshot = await reader.run(_load)
    return snapshot


def _load(connection: sqlite3.Connection) -> Snapshot:
    def every(query: str) -> list[dict[str, Any]]:
        return connection.execute(statements()[query]).fetchall()

    def live_tasks() -> list[LiveTask]:
        cursor = connection.cursor()
        cursor.row_factory = None  # by far the most rows: read by position
        cursor.execute(statements()["live_tasks"])
        assert tuple(column[0] for column in cursor.description) == LiveTask._fields
        return [LiveTask._make(row) for row in cursor]

    highest = every("highest_numbers")[0]
    base: dict[str, int] = {row["counter"]: row["value"] for row in every("bases")}
    restored = connection.execute(statements()["meta_get"], {"key": RESTORED}).fetchone()
    # the remembered ones newest first, then whatever live tasks use: both in ascending order of id
    known = {row["id"]: row for row in [*every("requirements"), *every("live_requirements")]}
    return Snapshot(
        tasks=live_tasks(),
        deps=every("live_deps"),
        attempts=every("open_attempts"),
        questions=every("open_questions"),
        controls=every("open_controls"),
        adoptions=every("salvage_applying"),
        requirements=[known[key] for key in sorted(known)],
        agents=every("agents_with_sessions"),
        projects={row["id"]: (bool(row["paused"]), row["dispatch"]) for row in every("project_switches")},
        repos={row["name"]: bool(row["paused"]) for row in every("repository_switches")},
        next_n=max(highest["n"], base.get("n", 0)) + 1,
        next_requirement=highest["requirement"] + 1,
        next_cid=max(highest["cid"], base.get("cid", 0)) + 1,
        fence_base=base.get("lease_epoch", 0),
        session_base=base.get("session_epoch", 0),
        restored_at=None if restored is None else orjson.loads(restored["value"])["at"],
    )
