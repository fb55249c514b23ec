"""Before a store is opened: is it whole? One that is not is refused with what is broken and how to go on, and is not touched."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import structlog

from hub.ids import SECOND
from hub.store.backups import Shelf
from hub.store.integrity import StoreCorrupt, check_at_start
from hub.store.manifest import moment, span
from hub.store.restore import finish
from hub.store.wal import has_log

log = structlog.get_logger("store")


def guard(path: Path, shelf: Shelf, *, log_synced: bool = True) -> None:
    """Check a store that this process has locked and nobody has open; raises StoreCorrupt. A new one has nothing to check.

    ``log_synced`` as in :func:`hub.store.integrity.judge`: true for durability full.
    """
    if finish(path) is not None:
        log.warning("restore_finished", note="it had been cut off")
    examine(path, shelf, log_synced=log_synced)


def examine(path: Path, shelf: Shelf, *, log_synced: bool = True) -> None:
    """The check of :func:`guard` alone, which changes nothing: a restore that was cut off stays as it is."""
    if faults := _missing(path, shelf):
        raise corrupt(path, faults, shelf)
    if not path.exists() or path.stat().st_size == 0:
        return
    faults, took_s, finished = check_at_start(path, log_synced=log_synced)
    if faults:
        raise corrupt(path, faults, shelf)
    if not finished:
        log.warning("store_check_unfinished", took_s=round(took_s, 1), note="it is checked in full once a week")
    log.debug("store_checked", took_s=round(took_s, 3))


def _missing(path: Path, shelf: Shelf) -> list[str]:
    """What says that there was a store where there is none now: to begin a new one would bury it."""
    if path.exists() and path.stat().st_size > 0:
        return []
    what = "the file is empty" if path.exists() else "the file is gone"
    if has_log(path):
        return [f"{what}, but its log is there"]
    if shelf.newest() is not None:
        return [f"{what}, but there are backups of it"]
    if path.exists() and shelf.key.exists():
        return [f"{what}, but {shelf.key.name} beside it was made for one with something in it"]
    return []


def corrupt(path: Path, faults: list[str], shelf: Shelf) -> StoreCorrupt:
    """The refusal: what is broken, which backup there is, and the command."""
    newest = shelf.newest()
    notes: tuple[str, ...]
    if newest is None or newest.manifest is None:
        notes = (f"there is no backup in {shelf.dir}",)
        return StoreCorrupt(
            path, faults, notes, "nothing was changed; copy the data directory somewhere safe before anything else"
        )
    known = newest.manifest
    age_s = max(0, time.time_ns() // 1000 - known.created_at) // SECOND
    what = f"{sum(known.tasks.values())} tasks up to t-{known.n}, event {known.seq}"
    when = f"made {span(age_s)} ago, last verified {moment(known.verified_at)[:19]}Z"
    notes = (
        f"the newest verified backup is {newest.name} ({when}): {what}",
        "nothing was changed; a restore keeps what is there now, aside",
    )
    return StoreCorrupt(
        path, faults, notes, f"agentcom backup restore --newest --data-dir {shlex.quote(str(path.parent.absolute()))}"
    )
