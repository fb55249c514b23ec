"""The audit as it is read: from a position on (the feed's gap), or of one task."""

from __future__ import annotations

from hub.core.rows import EventRow
from hub.ids import TaskId
from hub.store.base import Reader, Record

FIRST_PAGE = 2**62


async def after(reader: Reader, seq: int, *, limit: int) -> list[tuple[int, EventRow]]:
    """At most ``limit`` events behind ``seq``, oldest first, each with its seq."""
    return [read_event(row) for row in await reader.all("event_page_after", after=seq, limit=limit)]


async def of_task(reader: Reader, n: TaskId, *, before: int = FIRST_PAGE, limit: int) -> list[tuple[int, EventRow]]:
    """At most ``limit`` events of a task before ``before``, newest first."""
    return [read_event(row) for row in await reader.all("event_page_of_task", task=n, before=before, limit=limit)]


def read_event(row: Record) -> tuple[int, EventRow]:
    """An event with its seq, from its row."""
    return row["seq"], EventRow(*(row[column] for column in EventRow._fields))
