"""Tasks as people and sidecars read them: filtered pages, and the spec an assignment carries.

The scheduler writes tasks (``hub.store.journal``); nothing here changes one. What happened to a single task is
``hub.store.task_account``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from hub.ids import Access, AgentId, Lane, LeaseEpoch, TaskId, TaskState, TaskType
from hub.store.base import Reader, Record
from hub.store.decode import decoder
from hub.wire.codec import decode_spec
from hub.wire.spec import Spec

FIRST_PAGE = 2**62
"""Cursor above every task."""
CHUNK_ROWS = 500
SCAN_ROWS = 5_000
"""Rows one page may look at; a sparse filter gives a short page whose cursor goes on from there."""
FEEDBACK_ROWS = 5
FEEDBACK_BYTES = 65_536


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


VERIFICATIONS = 64
"""Checks of one attempt; more of a submitter's are left out, never one that is registered with the repository."""


async def hydrate(reader: Reader, n: int, lease_epoch: int) -> Spec:
    """The wire spec of a task for the claim ``lease_epoch``, from its committed rows.

    Carries the failure context and reviewers' words of the latest five feedback rows (newest last, together at most
    64 KiB), the head a rework starts from, the answers given so far, and the repository's registered checks before its
    own. Raises LookupError when the task or its repository has no row.
    """
    row = await reader.one("task_by_n", n=n)
    if row is None:
        raise LookupError(f"task {n} has no row")
    described: dict[str, Any] = orjson.loads(row["spec"])
    body = {key: described[key] for key in _DESCRIBED if key in described}
    repo, registered = await _repository(reader, row)
    if row["needs_change"]:
        # the checks that count for the tier come first; those of the submitter follow
        own = [check for check in body.get("verification", []) if check not in registered]
        body["verification"] = [*registered, *own][:VERIFICATIONS]
    body.update(
        task=n,
        lease_epoch=lease_epoch,
        title=row["title"],
        type=row["type"],
        access=row["access"],
        project=row["project"],
        repo=repo,
        needs_change=bool(row["needs_change"]),
        attempt=max(1, row["tries"]),
        feedback=_newest_within(await reader.all("task_feedback", n=n, lease_epoch=lease_epoch, limit=FEEDBACK_ROWS)),
        start=await _start(reader, n, lease_epoch),
        conversation_id=row["conversation_id"],
        answers=await _answers(reader, n),
    )
    return decode_spec(orjson.dumps(body))


_DESCRIBED = (
    "description",
    "file_hints",
    "success_criteria",
    "verification",
    "budget",
    "model",
    "complexity",
    "max_fix_rounds",
    "metadata",
    "check",
)
"""Fields of the stored spec document that travel to the sidecar."""


async def _repository(reader: Reader, row: Record) -> tuple[dict[str, str] | None, list[dict[str, Any]]]:
    """Where the task works, and the checks registered there."""
    if row["repo"] is None:
        return None, []
    found = await reader.one("repository_by_name", name=row["repo"])
    if found is None:
        raise LookupError(f"repository {row['repo']} has no row")
    where = {"name": row["repo"], "url": found["url"], "base": row["base"] or found["base"]}
    return where, orjson.loads(found["checks"])


async def _start(reader: Reader, n: int, lease_epoch: int) -> dict[str, str] | None:
    rework = await reader.one("task_rework", n=n, lease_epoch=lease_epoch)
    if rework is None or rework["head_sha"] is None:
        return None
    return {"branch": rework["branch"] or "", "head_sha": rework["head_sha"]}


async def _answers(reader: Reader, n: int) -> list[dict[str, str]]:
    questions = await reader.all("task_questions", n=n)
    return [
        {"qid": row["qid"], "text": row["text"][:4096], "answer": row["answer"][:4096]}
        for row in reversed(questions)
        if row["answer"] is not None
    ]


def _newest_within(rows: list[Record]) -> list[str]:
    """Texts of rows given newest first, as newest last; what does not fit any more is cut off, oldest first."""
    texts: list[str] = []
    room = FEEDBACK_BYTES
    for row in rows:
        text = row["text"].encode()[:room].decode(errors="ignore")
        if not text:
            break
        texts.append(text)
        room -= len(text.encode())
    return texts[::-1]
