"""The first-start part of the composition root: what must be in a new store, and the way back in for whoever lost every token."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from hub.core.errors import HubError
from hub.edge.credentials import ADMIN_FILE, admin_token, first_tokens, open_key
from hub.ids import Micros
from hub.store import projects, tokens
from hub.store.base import Operation
from hub.store.sqlite import STORE_FILE, SqliteStore
from hub.store.writer import Group

DEFAULT_PROJECT = "default"


async def first_start(store: SqliteStore, data_dir: Path, key: bytes, *, local_agents: bool) -> None:
    """Make sure that there is a project and that somebody may come in."""
    if await projects.find(store.reader, DEFAULT_PROJECT) is None:
        await _record(store, projects.create("hub", DEFAULT_PROJECT, projects.ProjectEdit()))
    known = await tokens.every(store.reader)
    for new in first_tokens(data_dir, key, known, now_us(), local_agents=local_agents):
        await _record(store, tokens.issue("hub", new))


async def _record(store: SqliteStore, operation: Operation[Any]) -> None:
    """Run a record operation before there is a conductor."""
    done = await store.commit(Group(operations=[operation]), Micros(now_us()))
    if isinstance(fault := done.outcomes[0], BaseException):
        raise fault


def now_us() -> int:
    """Microseconds UTC."""
    return time.time_ns() // 1000


def recover_admin(data_dir: Path) -> Path:
    """Leave a new administrator's token in the data directory of a hub that is not running; returns its file.

    Whoever may write there may do everything anyway. Raises HubError, for a hub that runs and for a directory without one.
    """

    async def recover() -> None:
        if not (data_dir / STORE_FILE).exists():
            raise HubError(f"there is no hub's data in {data_dir}")
        key = open_key(data_dir)
        store = await SqliteStore.open(data_dir / STORE_FILE)
        try:
            await _record(store, tokens.issue("hub", admin_token(data_dir, key)))
        finally:
            await store.close()

    asyncio.run(recover())
    return data_dir / ADMIN_FILE
