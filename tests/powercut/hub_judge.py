"""What a power cut leaves of a hub's data directory, opened by the hub's own code: whole, consistent, and every promise kept."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hub.core.errors import HubError
from hub.core.lease import Terms
from hub.core.scheduler import Scheduler
from hub.edge.auth import Authenticator
from hub.first_start import first_start, now_us
from hub.ids import Micros
from hub.store import tokens
from hub.store.backups import BACKUPS_DIR, look, verify
from hub.store.recovery import load_snapshot
from hub.store.sqlite import STORE_FILE, Durability, SqliteStore
from hub.store.writer import Group
from tests.powercut.tape import Op, Step
from tests.support.clock import Clock

DATA = "hub"
"""The data directory beneath the root of a recording."""
_UNTOLD = """
SELECT n, state, told FROM (
  SELECT n, state, (
    SELECT to_state FROM event WHERE task = n AND kind NOT LIKE 'change%' AND to_state IS NOT NULL ORDER BY seq DESC LIMIT 1
  ) AS told FROM task
) WHERE told IS NULL OR told <> state
"""
"""Tasks whose state is not the one that their events lead to."""


def judge_hub(root: Path, told: Sequence[Step], durability: Durability = "full") -> list[str]:
    """What is wrong with what is left beneath ``root``: broken things, and promises that are not kept."""
    data_dir = root / DATA
    promises = [step for step in told if step.op is Op.MARK]
    known = (data_dir / STORE_FILE).exists()
    if not known and promises:
        return [f"no store, yet: {step.promise['said']}" for step in promises]
    try:
        auth = asyncio.run(_start(data_dir, durability))
    except (HubError, sqlite3.Error) as fault:
        return [f"the hub does not start: {fault}"]
    shelf = data_dir / BACKUPS_DIR
    with closing(sqlite3.connect(data_dir / STORE_FILE)) as store:
        return [*_consistent(store), *_broken(store, auth, shelf, promises), *_half(shelf)]


async def _start(data_dir: Path, durability: Durability) -> Authenticator:
    """What a hub does before it opens its door, and its first commit."""
    store = await SqliteStore.open(data_dir / STORE_FILE, durability=durability, readers=1)
    try:
        key = await first_start(store, data_dir, local_agents=True)
        _, _, hub_epoch = await store.begin_epoch()
        _, opening = Scheduler.open(await load_snapshot(store.reader), Terms(), Clock().stamp(), hub_epoch=hub_epoch)
        await store.commit(Group(rows=list(opening.rows), events=list(opening.events)), Micros(now_us()))
        return Authenticator(key, await tokens.every(store.reader), now_us)
    finally:
        await store.close()


def _consistent(store: sqlite3.Connection) -> list[str]:
    faults = [f"integrity: {word}" for (word,) in store.execute("PRAGMA integrity_check") if word != "ok"]
    faults += [f"foreign key: {row}" for row in store.execute("PRAGMA foreign_key_check")]
    count, newest = store.execute("SELECT count(*), coalesce(max(seq), 0) FROM event").fetchone()
    if count != newest:
        faults.append(f"{count} events, the newest is number {newest}")
    return faults + [f"t-{n} is {state}, its newest event says {told}" for n, state, told in store.execute(_UNTOLD)]


def _broken(store: sqlite3.Connection, auth: Authenticator, shelf: Path, promises: Sequence[Step]) -> list[str]:
    ending = {step.promise.get("ends") for step in promises}
    faults = []
    for step in promises:
        promise = step.promise
        match promise:
            case {"row": found, "args": args}:
                kept = store.execute(f"SELECT 1 FROM {found}", args).fetchone() is not None
            case {"opens": text}:
                kept = text in ending or _opens(auth, text)
            case {"closed": text}:
                kept = not _opens(auth, text)
            case {"backup": name}:
                kept = verify(look(shelf / name)) == []
            case _:
                kept = True
        if not kept:
            faults.append(promise["said"])
    return faults


def _half(shelf: Path) -> list[str]:
    """Whatever says of itself that it is a backup is one."""
    said = [found for found in map(look, shelf.glob("[0-9]*")) if found.manifest is not None]
    return [f"backup {backup.name}: {fault}" for backup in said for fault in verify(backup)]


def _opens(auth: Authenticator, text: Any) -> bool:
    try:
        auth.authenticate(f"Bearer {text}")
    except HubError:
        return False
    return True
