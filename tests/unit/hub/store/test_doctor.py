"""What the store tells about itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hub.store import doctor
from hub.store.sqlite import SqliteStore


async def test_an_open_store_reads_its_settings_back(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "hub.db")
    try:
        found = {one.check: one for one in await doctor.examine_store(store)}
        assert found["pragmas"].state == "ok"
        assert (await store.pragmas())["synchronous"] == ("2", "2")
        await store._writer.run(lambda connection: connection.execute("PRAGMA synchronous=0").fetchall())
        (wrong, *_) = await doctor.examine_store(store)
        assert (wrong.state, wrong.found) == ("fail", "synchronous is 0, not 2")
    finally:
        await store.close()


async def test_whether_a_hub_has_it_open_is_known_and_asking_does_not_take_its_lock(tmp_path: Path) -> None:
    assert not doctor.is_in_use(tmp_path)
    store = await SqliteStore.open(tmp_path / "hub.db")
    try:
        assert doctor.is_in_use(tmp_path)
        assert not doctor.is_in_use(tmp_path.parent)
    finally:
        await store.close()
    assert not doctor.is_in_use(tmp_path)
    await (await SqliteStore.open(tmp_path / "hub.db")).close()


@pytest.mark.parametrize(
    ("version", "words"), [((3, 40, 1), "safe, because"), ((3, 51, 2), "safe, because"), ((3, 51, 3), "SQLite 3.51.3")]
)
def test_old_versions_of_sqlite_are_told_why_they_are_safe(version: tuple[int, ...], words: str) -> None:
    found = doctor.judge_version(version)
    assert found.state == "ok"
    assert words in found.found
    assert ("safe" in found.found) == (version < (3, 51, 3))


@pytest.mark.parametrize(
    ("free", "state"),
    [
        (doctor.FREE_FAIL_BYTES - 1, "fail"),
        (doctor.FREE_FAIL_BYTES, "warn"),
        (doctor.FREE_WARN_BYTES - 1, "warn"),
        (doctor.FREE_WARN_BYTES, "ok"),
    ],
)
def test_room_on_the_disk_is_judged_also_where_nothing_is_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
    found = {one.check: one for one in doctor.examine_files(tmp_path / "not" / "yet")}
    assert found["disk"].state == state
    assert (found["disk"].fix is None) == (state == "ok")
    assert "none yet" in found["store"].found


def test_a_log_that_is_never_folded_back_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "hub.db").touch()
    with (tmp_path / "hub.db-wal").open("wb") as file:
        os.truncate(file.fileno(), doctor.WAL_WARN_BYTES + 1)
    found = {one.check: one for one in doctor.examine_files(tmp_path)}
    assert found["store"].state == "warn"
    assert "128.0 MiB of log" in found["store"].found
