"""Figures no single noun owns."""

from __future__ import annotations

from dataclasses import dataclass

from hub.store.base import Reader


@dataclass(frozen=True, slots=True)
class Figures:
    """``finished`` tasks by terminal state since a moment, and open ``changes`` by state."""

    finished: dict[str, int]
    changes: dict[str, int]


async def figures(reader: Reader, since: int) -> Figures:
    """Count; ``since`` is microseconds UTC and bounds the work."""
    finished = await reader.all("status_finished_since", since=since)
    changes = await reader.all("status_open_changes")
    return Figures({row["state"]: row["tasks"] for row in finished}, {row["state"]: row["changes"] for row in changes})
