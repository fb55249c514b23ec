"""Going back to a backup: a new store is made beside the present one, and takes its place in steps that any crash leaves resumable.

Until the plan is written nothing has changed; from then on whoever opens the store, or restores again, finishes it. What was there is
kept aside, never deleted. In the new store every counter is far ahead of where the backup left it, so that no number the lost hub may
have used since is ever used again; leases stay with whom they were, and what their agents say when they come back decides.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from hub.ids import RESTORE_JUMP, Micros
from hub.store import integrity
from hub.store.backups import Backup, verify
from hub.store.base import StoreUnusable
from hub.store.files import sync_directory
from hub.store.manifest import KEY, Manifest, moment
from hub.store.migrations import migrate
from hub.store.place import take_lock
from hub.store.recovery import RESTORED
from hub.store.rescue import Rescued, rescue, when, write_account
from hub.store.sql import as_dict, statements

PLAN, FRESH = ".restore", ".restoring"
"""Beside the store: what is to be done, and what is to take its place."""
USED = ".bases"
"""Beside the store: how far restores have set the counters."""
COUNTERS = ("n", "lease_epoch", "session_epoch", "change", "cid")
"""Those whose bases are rows; the others are in the rows they count."""

Account = dict[str, Any]
"""What a restore did, flat and ready for JSON; moments are RFC 3339."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The names around one store."""

    store: Path

    @property
    def plan(self) -> Path:
        return self.store.with_name(self.store.name + PLAN)

    @property
    def fresh(self) -> Path:
        return self.store.with_name(self.store.name + FRESH)

    @property
    def used(self) -> Path:
        return self.store.with_name(self.store.name + USED)

    @property
    def key(self) -> Path:
        return self.store.with_name(KEY)

    @property
    def fresh_key(self) -> Path:
        return self.store.with_name(KEY + FRESH)


def restore(store: Path, backup: Backup, now: Micros) -> Account:
    """Put a backup in the place of a store that no hub has open; raises StoreUnusable, with the store as it was.

    If an earlier restore was cut off, that one is finished instead, and its account is returned.
    """
    place = _Place(store)
    with _locked(store):
        if (done := finish(store)) is not None:
            return done
        if backup.manifest is None or (faults := verify(backup)):
            why = backup.fault if backup.manifest is None else "; ".join(faults)
            raise StoreUnusable(f"{backup.path} is not whole: {why}; choose another: agentcom backup list")
        found = rescue(store, backup.manifest)
        account = _account(place, backup, backup.manifest, found, now)
        _make_fresh(place, backup, account, found, now)
        if account["lost_file"] is not None:
            write_account(Path(account["lost_file"]), found)
        _write(place.used, json.dumps(account["bases"]).encode())
        _write(place.plan, json.dumps(account).encode())
        sync_directory(store.parent)
        return finish(store) or account


def finish(store: Path) -> Account | None:
    """Carry out a plan that is there; what it did, or None. Every step may be repeated."""
    place = _Place(store)
    if not place.plan.exists():
        return None
    account: Account = json.loads(place.plan.read_bytes())
    if place.fresh.exists():
        for suffix in ("-wal", "-shm"):  # first: they must never meet the new file
            _move_aside(store.with_name(store.name + suffix), account, suffix)
        sync_directory(store.parent)
        _link_aside(store, account)
        place.fresh.replace(store)
        sync_directory(store.parent)
    if place.fresh_key.exists():
        _link_aside(place.key, account, KEY)
        place.fresh_key.replace(place.key)
        sync_directory(store.parent)
    place.plan.unlink()
    sync_directory(store.parent)
    return account


def _move_aside(path: Path, account: Account, suffix: str) -> None:
    if path.exists():
        path.replace(path.with_name(account["kept_name"] + suffix))


def _link_aside(path: Path, account: Account, name: str | None = None) -> None:
    """A second name for what is about to be replaced: the first one never stands empty."""
    kept = path.with_name(account["kept_name"] if name is None else f"{name}.kept-{account['stamp']}")
    if path.exists() and not kept.exists():
        os.link(path, kept)


def _account(place: _Place, backup: Backup, known: Manifest, found: Rescued, now: Micros) -> Account:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now // 1_000_000))
    kept_name = f"{place.store.name}.kept-{stamp}"
    last = found.last_event
    return {
        "backup": backup.name,
        "made_at": moment(known.created_at),
        "restored_at": moment(now),
        "stamp": stamp,
        "kept_name": kept_name,
        "kept": str(place.store.with_name(kept_name)) if place.store.exists() else None,
        "tasks": dict(known.tasks),
        "last_task": known.n,
        "last_event": known.seq,
        "old_readable": found.readable,
        "old_gaps": found.gaps,
        "lost_events": len(found.events),
        "lost_until": when(last["at"]) if last is not None else None,
        "lost_until_event": last["seq"] if last is not None else None,
        "lost_tasks": [
            {"task": row["n"], "title": row["title"], "by": row["created_by"], "state": row["state"]} for row in found.tasks
        ],
        "lost_file": str(place.store.with_name(f"lost-{stamp}.jsonl")) if found.tasks or found.events else None,
        "key_replaced": False,
    }


def _make_fresh(place: _Place, backup: Backup, account: Account, found: Rescued, now: Micros) -> None:
    """The new store and, if that is another one, the key: complete, checked and synced, but not yet in their place."""
    for stale in (place.fresh, place.fresh.with_name(place.fresh.name + "-journal"), place.fresh_key):
        stale.unlink(missing_ok=True)
    shutil.copyfile(backup.store, place.fresh)
    place.fresh.chmod(0o600)
    with closing(sqlite3.connect(place.fresh, isolation_level=None)) as connection:
        connection.row_factory = as_dict
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA synchronous=FULL")
        migrate(connection, place.fresh, lambda _: None)
        connection.execute("BEGIN IMMEDIATE")
        try:
            account |= set_ahead(connection, backup.name, now, used=_used(place, found), ended_tokens=found.ended_tokens)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    if faults := integrity.judge(place.fresh, full=True)[0]:
        raise StoreUnusable(f"what was made of {backup.path} is not whole: {'; '.join(faults)}; nothing was changed")
    key = backup.path / KEY
    if key.exists() and (not place.key.exists() or key.read_bytes() != place.key.read_bytes()):
        _write(place.fresh_key, key.read_bytes())
        account["key_replaced"] = place.key.exists()
    sync_directory(place.store.parent)


def set_ahead(
    connection: sqlite3.Connection,
    backup: str,
    now: Micros,
    *,
    used: Mapping[str, int] | None = None,
    ended_tokens: Sequence[dict[str, Any]] = (),
) -> Account:
    """Set every counter ahead, and end what the lost hub had ended; within a transaction, with rows as dictionaries. What was done.

    ``used`` is how far earlier restores have set them: the same backup may be restored more than once.
    """
    known = statements()

    def ahead(counter: str, *numbers: int) -> int:
        return max(*numbers, (used or {}).get(counter, 0)) + RESTORE_JUMP

    highest = connection.execute(known["restore_highest"]).fetchone()
    before = {row["counter"]: row["value"] for row in connection.execute(known["bases"])}
    bases = {name: ahead(name, highest[name], before.get(name, 0)) for name in COUNTERS}
    for counter, value in bases.items():
        connection.execute(known["restore_base"], {"counter": counter, "value": value})
    connection.execute(known["restore_sessions"], {"base": bases["session_epoch"]})
    epoch = connection.execute(known["meta_get"], {"key": "hub_epoch"}).fetchone()
    bases["hub_epoch"] = ahead("hub_epoch", int(epoch["value"] if epoch is not None else 0))
    bases["seq"] = ahead("seq", connection.execute(known["event_last_seq"]).fetchone()["seq"])
    data = orjson.dumps({"backup": backup}).decode()
    connection.execute(known["restore_event"], {"seq": bases["seq"], "now": now, "actor": "hub", "data": data})
    ended = [token for token in ended_tokens if connection.execute(known["restore_end_token"], _end_of(token)).rowcount]
    live = connection.execute(known["restore_live_tokens"], {"now": now}).fetchall()
    meta = {
        "hub_epoch": str(bases["hub_epoch"]),
        "feed_epoch": secrets.token_hex(6),
        RESTORED: orjson.dumps({"at": now, "backup": backup, "seq": bases["seq"]}).decode(),
    }
    for key, text in meta.items():
        connection.execute(known["meta_set"], {"key": key, "value": text})
    return {
        "bases": bases,
        "held": connection.execute(known["restore_held"]).fetchone()["tasks"],
        "ended_tokens": [{"id": token["id"], "name": token["name"]} for token in ended],
        "live_tokens": [{"id": token["id"], "name": token["name"], "scopes": json.loads(token["scopes"])} for token in live],
    }


def _used(place: _Place, found: Rescued) -> dict[str, int]:
    """The highest numbers that are known of from anywhere but the backup."""
    told: dict[str, int] = json.loads(place.used.read_bytes()) if place.used.exists() else {}
    return {counter: max(told.get(counter, 0), found.used.get(counter, 0)) for counter in (*told, *found.used)}


def _end_of(token: dict[str, Any]) -> dict[str, Any]:
    return {name: token[name] for name in ("id", "ends_at", "revoked_by")}


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    store.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = take_lock(store)
    try:
        yield
    finally:
        os.close(lock)


def _write(path: Path, content: bytes) -> None:
    """A file that is whole or not there."""
    half = path.with_name(f".{path.name}")
    handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
