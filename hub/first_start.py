"""The first-start part of the composition root: what must be in a new store, and the way back in for whoever lost every token."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from hub.core.errors import HubError
from hub.edge.credentials import ADMIN_FILE, KeyLost, admin_token, first_tokens, mark_of, new_key, open_key
from hub.ids import Micros
from hub.store import projects, tokens
from hub.store.base import Operation
from hub.store.sqlite import STORE_FILE, SqliteStore
from hub.store.writer import Group

DEFAULT_PROJECT = "default"


KEY_MARK = "key_mark"


async def first_start(store: SqliteStore, data_dir: Path, *, local_agents: bool) -> bytes:
    """Make sure that there is a project and that somebody may come in; returns the hub's key. Raises KeyLost, InsecureFile."""
    key = open_key(data_dir, await store.meta(KEY_MARK))
    await _remember(store, key)
    if await projects.find(store.reader, DEFAULT_PROJECT) is None:
        await _record(store, projects.create("hub", DEFAULT_PROJECT, projects.ProjectEdit()))
    known = await tokens.every(store.reader)
    for new in first_tokens(data_dir, key, known, now_us(), local_agents=local_agents):
        await _record(store, tokens.issue("hub", new, bounded=False))
    return key


async def _remember(store: SqliteStore, key: bytes) -> None:
    await _record(store, lambda tx: tx.run("meta_set", key=KEY_MARK, value=mark_of(key)))


async def _record(store: SqliteStore, operation: Operation[Any]) -> None:
    """Run a record operation before there is a conductor."""
    done = await store.commit(Group(operations=[operation]), now_us())
    if isinstance(fault := done.outcomes[0], BaseException):
        raise fault


def now_us() -> Micros:
    """Microseconds UTC."""
    return Micros(time.time_ns() // 1000)


def recover_admin(data_dir: Path) -> Path:
    """Leave a new administrator's token in the data directory of a hub that is not running; returns its file.

    If the hub's key is lost, or another, there is a new one, and every token that was made with the old ends. Whoever may write
    there may do everything anyway. Raises HubError, for a hub that runs and for a directory without one.
    """

    async def recover() -> None:
        if not (data_dir / STORE_FILE).exists():
            raise HubError(f"there is no hub's data in {data_dir}")
        store = await SqliteStore.open(data_dir / STORE_FILE)
        try:
            key = await _key_of(store, data_dir)
            await _record(store, tokens.issue("hub", admin_token(data_dir, key), bounded=False))
        finally:
            await store.close()

    asyncio.run(recover())
    return data_dir / ADMIN_FILE


async def _key_of(store: SqliteStore, data_dir: Path) -> bytes:
    """The key of a store, or a new one if that is lost: then nobody comes in with what was made with it, so that ends."""
    try:
        return open_key(data_dir, await store.meta(KEY_MARK))
    except KeyLost:
        key = new_key(data_dir)
    await _record(store, tokens.revoke_all("hub"))
    await _remember(store, key)
    return key
