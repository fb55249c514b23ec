"""Work that was kept although it was not applied: what the doors show of it, and what the next attempt is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from hub.ids import Access, AgentId, LeaseEpoch, Outcome, SalvageState, TaskId, TaskState, salvage_ref
from hub.store.base import Look, Reader, Record
from hub.store.decode import decoder

FIRST_PAGE = (2**62, 2**62, "")
OFFERS = 3
"""Records of earlier attempts that the next one is told of: the newest."""
OFFERS_BYTES = 16_384
"""All of them together; what they say is shortened to fit."""
SUMMARY_CHARS = 4096
OUTPUT_CHARS = 16_384
"""Of the kept output or raw body, the end is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SalvageEntry:
    """One record in a list. ``task_state`` and ``title`` are None for a task that is not known here.

    ``branch`` to ``head_sha`` name commits, ``salvage_ref`` the branch of what was left uncommitted. ``note`` says why it was
    dropped, ``applied_epoch`` is the fence under which it was adopted.
    """

    task: TaskId
    lease_epoch: LeaseEpoch
    sha256: str
    at: int
    reason: str
    state: SalvageState
    outcome: Outcome
    agent: AgentId | None
    branch: str | None
    base_sha: str | None
    head_sha: str | None
    salvage_ref: str | None
    decided_by: str | None
    decided_at: int | None
    note: str | None
    applied_epoch: LeaseEpoch | None
    title: str | None
    task_state: TaskState | None

    @property
    def ref(self) -> str:
        """``t-17/3``."""
        return salvage_ref(self.task, self.lease_epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class SalvageRecord(SalvageEntry):
    """A record with its body, and where its task works (None: in no registered repository)."""

    body: str
    repo: str | None
    url: str | None
    forge: str | None
    base: str | None
    access: Access | None
    needs_change: bool | None

    def told(self) -> dict[str, Any]:
        """The kept result; empty for a body that never was one."""
        try:
            body = orjson.loads(self.body)
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}


_entry = decoder(SalvageEntry)
_record = decoder(SalvageRecord)


async def page(
    reader: Reader,
    *,
    task: TaskId | None = None,
    undecided: bool = False,
    before: tuple[int, int, str] = FIRST_PAGE,
    limit: int = 50,
) -> tuple[list[SalvageEntry], str | None]:
    """Newest task first below the cursor, and the cursor of the next page (None at the end)."""
    query = {
        (False, False): "salvage_page",
        (False, True): "salvage_page_open",
        (True, False): "salvage_page_of_task",
        (True, True): "salvage_open_of_task",
    }[task is not None, undecided]
    of = {} if task is None else {"of": task}
    rows = await reader.all(query, task=before[0], lease_epoch=before[1], sha256=before[2], limit=limit, **of)
    found = [_entry(row) for row in rows]
    last = found[-1] if len(found) == limit else None
    return found, None if last is None else f"{last.task}.{last.lease_epoch}.{last.sha256}"


def read_cursor(text: str) -> tuple[int, int, str]:
    """Where :func:`page` is to go on; raises ValueError for what it never gave out."""
    task, epoch, sha256 = text.split(".") if text.count(".") == 2 else ("", "", "")
    if not (task.isdecimal() and epoch.isdecimal() and len(task) < 19 and len(epoch) < 19):
        raise ValueError("this is no cursor of a list of salvaged work")
    return int(task), int(epoch), sha256


async def find(reader: Reader, task: TaskId, lease_epoch: LeaseEpoch) -> SalvageRecord | None:
    """What was kept of one lease (the newest open record, else the newest), or None."""
    row = await reader.one("salvage_of_lease", task=task, lease_epoch=lease_epoch)
    return None if row is None else _record(row)


async def of_task(reader: Reader, task: TaskId) -> tuple[SalvageEntry, ...]:
    """What was kept of a task's attempts, newest first."""
    return tuple((await page(reader, task=task, limit=64))[0])


async def told(reader: Reader, kept: SalvageRecord) -> tuple[str | None, tuple[LeaseEpoch, ...]]:
    """What the attempt after that lease heard of how it ended, and the attempts that were told of this record."""
    feedback = await reader.one("salvage_feedback", task=kept.task, lease_epoch=kept.lease_epoch)
    attempts = await reader.all("salvage_told", task=kept.task, lease_epoch=kept.lease_epoch, at=kept.at, until=kept.decided_at)
    return None if feedback is None else feedback["text"], tuple(LeaseEpoch(row["lease_epoch"]) for row in attempts)


async def count_open(reader: Reader) -> int:
    """How many records wait for a decision, counted up to 1 000."""
    row = await reader.one("salvage_open_count")
    return 0 if row is None else int(row["open"])


def offers(look: Look, task: TaskId | int, lease_epoch: int) -> list[dict[str, Any]]:
    """What a claim is told of earlier work, newest first; together at most 16 KiB."""
    rows = look.all("salvage_offered", task=task, lease_epoch=lease_epoch, limit=OFFERS)
    found = [_offer(row) for row in rows]
    while len(orjson.dumps(found)) > OFFERS_BYTES and any(offer["summary"] for offer in found):
        for offer in found:
            offer["summary"] = offer["summary"][len(offer["summary"]) // 2 + 1 :]
    return found


def _offer(row: Record) -> dict[str, Any]:
    return {
        "lease_epoch": row["lease_epoch"],
        "agent": row["agent"] or "",
        "reason": row["reason"][:256],
        "outcome": row["outcome"][:64],
        "branch": row["branch"] or row["salvage_ref"],
        "head_sha": row["head_sha"],
        "summary": _summary(row["body"])[-SUMMARY_CHARS:],
    }


def _summary(body: str) -> str:
    try:
        told = orjson.loads(body)
    except ValueError:
        return ""
    if not isinstance(told, dict):
        return ""
    error = told.get("error") or {}
    words = (error.get("message") if isinstance(error, dict) else None, told.get("output"))
    return "\n".join(str(part).strip() for part in words if part)
