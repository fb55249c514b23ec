"""The reserve: really allocated, given up once, made again where there is room, and two marks between which nothing flutters."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from hub.core.errors import StoreFull
from hub.core.rows import EventRow
from hub.ids import Micros, SpaceState
from hub.store import faults, sqlite
from hub.store import reserve as module
from hub.store.base import StoreBroken, StoreUnusable
from hub.store.faults import classify
from hub.store.reserve import MEBIBYTE, Reserve, judge
from hub.store.sqlite import SqliteStore
from hub.store.writer import Group
from tests.unit.hub.store.test_sqlite import opened

NOW = Micros(1)
AMPLE, LOW, FULL = SpaceState.AMPLE, SpaceState.LOW, SpaceState.FULL


@pytest.mark.parametrize(
    ("was", "free", "held", "now"),
    [
        (AMPLE, 1000, 10, AMPLE),
        (AMPLE, 10, 10, AMPLE),
        (AMPLE, 9, 10, LOW),
        (LOW, 19, 10, LOW),
        (LOW, 20, 10, AMPLE),
        (AMPLE, 1000, 9, FULL),
        (FULL, 1000, 0, FULL),
        (FULL, 19, 10, LOW),
        (FULL, 20, 10, AMPLE),
    ],
)
def test_two_marks(was: SpaceState, free: int, held: int, now: SpaceState) -> None:
    assert judge(was, free, held, 10) is now


def test_without_a_reserve_nothing_is_known_before_a_write_fails() -> None:
    assert judge(AMPLE, 0, 0, 0) is AMPLE


class Disk:
    """A disk of which so much is free; what the reserve takes comes out of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, free: int) -> None:
        self.free = free
        self._path = path
        monkeypatch.setattr(module.os, "statvfs", self._statvfs)

    def _statvfs(self, _path: Path) -> Any:
        held = self._path.stat().st_size if self._path.exists() else 0

        class Found:
            f_frsize = 1
            f_bavail = self.free - held

        return Found


def test_it_is_really_allocated_and_its_owners_alone(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "hub.db", MEBIBYTE)
    assert reserve.keep().state is AMPLE
    found = reserve.path.stat()
    assert found.st_blocks * 512 >= found.st_size == MEBIBYTE
    assert stat.S_IMODE(found.st_mode) == 0o600


def test_it_is_given_up_once_and_made_again_only_where_twice_its_size_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Reserve(tmp_path / "hub.db", MEBIBYTE)
    disk = Disk(monkeypatch, reserve.path, free=10 * MEBIBYTE)
    assert reserve.keep().held_bytes == MEBIBYTE
    assert reserve.release()
    assert not reserve.release(), "there is no second one"
    assert (reserve.state, reserve.path.exists()) == (FULL, False)
    disk.free = 2 * MEBIBYTE - 1
    assert (reserve.keep().state, reserve.path.exists()) == (FULL, False)
    disk.free = 2 * MEBIBYTE
    assert (reserve.keep().state, reserve.path.exists()) == (LOW, True), "the reserve comes before people"
    disk.free = 3 * MEBIBYTE
    assert reserve.keep().state is AMPLE


def test_a_reserve_outlives_its_process_and_follows_its_setting(tmp_path: Path) -> None:
    Reserve(tmp_path / "hub.db", 2 * MEBIBYTE).keep()
    again = Reserve(tmp_path / "hub.db", 2 * MEBIBYTE)
    assert again.look().held_bytes == 2 * MEBIBYTE
    assert Reserve(tmp_path / "hub.db", MEBIBYTE).keep().held_bytes == MEBIBYTE == again.path.stat().st_size
    assert Reserve(tmp_path / "hub.db", 0).keep().state is AMPLE
    assert not again.path.exists()


def test_a_file_of_holes_is_no_reserve(tmp_path: Path) -> None:
    path = tmp_path / "hub.db.reserve"
    with path.open("wb") as file:
        file.truncate(MEBIBYTE)
    assert Reserve(tmp_path / "hub.db", MEBIBYTE).look().state is FULL


# ── the store on a full disk ─────────────────────────────────────────────────────────────────────────────────────────────


BIG = Group(events=[EventRow(1, "k" * 100, "ann", data="x" * 4000)] * 200)


async def bound(store: SqliteStore, pages: int) -> None:
    """Let the file grow to so many pages: SQLite says FULL beyond, exactly as on a full disk."""
    await store._writer.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())


async def test_the_same_group_lands_from_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path / "hub.db", reserve_bytes=MEBIBYTE) as store:
        await bound(store, 1)

        async def checkpoint(*, truncate: bool = False) -> None:
            assert truncate
            assert not store.reserve.path.exists()
            await bound(store, 1_000_000)  # what a file system does by itself

        monkeypatch.setattr(store, "checkpoint", checkpoint)
        done = await store.commit(BIG, NOW)
        assert [seq for seq, _ in done.events] == list(range(1, 201)), "once, and with the numbers of the first time"
        assert store.reserve.state is FULL
        assert (await store.commit(Group(events=[EventRow(1, "k", "ann")]), NOW)).events[0][0] == 201


async def test_a_spent_reserve_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    async with opened(tmp_path / "hub.db", reserve_bytes=MEBIBYTE) as store:
        await bound(store, 1)
        with pytest.raises(StoreFull, match="reserve is spent"):
            await store.commit(BIG, NOW)
        await bound(store, 1_000_000)
        assert (await store.commit(BIG, NOW)).events[0][0] == 1


async def test_an_operation_that_finds_the_disk_full_fails_its_group_not_only_itself(tmp_path: Path) -> None:
    """Its fault was taken for its own: the caller heard of SQLite, and the group went on without it."""
    async with opened(tmp_path / "hub.db", reserve_bytes=MEBIBYTE) as store:
        await bound(store, 1)
        with pytest.raises(StoreFull):
            await store.commit(
                Group(operations=[lambda tx: tx.run("blob_insert", sha256="x", size=1, now=1, body=b"x" * 1_000_000)]), NOW
            )


@pytest.mark.parametrize(
    "code",
    [sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_FSYNC],
)
@pytest.mark.parametrize("no_space", [True, False])
def test_a_failed_write_is_a_full_disk_only_where_files_cannot_grow(
    code: int, no_space: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "is_no_space", lambda _directory: no_space)
    fault = sqlite3.OperationalError("disk I/O error")
    fault.sqlite_errorcode = code
    full = no_space and code != sqlite3.SQLITE_IOERR_FSYNC  # what an fsync did not write may be lost for good
    assert isinstance(classify(fault, tmp_path), StoreFull if full else StoreBroken)


def test_whether_files_can_grow_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not module.is_no_space(tmp_path)
    monkeypatch.setattr(module, "_fill", lambda _handle, _size: (_ for _ in ()).throw(OSError(122, "Disk quota exceeded")))
    assert module.is_no_space(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_a_hub_starts_on_a_full_disk_from_its_reserve_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hub.db"
    async with opened(path, reserve_bytes=MEBIBYTE):
        pass
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    prepare = sqlite._prepare

    def cramped(*given: Any) -> None:
        if (tmp_path / "hub.db.reserve").exists():
            raise full
        prepare(*given)

    monkeypatch.setattr(sqlite, "_prepare", cramped)
    async with opened(path, reserve_bytes=MEBIBYTE) as store:
        assert store.last_seq == 0
        assert store.reserve.path.exists(), "and it is made again where there is room"

    monkeypatch.setattr(sqlite, "_prepare", lambda *_given: (_ for _ in ()).throw(full))
    with pytest.raises(StoreUnusable, match="free some space"):
        await SqliteStore.open(path, reserve_bytes=MEBIBYTE)
