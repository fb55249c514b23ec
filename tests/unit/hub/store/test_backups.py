"""Backups: whole or not there at all, never of two moments, pruned without losing the last one, and no wider open than the store."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.core.rows import EventRow
from hub.ids import BackupReason, Micros
from hub.store import backups as module
from hub.store import copying, manifest
from hub.store.backups import Shelf, UnknownBackup, expired, look, shelf_beside, verify
from hub.store.copying import BackupFailed, NoRoom
from hub.store.manifest import MANIFEST, ManifestUnusable
from hub.store.sqlite import SqliteStore
from hub.store.writer import Group
from tests.unit.hub.store.test_journal import NEED, new, state

NOON = Micros(1_800_000_000_000_000)
SECOND = 1_000_000
KEY = "0f" * 32


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "hub.db")
    try:
        await opened.begin_epoch()
        await opened.commit(Group(rows=[NEED, new(), state()]), NOON)
        yield opened
    finally:
        await opened.close()


@pytest.fixture
def shelf(store: SqliteStore) -> Shelf:
    key = store.path.with_name("hub.key")
    key.touch(mode=0o600)
    key.write_text(KEY)
    return shelf_beside(store.path)


def of(path: Path, sql: str) -> Any:
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def test_a_backup_is_the_store_and_the_key_with_their_account(shelf: Shelf) -> None:
    made = shelf.create(BackupReason.ASKED, NOON)
    known = made.manifest
    assert known is not None
    assert made.name == "20270115T080000Z"
    assert (known.reason, known.created_at, known.verified_at) == (BackupReason.ASKED, NOON, NOON)
    assert (known.n, known.tasks, known.hub_epoch) == (1, {"queued": 1}, 1)
    assert of(made.store, "SELECT n, state FROM task") == [(1, "queued")]
    assert (made.path / "hub.key").read_text() == KEY
    assert known.bytes == made.store.stat().st_size
    assert known.sha256 == {name: manifest.digest(made.path / name) for name in ("hub.db", "hub.key")}
    assert sorted(path.name for path in made.path.iterdir()) == ["hub.db", "hub.key", MANIFEST]
    assert verify(made) == []


def test_nobody_else_can_read_it(shelf: Shelf) -> None:
    os.umask(before := os.umask(0))
    os.umask(0)
    try:
        made = shelf.create(BackupReason.ASKED, NOON)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (shelf.dir, made.path)] == [0o700, 0o700]
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.path.iterdir()} == dict.fromkeys(
        ["hub.db", "hub.key", MANIFEST], 0o600
    )


async def test_it_is_of_one_moment_however_much_is_written_meanwhile(
    shelf: Shelf, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "STEP_PAGES", 5)
    written = 1

    def write_between_the_steps() -> bool:
        nonlocal written
        written += 1
        with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
            other.execute("INSERT INTO meta VALUES (?, ?)", (f"during-{written}", "x" * 3000))
        return False

    made = shelf.create(BackupReason.ASKED, NOON, over=write_between_the_steps)
    assert written > 5
    assert of(made.store, "SELECT count(*) FROM meta WHERE key LIKE 'during-%'") == [(0,)]
    assert verify(made) == []


def fails_to_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying.integrity, "judge", lambda *_, **__: (["page 7 is broken"], True))


def has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "ROOM_BYTES", 1 << 62)


def fills_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)


def cannot_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "rename", refused)


def has_a_log_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "WAL_BYTES", -1)


@pytest.mark.parametrize(
    ("breaks", "kind", "says"),
    [
        (fails_to_verify, BackupFailed, "page 7 is broken"),
        (has_no_room, NoRoom, "free some space"),
        (fills_the_disk, BackupFailed, "No space left"),
        (cannot_be_named, BackupFailed, "Input/output error"),
        (has_a_log_without_end, BackupFailed, "grew beyond"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_one_that_cannot_be_finished_leaves_nothing_behind(
    shelf: Shelf,
    monkeypatch: pytest.MonkeyPatch,
    breaks: Callable[[pytest.MonkeyPatch], None],
    kind: type[Exception],
    says: str,
) -> None:
    kept = shelf.create(BackupReason.ASKED, Micros(NOON - SECOND))
    with monkeypatch.context() as patched:
        breaks(patched)
        with pytest.raises(kind, match=says):
            shelf.create(BackupReason.ASKED, NOON)
    assert [path.name for path in shelf.dir.iterdir()] == [kept.name]


def test_one_that_is_given_up_leaves_nothing_behind(shelf: Shelf) -> None:
    with pytest.raises(BackupFailed, match="stopping"):
        shelf.create(BackupReason.ASKED, NOON, over=lambda: True)
    assert list(shelf.dir.iterdir()) == []


def test_what_a_crash_left_of_one_is_cleared_away_and_nothing_else(shelf: Shelf) -> None:
    partial = shelf.dir / ".partial-20270115T075900Z"
    partial.mkdir(parents=True)
    (partial / "hub.db").write_bytes(b"half")
    (shelf.dir / ".partial-of-somebody").mkdir()
    assert shelf.every() == []
    shelf.create(BackupReason.ASKED, NOON)
    assert sorted(path.name for path in shelf.dir.iterdir()) == [".partial-of-somebody", "20270115T080000Z"]


def test_two_in_one_second_are_two(shelf: Shelf) -> None:
    first, second = (shelf.create(BackupReason.ASKED, NOON) for _ in range(2))
    assert (first.name, second.name) == ("20270115T080000Z", "20270115T080000Z-2")
    assert [backup.name for backup in shelf.every()] == [second.name, first.name]


# ── pruning ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_oldest_go(shelf: Shelf) -> None:
    few = replace(shelf, keep=2)
    made = [few.create(BackupReason.SCHEDULED, Micros(NOON + i * SECOND)).name for i in range(4)]
    assert [backup.name for backup in few.every()] == [made[3], made[2]]


@pytest.mark.parametrize(
    ("reasons", "keep", "gone"),
    [
        ("sss", 1, [1, 2]),
        ("s", 1, []),
        ("sms", 1, [2]),
        ("smms", 1, [2, 3]),
        ("mss", 2, [2]),
        ("", 1, []),
        ("ss", 0, [1]),
    ],
)
def test_what_goes(reasons: str, keep: int, gone: list[int]) -> None:
    words = {"s": BackupReason.SCHEDULED, "m": BackupReason.MIGRATION}
    assert expired([(str(i), words[letter]) for i, letter in enumerate(reasons)], keep) == [str(i) for i in gone]


async def test_a_clock_that_was_ahead_neither_hides_nor_removes_what_is_newer(store: SqliteStore, shelf: Shelf) -> None:
    few = replace(shelf, keep=2)
    ahead = [few.create(BackupReason.SCHEDULED, Micros(NOON + 10_000 * SECOND + i * SECOND)).name for i in range(2)]
    await store.commit(Group(events=[EventRow(NOON, "backup.made", "hub")]), NOON)
    made = few.create(BackupReason.SCHEDULED, NOON)
    newest = few.newest()
    assert newest is not None
    assert newest.name == made.name
    assert sorted(path.name for path in few.dir.iterdir()) == sorted([made.name, ahead[1]])


def test_what_was_not_made_here_stays(shelf: Shelf) -> None:
    few = replace(shelf, keep=1)
    foreign = few.create(BackupReason.SCHEDULED, NOON)
    assert foreign.manifest is not None
    manifest.write(foreign.path, replace(foreign.manifest, hub_id="another"))
    broken = few.create(BackupReason.SCHEDULED, Micros(NOON + SECOND))
    (broken.path / MANIFEST).unlink()
    (few.dir / "notes").mkdir()
    newest = [few.create(BackupReason.SCHEDULED, Micros(NOON + i * SECOND)).name for i in (2, 3)][-1]
    assert sorted(path.name for path in few.dir.iterdir()) == sorted([foreign.name, broken.name, "notes", newest])


# ── judging ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def test_a_changed_byte_is_found(shelf: Shelf) -> None:
    made = shelf.create(BackupReason.ASKED, NOON)
    flip(made.store, 5000)
    assert "digest" in verify(made)[0]


def test_a_changed_key_is_found(shelf: Shelf) -> None:
    made = shelf.create(BackupReason.ASKED, NOON)
    flip(made.path / "hub.key", 3)
    assert verify(made) == ["hub.key is not the file that was written: its digest is another"]


def test_a_backup_that_lost_a_file_is_found(shelf: Shelf) -> None:
    made = shelf.create(BackupReason.ASKED, NOON)
    made.store.unlink()
    assert verify(made) == ["hub.db cannot be read: No such file or directory"]


def test_one_whose_pages_do_not_agree_is_found_though_its_digest_does(shelf: Shelf) -> None:
    made = shelf.create(BackupReason.ASKED, NOON)
    assert made.manifest is not None
    with closing(sqlite3.connect(made.store)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("UPDATE task SET requirement_id = 99")
        connection.commit()
    digests = dict(made.manifest.sha256) | {"hub.db": manifest.digest(made.store)}
    assert verify(replace(made, manifest=replace(made.manifest, sha256=digests))) == [
        "a row of task points to one of requirement that is not there"
    ]


def test_one_of_a_newer_version_is_not_taken_for_ours(shelf: Shelf) -> None:
    made = shelf.create(BackupReason.ASKED, NOON)
    assert made.manifest is not None
    assert "newer version" in verify(replace(made, manifest=replace(made.manifest, schema=9000)))[0]


def test_verifying_is_remembered(shelf: Shelf) -> None:
    made = shelf.create(BackupReason.ASKED, NOON)
    again = shelf.verify(made, Micros(NOON + SECOND))
    assert again.manifest is not None
    assert again.manifest.verified_at == NOON + SECOND
    assert shelf.every() == [again]
    flip(made.store, 5000)
    worse = shelf.verify(again, Micros(NOON + 2 * SECOND))
    assert worse.fault is not None
    assert shelf.every() == [again], "a backup that is not whole is not called verified"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: None, "has no"),
        (lambda _: "{", "JSONDecodeError"),
        (lambda _: "[]", "TypeError"),
        (lambda known: known.pop("sha256") and json.dumps(known), "sha256"),
        (lambda known: json.dumps(known | {"n": "many"}), "another kind"),
        (lambda known: json.dumps(known | {"created_at": "yesterday"}), "ValueError"),
        (lambda known: json.dumps(known | {"reason": "boredom"}), "boredom"),
        (lambda known: json.dumps(known | {"sha256": known["sha256"] | {"../../etc/passwd": "0"}}), "none of a backup"),
        (lambda known: json.dumps(known | {"sha256": {}}), "hub.db"),
    ],
)
def test_without_a_good_account_it_is_no_backup(shelf: Shelf, change: Callable[[Any], str | None], says: str) -> None:
    made = shelf.create(BackupReason.ASKED, NOON)
    changed = change(json.loads((made.path / MANIFEST).read_text()))
    (made.path / MANIFEST).unlink()
    if changed is not None:
        (made.path / MANIFEST).write_text(changed)
    with pytest.raises(ManifestUnusable, match=says):
        manifest.read(made.path)
    assert shelf.newest() is None
    assert look(made.path).fault is not None


@pytest.mark.parametrize("name", ["", "..", "../hub", "20270115T080000Z/..", "20280115T080000Z"])
def test_an_unknown_one_is_not_found(shelf: Shelf, name: str) -> None:
    with pytest.raises(UnknownBackup):
        shelf.find(name)


async def test_a_migration_is_preceded_by_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hub.db"
    with monkeypatch.context() as older:
        known = module.newest_schema.__globals__["schema_files"]()
        older.setattr("hub.store.migrations.schema_files", lambda: known[:1])
        older.setattr("hub.store.sqlite.check_schema_plain", lambda _: None)
        opened = await SqliteStore.open(path)
        await opened.begin_epoch()
        await opened.close()
        assert shelf_beside(path).every() == [], "a new store is no migration"
    await (await SqliteStore.open(path)).close()
    (made,) = shelf_beside(path).every()
    assert made.manifest is not None
    assert (made.manifest.reason, made.manifest.schema, made.manifest.hub_epoch) == (BackupReason.MIGRATION, 1, 1)
    assert of(made.store, "PRAGMA user_version") == [(1,)]
    await (await SqliteStore.open(path)).close()
    assert len(shelf_beside(path).every()) == 1
