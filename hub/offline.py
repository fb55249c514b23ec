"""The part of the composition root for a store that no hub has open: what it has to go through, and rewriting it once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

from hub.settings import HubSettings
from hub.store.base import StoreUnusable
from hub.store.compaction import Pages, rewrite_file
from hub.store.guard import examine, guard
from hub.store.place import take_lock
from hub.store.sqlite import STORE_FILE, SqliteStore
from hub.store.upgrade import Upgrade, plan
from hub.upkeep import shelf_of


def plan_upgrade(settings: HubSettings) -> Upgrade:
    """What ``upgrade`` would do, changing nothing; raises StoreUnusable, also while a hub has the store open, and StoreCorrupt
    for a store that a start would refuse.
    """
    path = settings.data_dir / STORE_FILE
    with _alone(settings):
        planned = plan(path)
        examine(path, shelf_of(settings), log_synced=settings.durability == "full")
        return planned


def upgrade(settings: HubSettings) -> Upgrade:
    """Bring the store forward, as the next start of a hub would; what it went through. Raises StoreUnusable."""
    planned = plan_upgrade(settings)

    async def open_once() -> None:
        store = await SqliteStore.open(settings.data_dir / STORE_FILE, durability=settings.durability, shelf=shelf_of(settings))
        await store.close()

    if planned.pending:
        asyncio.run(open_once())
    return planned


def rewrite(settings: HubSettings) -> tuple[Pages, Pages]:
    """Write the file anew, without holes; its pages before and after. Raises StoreUnusable, and StoreCorrupt for one that is not
    whole: what a damaged log still proves would be gone.
    """
    path = settings.data_dir / STORE_FILE
    with _alone(settings):
        plan(path)  # there is one, and it is one of ours
        guard(path, shelf_of(settings), log_synced=settings.durability == "full")
        return rewrite_file(path)


@contextmanager
def _alone(settings: HubSettings) -> Iterator[None]:
    """Hold the store's lock; raises StoreUnusable when a hub does, or when there is no directory of a hub."""
    path = settings.data_dir / STORE_FILE
    if not path.exists():
        raise StoreUnusable(
            f"there is no store in {settings.data_dir}; name the directory in AGENTCOM_DATA_DIR or with --config"
        )
    lock = take_lock(path)
    try:
        yield
    finally:
        os.close(lock)
