"""Going back to a backup: what is there is kept, a crash at any step leaves the old or the new, and what was ended stays ended."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from hub.ids import RESTORE_JUMP, BackupReason, Micros
from hub.store import restore as module
from hub.store.backups import Backup, Shelf, shelf_beside
from hub.store.base import StoreUnusable
from hub.store.guard import examine, guard
from hub.store.integrity import StoreCorrupt, judge
from hub.store.recovery import RESTORED
from hub.store.restore import finish, restore
from hub.store.sqlite import SqliteStore
from hub.store.tokens import NewToken, issue, revoke
from hub.store.writer import Group
from tests.support import broken_stores
from tests.unit.hub.store.test_guard import fingerprints, write_tasks

NOW = Micros(1_800_000_000_000_000)
LATER = Micros(NOW + 3_600_000_000)


class Lost:
    """A hub's directory with a backup, work that is newer than it, and a log that was not folded back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shelf: Shelf = shelf_beside(path)

    async def live(self) -> None:
        self.shelf.key.write_text("0f" * 32)
        store = await SqliteStore.open(self.path, durability="normal")
        try:
            await store.begin_epoch()
            tokens = [NewToken(id=f"0000000{i}", digest="d", name=f"t{i}", scopes=("observer",)) for i in range(3)]
            await store.commit(Group(operations=[issue("ann", token) for token in tokens]), NOW)
            await write_tasks(store, range(1, 60))
            self.backup: Backup = self.shelf.create(BackupReason.SCHEDULED, NOW)
            await write_tasks(store, range(60, 65))
            await store.commit(Group(operations=[revoke("ann", "00000001")]), LATER)
            await store.checkpoint(truncate=True)
        finally:
            await store.close()

    def read(self, sql: str, path: Path | None = None) -> list[Any]:
        with closing(sqlite3.connect(f"file:{path or self.path}?mode=ro&immutable=1", uri=True)) as connection:
            return connection.execute(sql).fetchall()

    def meta(self, key: str) -> str:
        return str(self.read(f"SELECT value FROM meta WHERE key = '{key}'")[0][0])


@pytest.fixture
async def lost(tmp_path: Path) -> Lost:
    made = Lost(tmp_path / "hub.db")
    await made.live()
    return made


def test_the_backup_is_back_and_what_was_there_is_kept(lost: Lost) -> None:
    before = lost.path.read_bytes()
    done = restore(lost.path, lost.backup, LATER)
    assert lost.read("SELECT max(n), count(*) FROM task") == [(59, 59)]
    assert Path(done["kept"]).read_bytes() == before
    assert stat.S_IMODE(lost.path.stat().st_mode) == 0o600
    assert judge(lost.path, full=True) == ([], True)
    assert sorted(path.name for path in lost.path.parent.iterdir()) == sorted(
        ["backups", "hub.db", "hub.db.bases", "hub.db.lock", "hub.key", Path(done["kept"]).name, Path(done["lost_file"]).name]
    )


def test_every_counter_is_far_ahead(lost: Lost) -> None:
    feed_epoch = lost.meta("feed_epoch")
    done = restore(lost.path, lost.backup, LATER)
    bases = dict(lost.read("SELECT counter, value FROM base"))
    assert bases == {
        "n": 59 + RESTORE_JUMP,
        "lease_epoch": RESTORE_JUMP,
        "session_epoch": RESTORE_JUMP,
        "change": RESTORE_JUMP,
        "cid": RESTORE_JUMP,
    }
    assert done["bases"].items() > bases.items()
    assert lost.meta("hub_epoch") == str(1 + RESTORE_JUMP)
    assert lost.meta("feed_epoch") != feed_epoch
    assert done["lost_until_event"] is not None
    assert lost.read("SELECT seq, kind FROM event ORDER BY seq DESC LIMIT 1") == [
        (done["lost_until_event"] + RESTORE_JUMP, "hub.restored")
    ]
    assert json.loads(lost.meta(RESTORED))["at"] == LATER


def test_a_second_restore_goes_further(lost: Lost) -> None:
    first = restore(lost.path, lost.backup, LATER)
    again = lost.shelf.create(BackupReason.ASKED, Micros(LATER + 2_000_000))
    second = restore(lost.path, again, Micros(LATER + 4_000_000))
    assert all(second["bases"][name] == value + RESTORE_JUMP for name, value in first["bases"].items())


def test_the_same_backup_twice_gives_other_numbers(lost: Lost) -> None:
    first = restore(lost.path, lost.backup, LATER)
    broken_stores.emptied(lost.path)
    second = restore(lost.path, lost.backup, Micros(LATER + 4_000_000))
    assert all(second["bases"][name] == value + RESTORE_JUMP for name, value in first["bases"].items())


def test_what_is_lost_is_told_and_written_down(lost: Lost) -> None:
    done = restore(lost.path, lost.backup, LATER)
    assert [task["task"] for task in done["lost_tasks"]] == [60, 61, 62, 63, 64]
    assert (done["lost_events"], done["old_readable"], done["old_gaps"]) == (6, True, 0)
    lines = [json.loads(line) for line in Path(done["lost_file"]).read_text().splitlines()]
    assert [line["task"]["n"] for line in lines if "task" in line] == [60, 61, 62, 63, 64]
    assert lines[0]["task"]["spec"].startswith('{"description"')
    assert stat.S_IMODE(Path(done["lost_file"]).stat().st_mode) == 0o600


def test_a_token_that_was_revoked_after_the_backup_stays_revoked(lost: Lost) -> None:
    done = restore(lost.path, lost.backup, LATER)
    assert done["ended_tokens"] == [{"id": "00000001", "name": "t1"}]
    assert [token["id"] for token in done["live_tokens"]] == ["00000000", "00000002"]
    assert lost.read("SELECT revoked_by FROM token WHERE id = '00000001'") == [("ann",)]


def spoil(path: Path, table: str) -> None:
    """Overwrite the first page of a table, behind which all of its rows are."""
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)


def test_a_token_whose_row_is_broken_stays_revoked_by_what_the_events_say(lost: Lost) -> None:
    with closing(sqlite3.connect(lost.path)) as connection, connection:
        data = json.dumps({"token": "00000001", "name": "t1", "scopes": []})
        connection.execute(
            "INSERT INTO event (seq, at, kind, actor, data) SELECT max(seq) + 1, max(at), 'token.revoked', 'ann', ? FROM event",
            (data,),
        )
    with closing(sqlite3.connect(lost.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spoil(lost.path, "token")
    done = restore(lost.path, lost.backup, LATER)
    assert done["ended_tokens"] == [{"id": "00000001", "name": "t1"}]
    assert lost.read("SELECT revoked_by FROM token WHERE id = '00000001'") == [("ann",)]


@pytest.mark.parametrize("table", ["event", "task", "base"])
def test_a_token_stays_revoked_whatever_else_is_broken(lost: Lost, table: str) -> None:
    spoil(lost.path, table)
    done = restore(lost.path, lost.backup, LATER)
    assert done["old_gaps"]
    assert done["ended_tokens"] == [{"id": "00000001", "name": "t1"}]


def test_a_row_that_is_nonsense_does_not_end_a_restore(lost: Lost) -> None:
    with closing(sqlite3.connect(lost.path)) as connection, connection:
        connection.execute("UPDATE event SET at = ? WHERE seq = (SELECT max(seq) FROM event)", (2**62,))
        connection.execute("UPDATE task SET created_at = ?, spec = CAST(x'ff' AS TEXT) WHERE n = 64", (2**62,))
    done = restore(lost.path, lost.backup, LATER)
    assert done["lost_until"] is None
    lines = [json.loads(line) for line in Path(done["lost_file"]).read_text().splitlines()]
    assert [line["event"]["at"] for line in lines if "event" in line][-1] is None


@pytest.mark.parametrize("way", broken_stores.FILE.values(), ids=broken_stores.FILE)
def test_a_store_broken_in_any_way_is_kept_and_replaced(lost: Lost, way: Callable[[Path], None]) -> None:
    way(lost.path)
    before = lost.path.read_bytes() if lost.path.exists() else None
    done = restore(lost.path, lost.backup, LATER)
    assert lost.read("SELECT count(*) FROM task") == [(59,)]
    assert judge(lost.path, full=True) == ([], True)
    assert (Path(done["kept"]).read_bytes() if done["kept"] else None) == before


def test_what_is_left_of_a_broken_store_is_read_around_the_damage(lost: Lost) -> None:
    size = lost.path.stat().st_size
    with lost.path.open("r+b") as file:  # the first pages of the rows, but not the newest
        for page in range(30, 34):
            file.seek(page * 4096)
            file.write(b"\xa5" * 4096)
    assert size > 40 * 4096
    done = restore(lost.path, lost.backup, LATER)
    assert done["old_readable"]
    assert done["lost_tasks"] or done["lost_events"] or done["old_gaps"]


def test_the_log_of_the_lost_store_never_meets_the_new_one(lost: Lost) -> None:
    wal = lost.path.with_name("hub.db-wal")
    wal.write_bytes(b"whatever is in it")
    done = restore(lost.path, lost.backup, LATER)
    assert not wal.exists()
    assert Path(f"{done['kept']}-wal").read_bytes() == b"whatever is in it"


def test_the_key_of_the_backup_comes_with_it(lost: Lost) -> None:
    lost.shelf.key.write_text("ab" * 32)
    done = restore(lost.path, lost.backup, LATER)
    assert lost.shelf.key.read_text() == "0f" * 32
    assert done["key_replaced"]
    (kept,) = lost.path.parent.glob("hub.key.kept-*")
    assert kept.read_text() == "ab" * 32


def test_on_an_empty_machine_there_is_nothing_to_keep(lost: Lost, tmp_path: Path) -> None:
    elsewhere = tmp_path / "new" / "hub.db"
    done = restore(elsewhere, lost.backup, LATER)
    assert done["kept"] is None
    assert elsewhere.with_name("hub.key").read_text() == "0f" * 32
    assert judge(elsewhere, full=True) == ([], True)


async def test_a_living_store_is_refused(lost: Lost) -> None:
    store = await SqliteStore.open(lost.path)
    try:
        with pytest.raises(StoreUnusable, match="another hub"):
            restore(lost.path, lost.backup, LATER)
    finally:
        await store.close()


@pytest.mark.parametrize("breaks", ["store", "manifest", "key"])
def test_a_backup_that_is_not_whole_is_refused_and_nothing_changes(lost: Lost, breaks: str) -> None:
    before = fingerprints(lost.path)
    path = lost.backup.path / {"store": "hub.db", "manifest": "manifest.json", "key": "hub.key"}[breaks]
    path.write_bytes(path.read_bytes()[:-7] + b"garbage")
    with pytest.raises(StoreUnusable, match="not whole"):
        restore(lost.path, lost.shelf.every()[0], LATER)
    assert fingerprints(lost.path) == before
    assert not list(lost.path.parent.glob("*.kept-*"))


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Crash(BaseException):
    """The power goes."""


def crashing(patch: pytest.MonkeyPatch, after: int) -> Callable[[], int]:
    """Let the power go at the n-th change of a name or sync of a directory; how many there were."""
    count = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > after:
                raise Crash
            return real(*args, **options)

        return call

    patch.setattr(Path, "replace", counted(Path.replace))
    patch.setattr(Path, "unlink", counted(Path.unlink))
    patch.setattr(os, "link", counted(os.link))
    patch.setattr(module, "sync_directory", counted(module.sync_directory))
    patch.setattr(module, "migrate", counted(module.migrate))
    patch.setattr(module, "set_ahead", counted(module.set_ahead))
    return lambda: count


@pytest.mark.parametrize("after", range(24))
async def test_a_crash_at_any_step_leaves_the_old_or_the_new(lost: Lost, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    lost.path.with_name("hub.db-wal").touch()
    lost.shelf.key.write_text("ab" * 32)
    before = lost.path.read_bytes()
    with monkeypatch.context() as patch:
        made = crashing(patch, after)
        try:
            restore(lost.path, lost.backup, LATER)
            whole = True
        except Crash:
            whole = False
        if whole:
            assert made() <= after < 24, "every step was tried"
    planned = lost.path.with_name("hub.db.restore").exists()
    assert lost.path.exists(), "its name never stands empty"
    if not planned and not whole:
        assert lost.path.read_bytes() == before or lost.read("SELECT count(*) FROM task") == [(59,)]
    store = await SqliteStore.open(lost.path) if planned or whole else None
    if store is not None:  # whoever opens it next finishes what had begun
        await store.close()
    done = restore(lost.path, lost.backup, LATER) if store is None else None
    assert lost.read("SELECT count(*) FROM task") == [(59,)]
    assert lost.shelf.key.read_text() == "0f" * 32
    assert done is None or done["backup"] == lost.backup.name
    (kept,) = (
        path
        for path in lost.path.parent.glob("hub.db.kept-*")
        if path.suffix not in ("-wal", "-shm") and "-wal" not in path.name
    )
    assert kept.read_bytes() == before
    assert not list(lost.path.parent.glob("*.restor*"))


def test_whoever_only_looks_finishes_no_restore(lost: Lost, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        crashing(patch, 12)
        with pytest.raises(Crash):
            restore(lost.path, lost.backup, LATER)
    plan = lost.path.with_name("hub.db.restore")
    before = plan.read_bytes()
    with suppress(StoreCorrupt):
        examine(lost.path, lost.shelf)
    assert plan.read_bytes() == before
    guard(lost.path, lost.shelf)
    assert not plan.exists()


def test_without_a_plan_there_is_nothing_to_finish(lost: Lost) -> None:
    assert finish(lost.path) is None
