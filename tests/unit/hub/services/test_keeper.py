"""The keeper on a real store: it prunes in steps, gives the room back, cuts the log off under readers, and knows its figures."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.core.rows import EventRow
from hub.ids import DAY, Micros
from hub.services import keeper as module
from hub.services.keeper import COMPACT, PRUNE, Keeper
from hub.services.pruner import Keep, Pruner
from hub.services.room import Room
from hub.store import compaction, health
from hub.store.base import Operation, ReadAborted
from hub.store.retention import Named
from hub.store.sqlite import SqliteStore
from hub.store.writer import Group
from tests.support.doors import NOW, Rows
from tests.unit.hub.store.test_sqlite import opened

KEEP = Keep(task_days=90, salvage_days=180, audit_days=365)


class Recorder:
    """A conductor that commits each operation by itself."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store

    async def do(self, _command: Any) -> Any:
        raise NotImplementedError

    async def record(self, operation: Operation[Any]) -> Any:
        (outcome,) = (await self.store.commit(Group(operations=[operation]), Micros(NOW))).outcomes
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@asynccontextmanager
async def keeping(path: Path, keep: Keep = KEEP) -> AsyncIterator[Keeper]:
    async with opened(path) as store:
        recorder = Recorder(store)
        pruner = Pruner(store, recorder, Named(), keep, lambda: Micros(NOW))
        keeper = Keeper(store, recorder, Room(store.reserve), pruner, 0.2, lambda: Micros(NOW))
        owner = asyncio.create_task(keeper.errands.run())
        try:
            yield keeper
        finally:
            owner.cancel()
            await asyncio.gather(owner, return_exceptions=True)


async def done(keeper: Keeper, errand: str) -> Any:
    found = keeper.errands.ask(errand)
    async with asyncio.timeout(60):
        while found.running:
            await asyncio.sleep(0.005)
    assert not found.error
    return found


async def fill(store: SqliteStore, tasks: Iterable[int], finished_at: int, size: int = 2000) -> None:
    def insert(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        rows = Rows(connection)
        for n in tasks:
            rows.task(n, state="done", finished_at=finished_at, spec="x" * size)
            rows.attempt(n, 1)
        connection.execute("COMMIT")

    await store._writer.run(insert)


async def count(store: SqliteStore, table: str = "task") -> int:
    (row,) = await store.reader.run(lambda connection: connection.execute(f"SELECT count(*) AS n FROM {table}").fetchall())
    return int(row["n"])


async def test_pruning_and_compaction_give_the_room_back(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with keeping(path) as keeper:
        await fill(keeper.store, range(1, 2001), NOW - 91 * DAY)
        await fill(keeper.store, range(2001, 2101), NOW)
        await keeper.store.checkpoint(truncate=True)
        size = path.stat().st_size
        assert await keeper.pruner.would_prune() == {"tasks": 2000, "tasks_needed": 0, "blobs": 0, "events": 0}
        assert (await keeper.look()).backlog == 2000

        pruned = await done(keeper, PRUNE)
        assert (await count(keeper.store), await count(keeper.store, "attempt")) == (100, 100)
        assert keeper.pruner.pruned["tasks"] == 2000
        assert pruned.steps > 2000 / 500
        found = await keeper.look()
        assert (found.backlog, found.pages.incremental) == (0, True)
        assert found.pages.free_share > 0.5

        compacted = await done(keeper, COMPACT)
        assert keeper.before is not None and keeper.after is not None
        assert keeper.before.bytes == size
        assert (keeper.after.free, keeper.after.bytes) == (0, path.stat().st_size)
        assert path.stat().st_size < size / 3
        assert compacted.steps > 1
        assert (await keeper.store.reader.run(lambda c: c.execute("PRAGMA integrity_check").fetchall())) == [
            {"integrity_check": "ok"}
        ]


async def test_a_compaction_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    async with keeping(tmp_path / "hub.db") as keeper:
        await fill(keeper.store, range(1, 1001), NOW - 91 * DAY)
        await done(keeper, PRUNE)
        free = (await keeper.look()).pages.free
        found = keeper.errands.ask(COMPACT)
        async with asyncio.timeout(30):
            while not found.steps:
                await asyncio.sleep(0.0005)
        keeper.errands.stop(COMPACT)
        async with asyncio.timeout(30):
            while found.running:
                await asyncio.sleep(0.001)
        left = (await keeper.look()).pages.free
        assert 0 < left < free
    async with keeping(tmp_path / "hub.db") as again:
        assert (await again.look()).pages.free == left
        await done(again, COMPACT)
        assert (await again.look()).pages.free == 0


async def test_what_is_due_is_asked_for_once_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FREE_WORTH_BYTES", 1)
    async with keeping(tmp_path / "hub.db") as keeper:
        await fill(keeper.store, range(1, 501), NOW - 91 * DAY)
        await keeper.tidy()
        assert list(keeper.errands.rounds) == [PRUNE]
        await done(keeper, PRUNE)
        await keeper.tidy()
        assert list(keeper.errands.rounds) == [PRUNE, COMPACT], "now more than a fifth of the file is free"
        await done(keeper, COMPACT)


async def test_a_store_without_the_map_of_its_pages_is_rewritten_while_it_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hub.db"

    def plain() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA auto_vacuum=0")
        connection.execute("VACUUM")
        connection.close()

    async with opened(path) as store:
        await fill(store, range(1, 101), NOW - 91 * DAY)
    plain()
    monkeypatch.setattr(compaction, "SMALL_BYTES", 1000)
    async with keeping(path) as keeper:
        assert not (await keeper.look()).pages.incremental, "too large to be rewritten at a start"
        await done(keeper, PRUNE)
        assert (await done(keeper, COMPACT)).steps == 0
        assert await count(keeper.store) == 1
    before, after = compaction.rewrite_file(path)
    assert (before.incremental, after.incremental, after.free) == (False, True, 0)
    assert after.bytes < before.bytes
    plain()
    monkeypatch.undo()
    async with keeping(path) as keeper:
        assert (await keeper.look()).pages.incremental
        assert await count(keeper.store) == 1


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def write(store: SqliteStore, groups: int) -> None:
    for _ in range(groups):
        await store.commit(Group(events=[EventRow(1, "k", "ann", data="x" * 4000)] * 100), Micros(NOW))


async def test_a_long_log_is_cut_off_under_steady_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 1_000_000)
    async with keeping(tmp_path / "hub.db") as keeper:
        store, stop = keeper.store, asyncio.Event()

        async def read() -> None:
            while not stop.is_set():
                await store.reader.look(lambda look: look.all("event_page_after", after=0, limit=50))

        readers = [asyncio.create_task(read()) for _ in range(3)]
        await write(store, 10)
        assert store.log_bytes() > 1_000_000
        async with asyncio.timeout(30):
            while store.log_bytes() > 1_000_000:
                await keeper.mind_log()
        stop.set()
        await asyncio.gather(*readers)


async def test_an_idle_hub_has_no_log(tmp_path: Path) -> None:
    async with keeping(tmp_path / "hub.db") as keeper:
        await write(keeper.store, 2)
        for _ in range(module.IDLE_TICKS + 2):
            assert keeper.store.log_bytes() or _ > module.IDLE_TICKS
            await keeper.mind_log()
        assert keeper.store.log_bytes() == 0


async def test_a_query_that_holds_the_log_is_ended_but_never_the_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_S", 0.0)
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    short = endless.replace("FROM c)", "FROM c LIMIT 300000)")
    async with keeping(tmp_path / "hub.db") as keeper:
        reader = keeper.store.reader
        reading = asyncio.create_task(reader._lend(lambda connection: connection.execute(endless).fetchone()))
        patient = asyncio.create_task(reader.run(lambda connection: connection.execute(short).fetchone()))
        async with asyncio.timeout(10):
            while len(reader._reading) < 2:
                await asyncio.sleep(0.001)
            assert reader.oldest_s() > 0
            while not reading.done():
                await keeper.mind_log()
                await asyncio.sleep(0.01)
        with pytest.raises(ReadAborted):
            await reading
        assert (await patient) == {"count(*)": 300000}
        assert reader.oldest_s() == 0
        assert await count(keeper.store) == 0, "the connection serves on"


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_growth_is_what_came_in_by_the_day(tmp_path: Path) -> None:
    async with keeping(tmp_path / "hub.db") as keeper:
        assert (await keeper.look()).growth_bytes_per_day is None
        for days, total, free in ((9, 1, 0), (4, 1000, 100), (2, 1500, 200), (0, 3000, 100)):
            await keeper.store._writer.run(
                lambda c, v=(NOW // DAY - days, total, free): c.execute("INSERT INTO store_sample VALUES (?, ?, ?)", v)
            )
        assert (await keeper.look()).growth_bytes_per_day == (2900 - 900) / 4
        await keeper.conductor.record(health.note_size((await keeper.look()).pages))
        rows = await keeper.store.reader.all("store_samples", since=0)
        assert rows[-1]["file_bytes"] == 3000, "the first of a day stays"


async def test_gauges_are_told_at_once(tmp_path: Path) -> None:
    async with keeping(tmp_path / "hub.db") as keeper:
        assert "store_bytes" not in keeper.gauges()
        await keeper.look()
        found = keeper.gauges()
        assert found["store_bytes"] > 0 and found["disk_free_bytes"] > 0
