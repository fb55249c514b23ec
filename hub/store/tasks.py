"""Tasks as people read them, in filtered pages.

The scheduler writes tasks (``hub.store.journal``); nothing here changes one. What happened to a single task is
``hub.store.task_account``, what its agent is told ``hub.store.specs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hub.ids import Access, AgentId, Lane, LeaseEpoch, TaskId, TaskState, TaskType
from hub.store.base import Reader, Record
from hub.store.decode import decoder

FIRST_PAGE = 2**62
"""Cursor above every task."""
CHUNK_ROWS = 500
SCAN_ROWS = 5_000
"""Rows one page may look at; a sparse filter gives a short page whose cursor goes on from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """One row of ``task`` without its spec. Times are microseconds UTC."""

    n: TaskId
    project: str
    repo: str | None
    base: str | None
    title: str
    type: TaskType
    lane: Lane
    access: Access
    needs_change: bool
    max_tries: int
    deadline: int | None
    parent: TaskId | None
    created_by: str
    created_at: int
    unique_key: str | None
    generation: int
    state: TaskState
    queued_at: int | None
    not_before: int | None
    tries: int
    lost: int
    rework: int
    claims: int
    lease_epoch: LeaseEpoch
    holder_agent: AgentId | None
    assign_to: AgentId | None
    held: bool
    parked: bool
    stopping: TaskState | None
    merging: bool
    cause: str | None
    updated_at: int
    finished_at: int | None


read_task = decoder(TaskRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """What a list is asked for; None is any. ``text`` is a part of the title, case does not matter.

    ``agent`` means tasks it was ever given. Internal checks are left out unless ``type`` asks for them.
    """

    state: TaskState | None = None
    live: bool = False
    lane: Lane | None = None
    project: str | None = None
    repo: str | None = None
    agent: AgentId | None = None
    type: TaskType | None = None
    created_by: str | None = None
    text: str | None = None

    def source(self) -> tuple[str, dict[str, Any]]:
        """The named query, served by one index, that drives this filter; :meth:`accepts` does the rest."""
        if self.agent is not None:
            return "task_page_by_agent", {"agent": self.agent}
        if self.repo is not None:
            return "task_page_by_repo", {"repo": self.repo}
        if self.state is not None:
            return "task_page_by_state", {"state": self.state}
        if self.live:
            return "task_page_live", {}
        if self.project is not None:
            return "task_page_by_project", {"project": self.project}
        return "task_page", {}

    def accepts(self, row: Record) -> bool:
        """Whether a row of the source passes the whole filter."""
        if self.type is None and row["type"] == TaskType.CHECK:
            return False
        if self.live and row["finished_at"] is not None:
            return False
        if self.text is not None and self.text.casefold() not in row["title"].casefold():
            return False
        wanted = (
            ("state", self.state),
            ("lane", self.lane),
            ("project", self.project),
            ("repo", self.repo),
            ("type", self.type),
            ("created_by", self.created_by),
        )
        return all(value is None or row[column] == value for column, value in wanted)


async def holder_of_key(reader: Reader, unique_key: str) -> TaskId | None:
    """The live task that has a unique key, or None."""
    row = await reader.one("task_of_unique_key", unique_key=unique_key)
    return None if row is None else TaskId(row["n"])


async def page(
    reader: Reader, wanted: TaskFilter, *, before: int = FIRST_PAGE, limit: int = 50
) -> tuple[list[TaskRecord], int | None]:
    """Newest first below the cursor, and the cursor of the next page (None at the end).

    Looks at no more than :data:`SCAN_ROWS` rows.
    """
    query, params = wanted.source()
    found: list[TaskRecord] = []
    for _ in range(SCAN_ROWS // CHUNK_ROWS):
        chunk = await reader.all(query, before=before, limit=CHUNK_ROWS, **params)
        for row in chunk:
            before = row["n"]
            if wanted.accepts(row):
                found.append(read_task(row))
                if len(found) == limit:
                    return found, before
        if len(chunk) < CHUNK_ROWS:
            return found, None
    return found, before
