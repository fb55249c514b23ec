"""What a branch or a clone was for: read to decide whether anybody needs it any more."""

from __future__ import annotations

from dataclasses import dataclass

from hub.ids import ChangeId, ChangeState, LeaseEpoch, TaskId, TaskState
from hub.store.base import Reader, Record
from hub.store.decode import decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeFacts:
    """A change, as far as its branches are concerned, and how its task is."""

    repo: str
    head_sha: str
    candidate_sha: str | None
    state: ChangeState
    task_state: TaskState


_read = decoder(ChangeFacts)


async def of_assignment(reader: Reader, task: TaskId, lease_epoch: LeaseEpoch) -> ChangeFacts | None:
    """The change that came of one lease, or None."""
    return _facts(await reader.one("leftover_assignment", task=task, lease_epoch=lease_epoch))


async def of_candidate(reader: Reader, change: ChangeId) -> ChangeFacts | None:
    """A change by its number, or None."""
    return _facts(await reader.one("leftover_candidate", change=change))


async def is_wanted(reader: Reader, repo: str) -> bool:
    """Whether a live task or an open change names the repository."""
    row = await reader.one("leftover_wanted", repo=repo)
    return row is None or bool(row["wanted"])


def _facts(row: Record | None) -> ChangeFacts | None:
    return None if row is None else _read(row)
