"""The store as a whole: its figures and what they mean, and the work that keeps it small."""

from __future__ import annotations

from fastapi import APIRouter

from hub.edge.http.access import ADMINS, OPERATES, Hub
from hub.edge.http.doctor import FindingOut
from hub.edge.http.doors import Doors
from hub.edge.http.fields import Out, rfc3339
from hub.edge.http.reading import JsonRoute
from hub.ids import SECOND, SpaceState
from hub.services.errands import Round
from hub.services.keeper import COMPACT, PRUNE

router = APIRouter(prefix="/db", tags=["db"], route_class=JsonRoute)


class HealthOut(Out):
    """Sizes in bytes. ``incremental``: free pages can be given back while the hub is at work. ``prune_backlog`` counts to 100 000."""

    file_bytes: int
    free_bytes: int
    pages: int
    free_pages: int
    incremental: bool
    log_bytes: int
    blob_bytes: int
    growth_bytes_per_day: float | None
    disk_free_bytes: int
    reserve_bytes: int
    reserve_held_bytes: int
    space: SpaceState
    oldest_reader_s: float
    prune_backlog: int
    findings: list[FindingOut]


class RoundOut(Out):
    """The last time an errand ran, or runs. ``longest_hold_ms``: the longest that one of its steps held the writer."""

    running: bool
    asked_at: str
    started_at: str | None
    ended_at: str | None
    steps: int
    longest_hold_ms: float
    stopped: bool
    error: str | None


class CompactionOut(Out):
    """``bytes_before``: the file when the last round began; ``bytes_after``: when it ended, or as last seen."""

    round: RoundOut | None
    bytes_before: int | None
    bytes_after: int | None


class PruningOut(Out):
    """``would_prune``: what a round would delete now, by kind; ``pruned``: what was, since the hub started."""

    round: RoundOut | None
    pruned: dict[str, int]


class WouldPruneOut(Out):
    """Counted up to 100 000 each. ``tasks_needed`` are old, but something still needs them."""

    tasks: int
    tasks_needed: int
    blobs: int
    events: int


@router.get("/health", dependencies=[OPERATES])
async def health(hub: Hub) -> HealthOut:
    """The store in figures, and what they mean."""
    found = await hub.keeper.look()
    pages, space = found.pages, found.space
    return HealthOut(
        file_bytes=pages.bytes,
        free_bytes=pages.free_bytes,
        pages=pages.total,
        free_pages=pages.free,
        incremental=pages.incremental,
        log_bytes=found.log_bytes,
        blob_bytes=found.blob_bytes,
        growth_bytes_per_day=found.growth_bytes_per_day,
        disk_free_bytes=space.free_bytes,
        reserve_bytes=space.size_bytes,
        reserve_held_bytes=space.held_bytes,
        space=space.state,
        oldest_reader_s=found.oldest_reader_s,
        prune_backlog=found.backlog,
        findings=[FindingOut.model_validate(one) for one in await hub.keeper.findings(found)],
    )


@router.get("/compaction", dependencies=[OPERATES])
async def compaction(hub: Hub) -> CompactionOut:
    """How far the last compaction is."""
    return _compaction(hub)


@router.post("/compaction", status_code=202, dependencies=[ADMINS])
async def compact(hub: Hub) -> CompactionOut:
    """Give free pages back to the disk, in steps that nobody notices. 409 for a file of an old version."""
    hub.keeper.ask(COMPACT)
    return _compaction(hub)


@router.delete("/compaction", dependencies=[ADMINS])
async def stop_compaction(hub: Hub) -> CompactionOut:
    """End it after its present step; the next one goes on from there."""
    hub.keeper.stop(COMPACT)
    return _compaction(hub)


@router.get("/pruning", dependencies=[OPERATES])
async def pruning(hub: Hub) -> PruningOut:
    """How far the last pruning is."""
    return _pruning(hub)


@router.get("/pruning/preview", dependencies=[OPERATES])
async def preview(hub: Hub) -> WouldPruneOut:
    """What pruning would delete now. Changes nothing."""
    return WouldPruneOut(**await hub.keeper.pruner.would_prune())


@router.post("/pruning", status_code=202, dependencies=[ADMINS])
async def prune(hub: Hub) -> PruningOut:
    """Delete what is no longer kept, now and not only within the hour."""
    hub.keeper.ask(PRUNE)
    return _pruning(hub)


@router.delete("/pruning", dependencies=[ADMINS])
async def stop_pruning(hub: Hub) -> PruningOut:
    """End it after its present step; what is gone is gone, the rest stays until the next time."""
    hub.keeper.stop(PRUNE)
    return _pruning(hub)


def _compaction(hub: Doors) -> CompactionOut:
    before, after = hub.keeper.file_bytes() or (None, None)
    return CompactionOut(round=_round(hub.keeper.round_of(COMPACT)), bytes_before=before, bytes_after=after)


def _pruning(hub: Doors) -> PruningOut:
    return PruningOut(round=_round(hub.keeper.round_of(PRUNE)), pruned=dict(hub.keeper.pruner.pruned))


def _round(found: Round | None) -> RoundOut | None:
    if found is None:
        return None
    return RoundOut(
        running=found.running,
        asked_at=_moment(found.asked_at),
        started_at=None if found.started_at is None else _moment(found.started_at),
        ended_at=None if found.ended_at is None else _moment(found.ended_at),
        steps=found.steps,
        longest_hold_ms=round(found.longest_s * 1000, 3),
        stopped=found.stopped,
        error=found.error or None,
    )


def _moment(seconds: float) -> str:
    return rfc3339(int(seconds * SECOND))
