"""The periodic part of the composition root: what a hub does beside its work, and what has to give up when it ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from hub.first_start import now_us
from hub.services import integrity as checks
from hub.services.backups import Backups
from hub.services.chores import Chore, Chores
from hub.services.conductor import Conductor
from hub.services.facts import FactReader
from hub.services.integrity import Integrity
from hub.services.keeper import LOG_S, TIDY_S, Keeper
from hub.services.pruner import Keep, Pruner
from hub.services.room import LOOK_S, Room
from hub.settings import HubSettings
from hub.store.backups import Shelf, shelf_beside
from hub.store.sqlite import STORE_FILE, SqliteStore
from hub.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Everything periodic, wired together."""

    chores: Chores
    room: Room
    keeper: Keeper
    backups: Backups
    integrity: Integrity

    def stop(self) -> None:
        """The hub ends: what is under way in a thread gives up."""
        self.backups.stop()
        self.integrity.stop()


async def open_upkeep(
    settings: HubSettings, store: SqliteStore, conductor: Conductor, facts: FactReader, room: Room, metrics: Metrics
) -> Upkeep:
    """For a hub that is about to serve."""

    def deleted(kind: str, rows: int) -> None:
        metrics.pruned.labels(kind).inc(rows)

    backups = Backups(shelf_of(settings), conductor, store.reader, metrics, settings.backup.every_s, now_us)
    integrity = Integrity(store.path, conductor, store.reader, metrics, now_us)
    await backups.tell()
    pruner = Pruner(store, conductor, facts.named, _keep(settings), now_us, deleted)
    share = settings.storage.compact_above_percent / 100
    safe = (backups.examine, integrity.examine)
    keeper = Keeper(store, conductor, room, pruner, share, now_us, metrics.errand_stepped, safe)
    await keeper.look()
    metrics.watch_store(keeper.gauges)
    chores = Chores(
        (
            Chore("space", LOOK_S, partial(room.look, conductor)),
            Chore("log", LOG_S, keeper.mind_log),
            Chore("keeping", TIDY_S, keeper.tidy),
            Chore("backup", backups.poll_s, backups.if_due, lengthy=True),
            Chore("integrity", checks.POLL_S, integrity.if_due, lengthy=True),
        ),
        metrics.chore_ran,
    )
    return Upkeep(chores, room, keeper, backups, integrity)


def shelf_of(settings: HubSettings) -> Shelf:
    """Where the backups of a hub with these settings are."""
    plain = shelf_beside(settings.data_dir / STORE_FILE)
    return replace(plain, dir=settings.backup.dir or plain.dir, keep=settings.backup.keep)


def _keep(settings: HubSettings) -> Keep:
    kept = settings.retention
    return Keep(task_days=kept.task_days, salvage_days=kept.salvage_days, audit_days=kept.audit_days)
