"""SQLite as it is really opened: pragmas that hold, one hub per file, readers that cannot write, schemas that only go forward."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from hub.core.errors import StoreFull
from hub.core.rows import EventRow
from hub.ids import Micros
from hub.store import sqlite as module
from hub.store.base import CommitFailed, Look, StoreBroken
from hub.store.faults import classify
from hub.store.recovery import load_snapshot
from hub.store.sqlite import PRAGMAS, SqliteStore, StoreUnusable
from hub.store.writer import Group
from tests.unit.hub.store.test_journal import NEED, new, state

NOW = Micros(1)


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path, **options)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "hub.db"


async def of_writer(store: SqliteStore, sql: str) -> Any:
    row = await store._writer.run(lambda connection: connection.execute(sql).fetchone())
    return next(iter(row.values()))


async def test_the_pragmas_hold(path: Path) -> None:
    async with opened(path) as store:
        for name, value in PRAGMAS.items():
            assert str(await of_writer(store, f"PRAGMA {name}")) == str(value), name
        assert await of_writer(store, "PRAGMA synchronous") == 2
        assert await of_writer(store, "PRAGMA wal_autocheckpoint") == 1000
    async with opened(path, durability="normal") as store:
        assert await of_writer(store, "PRAGMA synchronous") == 1


async def test_a_pragma_that_does_not_take_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PRAGMAS", {**PRAGMAS, "page_size": 12345})
    with pytest.raises(StoreUnusable, match="page_size"):
        await SqliteStore.open(path)


async def test_every_table_is_strict(path: Path) -> None:
    async with opened(path) as store:
        tables = await store.reader.run(
            lambda connection: connection.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
        )
    assert len(tables) > 10
    assert [row["name"] for row in tables if not row["strict"] and not row["name"].startswith("sqlite_")] == []


async def test_the_file_is_its_owners_alone(path: Path) -> None:
    async with opened(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.with_name("hub.db.lock").stat().st_mode) == 0o600


async def test_a_second_hub_is_refused_and_may_come_when_the_first_is_gone(path: Path) -> None:
    async with opened(path):
        with pytest.raises(StoreUnusable, match="another hub"):
            await SqliteStore.open(path)
    async with opened(path):
        pass


async def test_a_failed_opening_leaves_no_lock_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(module, "check_schema_plain", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await SqliteStore.open(path)
    async with opened(path):
        pass


async def test_migrating_again_changes_nothing(path: Path) -> None:
    async with opened(path) as store:
        await store.commit(Group(rows=[NEED, new(), state()]), NOW)
        schema = await of_writer(store, "PRAGMA schema_version")
    async with opened(path) as store:
        assert await of_writer(store, "PRAGMA schema_version") == schema
        assert await store.reader.one("task_fact", n=1) is not None


async def test_a_newer_schema_is_refused(path: Path) -> None:
    async with opened(path) as store:
        await store._writer.run(lambda connection: connection.execute("PRAGMA user_version = 9000"))
    with pytest.raises(StoreUnusable, match="schema 9000"):
        await SqliteStore.open(path)


async def test_a_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = Path.read_text
    mounts = f"proc /proc proc rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\nx / ext4 rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda self, *a, **k: mounts if str(self) == "/proc/mounts" else real(self, *a, **k))
    with pytest.raises(StoreUnusable, match="nfs4"):
        await SqliteStore.open(path)


async def test_readers_cannot_write(path: Path) -> None:
    async with opened(path) as store:
        for sql in ("INSERT INTO meta (key, value) VALUES ('a', 'b')", "CREATE TABLE t (x)", "DELETE FROM task"):
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                await store.reader.run(lambda connection, sql=sql: connection.execute(sql))

        def forget_query_only(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA query_only = 0")
            connection.execute("INSERT INTO meta (key, value) VALUES ('a', 'b')")

        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await store.reader.run(forget_query_only)  # the file itself is open for reading only


async def test_a_reader_sees_one_moment(path: Path) -> None:
    async with opened(path) as store:
        await store.commit(Group(rows=[NEED, new(1), state(1)]), NOW)
        loop = asyncio.get_running_loop()

        def twice(connection: sqlite3.Connection) -> tuple[int, int]:
            count = "SELECT count(*) AS n FROM task"
            before = connection.execute(count).fetchone()["n"]
            asyncio.run_coroutine_threadsafe(store.commit(Group(rows=[new(2), state(2)]), NOW), loop).result(5)
            return before, connection.execute(count).fetchone()["n"]

        assert await store.reader.run(twice) == (1, 1)
        assert len(list((await load_snapshot(store.reader)).tasks)) == 2


async def test_all_queries_of_a_look_see_one_moment(path: Path) -> None:
    async with opened(path) as store:

        def twice(look: Look) -> tuple[int, int]:
            before = look.one("event_last_seq")
            with closing(sqlite3.connect(path)) as other:
                other.execute("INSERT INTO event (seq, at, kind, actor) VALUES (7, 1, 'k', 'a')")
                other.commit()
            after = look.one("event_last_seq")
            assert before is not None and after is not None
            return before["seq"], after["seq"]

        assert await store.reader.look(twice) == (0, 0)
        assert await store.reader.one("event_last_seq") == {"seq": 7}


async def test_a_cancelled_reader_is_not_given_to_the_next_before_it_is_done(path: Path) -> None:
    """It was handed on at once, while its thread was still at work."""
    async with opened(path, readers=1) as store:
        loop, began = asyncio.get_running_loop(), asyncio.Event()
        go = asyncio.run_coroutine_threadsafe

        async def gate(event: asyncio.Event) -> None:
            await event.wait()

        may_end = asyncio.Event()

        def slow(_: sqlite3.Connection) -> None:
            loop.call_soon_threadsafe(began.set)
            go(gate(may_end), loop).result(5)

        asked = asyncio.ensure_future(store.reader.run(slow))
        await began.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert store.reader._free.empty()
        may_end.set()
        assert await store.reader.one("event_last_seq") == {"seq": 0}


async def test_a_whole_function_runs_in_one_hop(path: Path) -> None:
    """The contract with the pinned aiosqlite: ``_execute`` calls on the connection's thread and hands back what was returned or raised."""
    assert (0, 22, 1) <= tuple(int(part) for part in aiosqlite.__version__.split(".")[:3]) < (0, 23)
    import threading

    async with opened(path) as store:
        here = threading.get_ident()
        seen = await store._writer.run(lambda connection: (threading.get_ident(), type(connection)))
        again = await store._writer.run(lambda _: threading.get_ident())
        assert seen[0] == again != here and seen[1] is sqlite3.Connection
        with pytest.raises(ZeroDivisionError):
            await store._writer.run(lambda _: 1 / 0)
        assert await store._writer.run(lambda _: 7) == 7


async def test_events_go_on_counting_over_a_restart(path: Path) -> None:
    event = EventRow(1, "k", "ann")
    async with opened(path) as store:
        await store.commit(Group(events=[event, event]), NOW)
    async with opened(path) as store:
        assert store.last_seq == 2
        done = await store.commit(Group(events=[event]), NOW)
        assert [seq for seq, _ in done.events] == [3]


async def test_a_failed_group_uses_up_no_event_number(path: Path) -> None:
    event = EventRow(1, "k", "ann")
    async with opened(path) as store:
        with pytest.raises(CommitFailed):
            await store.commit(Group(rows=[new(requirement_id=4), state()], events=[event]), NOW)
        assert (await store.commit(Group(events=[event]), NOW)).events[0][0] == 1


async def test_every_start_is_counted(path: Path) -> None:
    async with opened(path) as store:
        first = await store.begin_epoch()
    async with opened(path) as store:
        second = await store.begin_epoch()
        assert await store.meta("hub_epoch") == "2"
    assert (first[2], second[2]) == (1, 2)
    assert first[:2] == second[:2], "the hub and its feed keep their names"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, StoreFull),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreBroken),
        (sqlite3.SQLITE_CORRUPT, StoreBroken),
        (sqlite3.SQLITE_NOTADB, StoreBroken),
        (sqlite3.SQLITE_READONLY, StoreBroken),
        (sqlite3.SQLITE_BUSY, CommitFailed),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, CommitFailed),
    ],
)
def test_what_a_failed_commit_means(code: int, kind: type[Exception], tmp_path: Path) -> None:
    fault = sqlite3.OperationalError("x")
    fault.sqlite_errorcode = code
    assert isinstance(classify(fault, tmp_path), kind)


async def test_a_really_full_file_is_the_callers(path: Path) -> None:
    async with opened(path) as store:
        await store._writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone())
        with pytest.raises(StoreFull):
            await store.commit(Group(operations=[], events=[EventRow(1, "k" * 100, "ann", data="x" * 4000)] * 2000), NOW)
        await store._writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchone())
        assert (await store.commit(Group(events=[EventRow(1, "k", "ann")]), NOW)).events[0][0] == 1


async def test_a_data_directory_that_cannot_be_is_said(tmp_path):
    (tmp_path / "hub").touch()
    with pytest.raises(StoreUnusable, match="cannot be a data directory: File exists; choose another"):
        await SqliteStore.open(tmp_path / "hub" / "hub.db")


@pytest.mark.parametrize(
    "content", [b"these are no pages" * 400, b"SQLite format 3\0" + b"\xff" * 8000], ids=["text", "broken"]
)
async def test_a_file_that_is_no_store_is_said_and_left_as_it_was(tmp_path, content):
    path = tmp_path / "hub.db"
    path.write_bytes(content)
    with pytest.raises(StoreUnusable, match=r"is broken: .*not a"):
        await SqliteStore.open(path)
    assert path.read_bytes() == content
