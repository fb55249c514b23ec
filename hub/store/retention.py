"""What is no longer kept: ended tasks with all that belongs to them, old audit, spent tokens, blobs that nothing names.

The fold of the events stays the table: events outlive their task until the audit's own age, and the event ``tasks.pruned``, written with
the deletion, says which tasks are gone. An event whose task is still there is never deleted, however old it is.
Nothing is deleted because something is missing: each statement deletes what it has just found to be old and unneeded.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import orjson

from hub.core.rows import EventRow
from hub.ids import Micros
from hub.store.base import Look, Operation, Reader, Record, Tx
from hub.store.events import read_event

ACTOR = "hub"
PRUNED = "tasks.pruned"
PAGE_ROWS = 500
"""Rows that are looked at, or deleted, at once."""
_OF_TASK = (
    *("prune_reviews", "prune_changes", "prune_deps", "prune_attempts", "prune_results", "prune_salvage", "prune_feedback"),
    *("prune_questions", "prune_task"),
)
"""In an order in which nothing points to a row that is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What happened before these moments is no longer kept, microseconds UTC; None: it is kept for ever."""

    tasks: Micros | None
    salvage: Micros | None
    audit: Micros | None
    blobs: Micros
    """Blobs stored later may still be about to be named."""


@dataclass(frozen=True, slots=True)
class Walk:
    """Where a walk through ended tasks, or blobs, goes on: behind (moment, key)."""

    at: int = 0
    key: int | str = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One step: how much was looked at and deleted, where to go on (None: the end), and how long it held the writer."""

    seen: int
    deleted: int
    on: Walk | None
    held_s: float


class Named:
    """Tasks that commands under way name, and tasks that are being pruned: each is one or the other, whoever comes first.

    A command is applied a moment after the rows it needs were read. A task that went away in between would leave a row behind that
    points to nothing. The writer's thread dooms, the loop names; both hold the lock for no longer than that takes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._named: Counter[int] = Counter()
        self._doomed: set[int] = set()

    @contextmanager
    def holding(self, tasks: Collection[int]) -> Iterator[frozenset[int]]:
        """Keep these from being pruned for as long as the context lasts; gives those that are doomed already: as good as gone."""
        with self._lock:
            self._named.update(tasks)
            doomed = frozenset(self._doomed.intersection(tasks))
        try:
            yield doomed
        finally:
            with self._lock:
                self._named.subtract(tasks)
                for n in tasks:
                    if not self._named[n]:
                        del self._named[n]

    def doom(self, tasks: Iterable[int]) -> list[int]:
        """Those of them that no command names; they are doomed until :meth:`settle`."""
        with self._lock:
            free = [n for n in tasks if n not in self._named]
            self._doomed.update(free)
            return free

    def settle(self) -> None:
        """The transaction is over: what was doomed is gone from the table, or is as it was."""
        with self._lock:
            self._doomed.clear()


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def prune_tasks(walk: Walk, limit: int, bounds: Bounds, named: Named) -> Operation[Step]:
    """Look at ``limit`` ended tasks and delete those that nothing needs, with all that belongs to them."""

    def operation(tx: Tx) -> Step:
        began = time.perf_counter()
        found = tx.all("prune_tasks", **_old_tasks(walk, limit, bounds))
        gone = named.doom(row["n"] for row in found if not row["needed"])
        for n in gone:
            for statement in _OF_TASK:
                tx.run(statement, n=n)
        if gone:
            tx.emit(EventRow(tx.now, PRUNED, ACTOR, data=orjson.dumps({"tasks": gone}).decode()))
        on = Walk(found[-1]["finished_at"], found[-1]["n"]) if len(found) == limit else None
        return Step(len(found), len(gone), on, time.perf_counter() - began)

    return operation


def _old_tasks(walk: Walk, limit: int, bounds: Bounds) -> dict[str, int | str]:
    salvage_before = bounds.salvage if bounds.salvage is not None else 0
    return {
        "after_at": walk.at,
        "after": walk.key,
        "before": bounds.tasks or 0,
        "salvage_before": salvage_before,
        "limit": limit,
    }


# ── what hangs on no task ────────────────────────────────────────────────────────────────────────────────────────────────


def prune_plain(statement: str, before: Micros) -> Operation[Step]:
    """One of the statements that delete a page of old rows by themselves; it is at its end when a page is not full."""

    def operation(tx: Tx) -> Step:
        began = time.perf_counter()
        deleted = tx.run(statement, after=-1, before=before, limit=PAGE_ROWS)
        return Step(deleted, deleted, Walk() if deleted == PAGE_ROWS else None, time.perf_counter() - began)

    return operation


async def salvaged_blobs(reader: Reader) -> frozenset[str]:
    """The blobs that salvage names."""
    named: set[str] = set()
    at = {"task": -1, "lease_epoch": -1, "sha256": ""}
    while rows := await reader.all("salvage_blobs", **at, limit=PAGE_ROWS):
        named.update(row["output_ref"] for row in rows if row["output_ref"] is not None)
        at = {key: rows[-1][key] for key in at}
    return frozenset(named)


async def spare_blobs(reader: Reader, walk: Walk, before: Micros, needed: frozenset[str]) -> tuple[list[Record], Walk | None]:
    """A page of old blobs that neither results nor ``needed`` name, and where to go on."""
    key = walk.key if isinstance(walk.key, str) else ""
    found = await reader.all("prune_blobs", after_at=walk.at, after=key, before=before, limit=PAGE_ROWS)
    on = Walk(found[-1]["created_at"], found[-1]["sha256"]) if len(found) == PAGE_ROWS else None
    return [row for row in found if not row["needed"] and row["sha256"] not in needed], on


def prune_blobs(digests: Sequence[str], before: Micros) -> Operation[Step]:
    """Delete these blobs, but those that were stored again or named meanwhile."""

    def operation(tx: Tx) -> Step:
        began = time.perf_counter()
        deleted = sum(tx.run("prune_blob", sha256=sha256, before=before) for sha256 in digests)
        return Step(len(digests), deleted, None, time.perf_counter() - began)

    return operation


# ── the audit ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A page of old events that nothing needs, and the seq to go on behind; None at the end of what is old."""

    events: list[tuple[int, EventRow]]
    on: int | None


async def old_events(reader: Reader, after: int, before: Micros) -> AuditPage:
    """Events that happened before then and whose task is gone, in their order."""
    rows = await reader.all("audit_page", after=after, limit=PAGE_ROWS)
    old = [row for row in rows if row["at"] < before]
    at_the_end = len(rows) < PAGE_ROWS or len(old) < len(rows)
    return AuditPage([read_event(row) for row in old if not row["needed"]], None if at_the_end else rows[-1]["seq"])


def delete_events(seqs: Sequence[int]) -> Operation[Step]:
    """Delete events that were exported."""

    def operation(tx: Tx) -> Step:
        began = time.perf_counter()
        deleted = tx.run("audit_delete", seqs=orjson.dumps(list(seqs)).decode())
        return Step(len(seqs), deleted, None, time.perf_counter() - began)

    return operation


# ── what would be ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def countable_tasks(reader: Reader, bounds: Bounds, most: int) -> tuple[int, int]:
    """(to be pruned, old but needed) of the first ``most`` old tasks, changing nothing."""
    pruned = needed = 0
    walk: Walk | None = Walk()
    while walk is not None and pruned + needed < most and bounds.tasks is not None:
        params = _old_tasks(walk, PAGE_ROWS, bounds)

        def page(look: Look, params: dict[str, int | str] = params) -> list[Record]:
            return look.all("prune_tasks", **params)

        found = await reader.look(page)
        needed += sum(bool(row["needed"]) for row in found)
        pruned += sum(not row["needed"] for row in found)
        walk = Walk(found[-1]["finished_at"], found[-1]["n"]) if len(found) == PAGE_ROWS else None
    return pruned, needed
