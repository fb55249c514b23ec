"""The hub's store over HTTP: how it is, and the work that keeps it small."""

from __future__ import annotations

from typing import TypedDict

from hub.client.documents import Finding
from hub.client.transport import Transport


class StoreHealth(TypedDict):
    """Sizes in bytes. ``growth_bytes_per_day`` is None until it is known; ``prune_backlog`` counts to 100 000."""

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
    space: str
    oldest_reader_s: float
    prune_backlog: int
    findings: list[Finding]


class ErrandRound(TypedDict):
    """The last time such work ran, or runs."""

    running: bool
    asked_at: str
    started_at: str | None
    ended_at: str | None
    steps: int
    longest_hold_ms: float
    stopped: bool
    error: str | None


class Compaction(TypedDict):
    """``round`` is None before the first."""

    round: ErrandRound | None
    bytes_before: int | None
    bytes_after: int | None


class Pruning(TypedDict):
    """``pruned``: rows deleted since the hub started, by kind."""

    round: ErrandRound | None
    pruned: dict[str, int]


class WouldPrune(TypedDict):
    """What pruning would delete now, counted up to 100 000 each; ``tasks_needed`` are old and stay."""

    tasks: int
    tasks_needed: int
    blobs: int
    events: int


class DbApi(Transport):
    """The routes of the store as a whole."""

    async def db_health(self) -> StoreHealth:
        """Its figures, and what they mean."""
        return await self.ask(StoreHealth, "GET", "/db/health")

    async def compaction(self) -> Compaction:
        """How far the last compaction is."""
        return await self.ask(Compaction, "GET", "/db/compaction")

    async def compact(self) -> Compaction:
        """Begin to give free pages back to the disk; it goes on by itself."""
        return await self.ask(Compaction, "POST", "/db/compaction")

    async def stop_compaction(self) -> Compaction:
        """End it after its present step."""
        return await self.ask(Compaction, "DELETE", "/db/compaction")

    async def pruning(self) -> Pruning:
        """How far the last pruning is."""
        return await self.ask(Pruning, "GET", "/db/pruning")

    async def would_prune(self) -> WouldPrune:
        """What pruning would delete now; changes nothing."""
        return await self.ask(WouldPrune, "GET", "/db/pruning/preview")

    async def prune(self) -> Pruning:
        """Begin to delete what is no longer kept; it goes on by itself."""
        return await self.ask(Pruning, "POST", "/db/pruning")

    async def stop_pruning(self) -> Pruning:
        """End it after its present step."""
        return await self.ask(Pruning, "DELETE", "/db/pruning")
