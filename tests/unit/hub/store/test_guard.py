"""A store that is not whole is refused before it is opened, with the way back, and stays as it was, byte for byte."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hub.core.rows import EventRow
from hub.ids import BackupReason, Micros
from hub.store import integrity
from hub.store.backups import Shelf, shelf_beside
from hub.store.guard import guard
from hub.store.integrity import StoreCorrupt, judge
from hub.store.sqlite import SqliteStore
from hub.store.writer import Group
from tests.support import broken_stores
from tests.unit.hub.store.test_journal import NEED, new, state

NOW = Micros(1_800_000_000_000_000)


async def write_tasks(store: SqliteStore, tasks: range) -> None:
    for n in tasks:
        rows = [*([NEED] if n == 1 else []), new(n=n, spec='{"description": "' + "x" * 300 + '"}'), state(n=n)]
        await store.commit(Group(rows=rows, events=[EventRow(NOW, "task.queued", "ann", n, to_state="queued")]), NOW)


async def make(path: Path, *, clean: bool) -> Path:
    """A store with some 100 pages; one that was left with a log when it is not ``clean``."""
    away = path.with_name("made")
    away.mkdir()
    store = await SqliteStore.open(away / "hub.db", durability="normal")
    try:
        await write_tasks(store, range(1, 200))
        await store.checkpoint(truncate=True)
        await write_tasks(store, range(200, 230))
        if not clean:
            for suffix in ("", "-wal"):
                shutil.copy(away / f"hub.db{suffix}", path.with_name(f"hub.db{suffix}"))
    finally:
        await store.close()
    if clean:
        shutil.copy(away / "hub.db", path)
    shutil.rmtree(away)
    return path


@pytest.fixture
async def clean(tmp_path: Path) -> Path:
    return await make(tmp_path / "hub.db", clean=True)


@pytest.fixture
async def cut_off(tmp_path: Path) -> Path:
    return await make(tmp_path / "hub.db", clean=False)


def with_backup(path: Path) -> Shelf:
    shelf = shelf_beside(path)
    shelf.key.write_text("0f" * 32)
    shelf.create(BackupReason.SCHEDULED, NOW)
    path.with_name("hub.db-shm").unlink(missing_ok=True)
    return shelf


def fingerprints(path: Path) -> dict[str, str]:
    files = (path.with_name(f"hub.db{suffix}") for suffix in ("", "-wal"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()}


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("how", ["clean", "cut_off"])
def test_a_whole_store_is_whole(request: pytest.FixtureRequest, how: str, full: bool) -> None:
    path = request.getfixturevalue(how)
    before = fingerprints(path)
    assert judge(path, full=full) == ([], True)
    guard(path, shelf_beside(path))
    assert fingerprints(path) == before


@pytest.mark.parametrize("way", broken_stores.FILE.values(), ids=broken_stores.FILE)
async def test_a_broken_store_is_refused_with_the_way_back_and_not_touched(clean: Path, way: Callable[[Path], None]) -> None:
    shelf = with_backup(clean)
    way(clean)
    before = fingerprints(clean)
    with pytest.raises(StoreCorrupt) as refused:
        await (await SqliteStore.open(clean, shelf=shelf)).close()
    assert refused.value.faults
    assert any(shelf.every()[0].name in note for note in refused.value.notes)
    assert refused.value.cure == f"agentcom backup restore --newest --data-dir {clean.parent}"
    assert fingerprints(clean) == before


@pytest.mark.parametrize("way", broken_stores.LOG.values(), ids=broken_stores.LOG)
async def test_a_log_that_was_damaged_is_not_silently_cut_off(cut_off: Path, way: Callable[[Path], None]) -> None:
    shelf = with_backup(cut_off)
    way(cut_off)
    before = fingerprints(cut_off)
    with pytest.raises(StoreCorrupt, match=r"hub\.db-wal"):
        await (await SqliteStore.open(cut_off, shelf=shelf)).close()
    assert fingerprints(cut_off) == before


@pytest.mark.parametrize("cut_bytes", [1, 100, 4120, 5000, 3 * 4120])
async def test_a_log_whose_end_was_cut_off_by_a_crash_is_whole(cut_off: Path, cut_bytes: int) -> None:
    log = cut_off.with_name("hub.db-wal")
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - cut_bytes)
    assert judge(cut_off, full=True) == ([], True)


@pytest.mark.parametrize("length", [1, 31])
async def test_a_log_that_was_cut_off_in_its_header_is_whole(clean: Path, length: int) -> None:
    clean.with_name("hub.db-wal").write_bytes(b"\x37\x7f\x06\x82" * 8)
    os.truncate(clean.with_name("hub.db-wal"), length)
    guard(clean, shelf_beside(clean))
    await (await SqliteStore.open(clean)).close()


async def test_a_log_whose_last_transaction_is_torn_is_whole(cut_off: Path) -> None:
    """A crash may leave any part of what was not synced, in any order: also a whole commit frame behind a torn one."""
    log = cut_off.with_name("hub.db-wal")
    size = log.stat().st_size
    commits = [at for at in range(32, size, 4120) if log.read_bytes()[at + 4 : at + 8] != bytes(4)]
    torn = commits[-2] + 4120  # the first frame behind the last commit but one
    with log.open("r+b") as file:
        file.seek(torn + 24)
        file.write(b"\x5a" * 100)
    assert judge(cut_off, full=True) == ([], True)


async def test_an_earlier_life_of_the_log_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    store = await SqliteStore.open(path, durability="normal")
    try:
        await write_tasks(store, range(1, 60))
        await store.checkpoint()
        await write_tasks(store, range(60, 62))  # begins the log anew, and leaves the rest of the old one behind it
        copies = [shutil.copy(path.with_name(f"hub.db{suffix}"), tmp_path / f"copy.db{suffix}") for suffix in ("", "-wal")]
    finally:
        await store.close()
    assert judge(Path(copies[0]), full=True) == ([], True)


def test_tasks_that_do_not_agree_with_their_events_are_found(clean: Path) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(clean)) as connection:
        connection.execute("UPDATE task SET state = 'waiting' WHERE n = 7")
        connection.commit()
        connection.execute("PRAGMA journal_mode=DELETE")
    assert judge(clean, full=True) == (["t-7 is waiting, but its last event says queued"], True)
    assert judge(clean, full=False) == ([], True)


def test_the_states_of_a_tasks_change_are_not_the_tasks(clean: Path) -> None:
    """A hub with a change that waited for a person was refused at its next start."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(clean)) as connection:
        last = "(SELECT max(seq) + 1 FROM event), 1, 'change.waiting', 'gatekeeper', 7, 'waiting'"
        connection.execute(f"INSERT INTO event (seq, at, kind, actor, task, to_state) VALUES ({last})")
        connection.commit()
        connection.execute("PRAGMA journal_mode=DELETE")
    assert judge(clean, full=True) == ([], True)


def test_without_a_backup_it_says_so(clean: Path) -> None:
    broken_stores.header_broken(clean)
    with pytest.raises(StoreCorrupt, match="copy the data directory") as refused:
        guard(clean, shelf_beside(clean))
    assert refused.value.notes == (f"there is no backup in {clean.parent / 'backups'}",)


@pytest.mark.parametrize("exists", [True, False])
def test_a_first_start_has_nothing_to_check(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "hub.db"
    if exists:
        path.touch()
    guard(path, shelf_beside(path))


def test_a_check_that_takes_too_long_ends_and_the_hub_starts(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "START_S", -1.0)
    monkeypatch.setattr(integrity, "_PROGRESS_OPS", 10)
    assert integrity.check_at_start(clean)[2] is False
    guard(clean, shelf_beside(clean))


@pytest.mark.parametrize(("full_bytes", "log", "full"), [(1 << 40, False, True), (0, False, False), (0, True, True)])
def test_everything_is_checked_where_that_is_cheap_or_the_end_was_not_clean(
    clean: Path, monkeypatch: pytest.MonkeyPatch, full_bytes: int, log: bool, full: bool
) -> None:
    asked = []

    def judged(_: Path, *, full: bool, over: object, log_synced: bool) -> tuple[list[str], bool]:
        asked.append(full)
        return [], True

    monkeypatch.setattr(integrity, "judge", judged)
    monkeypatch.setattr(integrity, "FULL_BYTES", full_bytes)
    monkeypatch.setattr(integrity, "has_log", lambda _: log)
    integrity.check_at_start(clean)
    assert asked == [full]


def test_without_the_proof_a_broken_log_would_be_taken(cut_off: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself takes the log up to the damage and says that all is well: what is refused here is silent loss."""
    broken_stores.log_broken_early(cut_off)
    monkeypatch.setattr(integrity, "judge_rest", lambda _: None)
    assert judge(cut_off, full=True) == ([], True)


def test_the_shelf_of_the_refusal_is_the_one_that_was_set(clean: Path, tmp_path: Path) -> None:
    shelf = replace(with_backup(clean), dir=tmp_path / "elsewhere")
    broken_stores.header_broken(clean)
    with pytest.raises(StoreCorrupt) as refused:
        guard(clean, shelf)
    assert "elsewhere" in refused.value.notes[0]


async def test_a_first_start_that_was_cut_off_in_its_first_write_begins_again(tmp_path: Path) -> None:
    """What a power cut left: the file has grown, its first page has not arrived, and SQLite's journal says that it was empty before."""
    path = tmp_path / "hub.db"
    path.write_bytes(bytes(4096))
    numbers = (0, 0, 0, 512, 4096)  # records, nonce, pages before, sector, page
    header = bytes.fromhex("d9d505f920a163d7") + b"".join(number.to_bytes(4, "big") for number in numbers)
    path.with_name("hub.db-journal").write_bytes(header.ljust(512, b"\0"))
    guard(path, shelf_beside(path))
    store = await SqliteStore.open(path)
    try:
        assert await store.meta("schema") is None
    finally:
        await store.close()


def test_a_gap_in_a_log_whose_commits_were_not_synced_proves_nothing(cut_off: Path) -> None:
    """With normal durability a power cut may take a commit and leave one behind it: the last moments are gone, the store is whole."""
    broken_stores.log_broken_early(cut_off)
    guard(cut_off, shelf_beside(cut_off), log_synced=False)
    with pytest.raises(StoreCorrupt, match="whole commits behind it"):
        guard(cut_off, shelf_beside(cut_off))
