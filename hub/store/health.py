"""The store in figures: its size and holes, its log, who reads, how it grows, and what retention has yet to prune."""

from __future__ import annotations

from dataclasses import dataclass

from hub.ids import DAY, Micros
from hub.store.base import Operation, Reader, Tx
from hub.store.compaction import Pages, pages_of
from hub.store.reserve import Space
from hub.store.sqlite import SqliteStore

SAMPLES_KEPT_DAYS = 400
GROWTH_DAYS = 7
BACKLOG_COUNTED = 100_000
"""A backlog is counted up to here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """One look at a store. Bytes, seconds, counts; ``growth_bytes_per_day`` is None until it is known.

    ``backlog`` counts ended tasks that are older than they have to be kept, up to ``BACKLOG_COUNTED``.
    """

    pages: Pages
    log_bytes: int
    blob_bytes: int
    oldest_reader_s: float
    growth_bytes_per_day: float | None
    backlog: int
    space: Space


async def look(store: SqliteStore, space: Space, *, ended_before: Micros | None, now: Micros) -> Health:
    """Everything of one moment but the disk. ``ended_before``: tasks that ended earlier are to be pruned; None: none are."""
    pages: Pages = await store.reader.run(pages_of)
    return Health(
        pages=pages,
        log_bytes=store.log_bytes(),
        blob_bytes=await blob_bytes(store.reader),
        oldest_reader_s=store.reader.oldest_s(),
        growth_bytes_per_day=await growth(store.reader, now),
        backlog=await backlog(store.reader, ended_before),
        space=space,
    )


async def blob_bytes(reader: Reader) -> int:
    """All blobs together, from their index."""
    row = await reader.one("blob_total")
    return int(row["bytes"]) if row is not None else 0


async def backlog(reader: Reader, ended_before: Micros | None) -> int:
    """Tasks that ended before then, up to ``BACKLOG_COUNTED``."""
    if ended_before is None:
        return 0
    row = await reader.one("prune_backlog", before=ended_before, limit=BACKLOG_COUNTED)
    return int(row["tasks"]) if row is not None else 0


async def growth(reader: Reader, now: Micros) -> float | None:
    """Bytes in use that were added a day, over the last week; None before there are samples a day apart."""
    samples = await reader.all("store_samples", since=now // DAY - GROWTH_DAYS)
    if len(samples) < 2:
        return None
    first, last = samples[0], samples[-1]
    used = (last["file_bytes"] - last["free_bytes"]) - (first["file_bytes"] - first["free_bytes"])
    return float(used / (last["day"] - first["day"]))


def note_size(pages: Pages) -> Operation[None]:
    """Remember the size of today; the first of a day stays."""

    def operation(tx: Tx) -> None:
        tx.run("store_sample_insert", day=tx.now // DAY, file_bytes=pages.bytes, free_bytes=pages.free_bytes)
        tx.run("store_sample_prune", before=tx.now // DAY - SAMPLES_KEPT_DAYS)

    return operation
