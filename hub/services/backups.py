"""Backups of a living hub: when one is due, one at a time, in a thread of its own, and what is known of the newest."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import orjson

from hub.core.rows import EventRow
from hub.ids import SECOND, BackupReason, Micros
from hub.store.backups import Backup, Shelf, newest_of
from hub.store.base import Operation, Reader, Tx
from hub.store.copying import BackupFailed
from hub.store.manifest import span
from hub.store.recovery import RESTORED
from hub.telemetry.metrics import Metrics
from hub.wire.finding import Finding, fail, ok, warn

T = TypeVar("T")

ACTOR = "hub"
POLL_S = 60.0
"""How often it is looked whether one is due; the first time so long after the start."""
JITTER = 0.05
"""Of the period: hubs that were started together do not all write at once."""
VERIFIED_AT = "backup_verified_at"
"""In the table of meta: when the newest backup was last found whole, microseconds UTC."""
RECENT_S = 7 * 86_400.0
"""So long after a restore, what came of it is worth a warning."""


class Recorder(Protocol):
    """What is needed of the conductor."""

    async def record(self, operation: Operation[T], /) -> T:
        """Run a record operation; returns after its commit."""


@dataclass(slots=True)
class Backups:
    """The backups of this hub. ``every_s`` is how old the newest may become."""

    shelf: Shelf
    recorder: Recorder
    reader: Reader
    metrics: Metrics
    every_s: float
    now_us: Callable[[], Micros]
    _work: asyncio.Task[Backup] | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _early: float = field(default_factory=lambda: random.uniform(0, JITTER))  # noqa: S311  spreads load, protects nothing

    @property
    def poll_s(self) -> float:
        """How often :meth:`if_due` wants to be called."""
        return min(POLL_S, self.every_s / 2)

    async def every(self) -> list[Backup]:
        """What is on the shelf, newest first."""
        return await asyncio.to_thread(self.shelf.every)

    async def create(self, reason: BackupReason, actor: str = ACTOR) -> Backup:
        """Make one now, or wait for the one that is being made; raises BackupFailed."""
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._create(reason, actor), name="backup")
        return await asyncio.shield(self._work)

    async def verify(self, name: str, actor: str) -> Backup:
        """Open one and check it in full; its ``fault`` says what is wrong with it. Raises UnknownBackup."""
        found = await asyncio.to_thread(lambda: self.shelf.verify(self.shelf.find(name), self.now_us()))
        await self._note("backup.verified", actor, found)
        await self.tell()
        return found

    async def if_due(self) -> None:
        """Make one when the newest is too old, or of a moment that is still to come; raises BackupFailed."""
        newest = await asyncio.to_thread(self.shelf.newest)
        known = newest.manifest if newest is not None else None
        if known is None or not 0 <= (self.now_us() - known.created_at) / SECOND < self.every_s * (1 - self._early):
            await self.create(BackupReason.SCHEDULED)

    def stop(self) -> None:
        """The hub ends: one that is being made is given up, and nothing of it is left."""
        self._stopping.set()

    async def close(self) -> None:
        """Wait until the one that was being made is gone."""
        self.stop()
        if self._work is not None:
            await asyncio.wait([self._work])

    async def _create(self, reason: BackupReason, actor: str) -> Backup:
        try:
            made = await asyncio.to_thread(self.shelf.create, reason, self.now_us(), over=self._stopping.is_set)
        except BackupFailed:
            self.metrics.backup_failures.inc()
            raise
        await self._note("backup.made", actor, made)
        await self.tell()
        return made

    async def _note(self, kind: str, actor: str, backup: Backup) -> None:
        """Keep in the audit who made or looked at a copy of everything; and in meta, for whoever asks, how fresh the newest is."""
        data = orjson.dumps({"backup": backup.name, "fault": backup.fault}).decode()
        known = backup.manifest

        def note(tx: Tx) -> Any:
            tx.emit(EventRow(tx.now, kind, actor, data=data))
            if known is not None and backup.fault is None:
                tx.run("meta_set", key=VERIFIED_AT, value=str(known.verified_at))

        await self.recorder.record(note)

    async def tell(self) -> None:
        """Set the metrics as the shelf says."""
        newest = await asyncio.to_thread(self.shelf.newest)
        if newest is not None and newest.manifest is not None:
            self.metrics.backup_made.set(newest.manifest.created_at / SECOND)
            self.metrics.backup_verified.set(newest.manifest.verified_at / SECOND)
            self.metrics.backup_bytes.set(newest.manifest.bytes)

    async def examine(self) -> list[Finding]:
        """What the doctor says: how old the newest is, and what on the shelf is no backup."""
        shelved, now = await self.every(), self.now_us()
        since = await self.reader.one("hub_since")
        hub_age_s = (now - since["at"]) / SECOND if since is not None and since["at"] is not None else 0.0
        return [judge_age(shelved, self.every_s, now, hub_age_s), *judge_broken(shelved), *await self._restored()]

    async def _restored(self) -> list[Finding]:
        """The account of the last restore: what sidecars brought since."""
        row = await self.reader.one("meta_get", key=RESTORED)
        if row is None:
            return []
        told = orjson.loads(row["value"])
        brought = await self.reader.one("restored_results", seq=told["seq"], at=told["at"])
        assert brought is not None
        age_s = max(0.0, (self.now_us() - told["at"]) / SECOND)
        return [judge_restored(told["backup"], age_s, brought)]


def judge_age(shelved: list[Backup], every_s: float, now: Micros, hub_age_s: float) -> Finding:
    """How much would be lost with the store. ``shelved`` is newest first."""
    newest = newest_of(shelved)
    age_s = _age_s(newest, now)
    cure = "agentcom backup create; if it fails, it says why: the hub's log and `agentcom doctor` name failing chores"
    if newest is None or age_s is None:
        if hub_age_s <= 2 * every_s:
            return ok("backup_age", f"there is none yet; one is made every {span(every_s)}, by itself")
        return fail("backup_age", f"there is no backup, and the hub is {span(hub_age_s)} old", cure)
    found = f"the newest of {len(shelved)}, {newest.name}, is {span(age_s)} old and was verified"
    return warn("backup_age", found, cure) if age_s > 2 * every_s else ok("backup_age", found)


def judge_restored(backup: str, age_s: float, brought: Mapping[str, int]) -> Finding:
    """What came back after a restore."""
    found = (
        f"{span(age_s)} ago, from {backup}; since then agents went on with {brought['continued']} tasks, and of results "
        f"{brought['late']} were applied late and {brought['salvaged']} salvaged ({brought['unknown']} of tasks that are unknown here)"
    )
    if brought["salvaged"] and age_s < RECENT_S:
        return warn("restored", found, "look at them: agentcom salvage list")
    return ok("restored", found)


def judge_broken(shelved: list[Backup]) -> list[Finding]:
    """What looks like a backup and is none."""
    return [
        warn("backup", f"{backup.path} is no backup: {backup.fault}", "look at it, and remove it if nobody needs it")
        for backup in shelved
        if backup.fault is not None
    ]


def _age_s(backup: Backup | None, now: Micros) -> float | None:
    known = backup.manifest if backup is not None else None
    return None if known is None else max(0.0, (now - known.created_at) / SECOND)
