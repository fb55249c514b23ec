"""``agentcom db``: what people see of the store, what a script reads, and what is refused while a hub is alive."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from hub.cli import db
from hub.cli.exits import Exit
from hub.core.errors import Refused
from hub.ids import SECOND
from hub.services.errands import Round
from hub.store import guard, migrations
from hub.store.migrations import newest_schema, schema_files
from hub.store.place import take_lock
from hub.wire.finding import fail, ok, warn
from tests.support.doors import NOW


def test_health_shows_figures_and_what_they_mean(agentcom, house) -> None:
    house.keeper.found = [ok("reserve", "64 MiB"), warn("free pages", "a third is free", "agentcom db compact")]
    house.keeper.growth = 3 * 2**20
    done = agentcom("db", "health")
    assert done.exit_code == Exit.OK
    assert "3.9 MiB, 400.0 KiB of it free (10%)" in done.output
    assert "3.0 MiB a day" in done.output
    assert "9.0 GiB free, and 64.0 MiB kept for agents at work" in done.output
    assert "→ agentcom db compact" in done.output


def test_health_that_fails_exits_like_the_doctor(agentcom, house) -> None:
    house.keeper.found = [fail("reserve", "given up", "free some space")]
    assert agentcom("db", "health").exit_code == Exit.NOT_DONE
    done = agentcom("db", "health", "--json")
    assert done.exit_code == Exit.NOT_DONE
    document = json.loads(done.stdout)
    assert (document["ok"], document["growth_bytes_per_day"], document["space"]) == (False, None, "ample")


def test_compact_waits_until_it_is_done_and_says_what_came_of_it(agentcom, house, monkeypatch) -> None:
    house.keeper.bytes = (10 * 2**20, 2 * 2**20)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        found = house.keeper.rounds["compact"]
        found.steps, found.longest_s = 40, 0.0123
        if len(naps) == 2:
            found.ended_at = NOW / SECOND

    monkeypatch.setattr(db.time, "sleep", nap)
    done = agentcom("db", "compact")
    assert done.output == "done: 10.0 MiB → 2.0 MiB, in 40 steps of at most 12.3 ms\n"
    assert len(naps) == 2


def test_compact_that_is_not_waited_for_is_under_way_and_can_be_stopped(agentcom, house) -> None:
    house.keeper.bytes = (10 * 2**20, 9 * 2**20)
    assert agentcom("db", "compact", "--no-wait").output.startswith("under way: 10.0 MiB → 9.0 MiB")
    assert agentcom("db", "compact", "--stop").output.startswith("stopped: ")
    assert json.loads(agentcom("db", "compact", "--stop", "--json").stdout)["round"]["stopped"] is True


def test_what_was_never_asked_for_is_said_so(agentcom, house) -> None:
    assert agentcom("db", "compact", "--stop").output == "nothing was compacted since the hub started\n"
    assert agentcom("db", "prune", "--stop").output == "nothing was pruned since the hub started\n"


def test_a_file_that_cannot_be_compacted_in_use_names_the_way(agentcom, house) -> None:
    house.keeper.unfit = Refused(409, "not_incremental", "an old file", hint="agentcom db compact --offline")
    done = agentcom("db", "compact")
    assert done.exit_code == Exit.REFUSED
    assert "agentcom db compact --offline" in done.output


def test_an_errand_that_failed_is_not_done(agentcom, house) -> None:
    house.keeper.rounds["prune"] = Round(1.0, 1.0, 2.0, steps=3, error="the disk is full")
    done = agentcom("db", "prune")
    assert (done.exit_code, "failed: the disk is full" in done.output) == (Exit.NOT_DONE, True)


def test_a_dry_run_only_says_what_would_go(agentcom, house) -> None:
    done = agentcom("db", "prune", "--dry-run")
    assert "12,345 would go" in done.output and "6 are as old" in done.output
    assert house.keeper.rounds == {}
    assert json.loads(agentcom("db", "prune", "--dry-run", "--json").stdout)["tasks"] == 12_345


# ── without a hub ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def data_dir(tmp_path, monkeypatch) -> Iterator[Path]:
    monkeypatch.setenv("AGENTCOM_DATA_DIR", str(tmp_path))
    yield tmp_path
    structlog.reset_defaults()


def at_schema(data_dir: Path, number: int) -> None:
    """A store as an older version left it."""
    connection = sqlite3.connect(data_dir / "hub.db", isolation_level=None)
    for name in schema_files():
        if int(name[:4]) <= number:
            connection.executescript(migrations.files("hub.store").joinpath("schema", name).read_text("utf-8"))
    connection.execute(f"PRAGMA user_version={number}")
    connection.close()


def schema_of(data_dir: Path) -> int:
    connection = sqlite3.connect(data_dir / "hub.db")
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(found)


def test_an_upgrade_is_planned_and_done(agentcom, data_dir) -> None:
    at_schema(data_dir, 2)
    done = agentcom("db", "upgrade", "--dry-run")
    assert f"2 → {newest_schema()}" in done.output and "0006_keeping.sql" in done.output and "0002" not in done.output
    assert "after a backup of" in done.output
    assert schema_of(data_dir) == 2
    done = agentcom("db", "upgrade", "--json")
    assert json.loads(done.stdout)["pending"] == [name for name in schema_files() if int(name[:4]) > 2]
    assert schema_of(data_dir) == newest_schema()
    assert "nothing is to be done" in agentcom("db", "upgrade", "--dry-run").output


def test_a_living_hubs_store_is_left_alone(agentcom, data_dir) -> None:
    at_schema(data_dir, 2)
    lock = take_lock(data_dir / "hub.db")
    try:
        for command in (("upgrade", "--dry-run"), ("upgrade",), ("compact", "--offline")):
            done = agentcom("db", *command)
            assert (done.exit_code, "another hub has" in done.output) == (Exit.REFUSED, True), command
    finally:
        os.close(lock)
    assert schema_of(data_dir) == 2


@pytest.mark.parametrize("command", [("upgrade", "--dry-run"), ("compact", "--offline")])
def test_no_store_a_strange_one_and_a_newer_one_are_refused(agentcom, data_dir, command) -> None:
    assert "there is no store" in agentcom("db", *command).output
    assert list(data_dir.iterdir()) == [], "and none is made"
    (data_dir / "hub.db").write_bytes(b"no database" * 1000)
    assert "no store of a hub" in agentcom("db", *command).output
    (data_dir / "hub.db").unlink()
    at_schema(data_dir, 1)
    connection = sqlite3.connect(data_dir / "hub.db", isolation_level=None)
    connection.execute("PRAGMA user_version=9999")
    connection.close()
    done = agentcom("db", *command)
    assert (done.exit_code, "install the newer version" in done.output) == (Exit.REFUSED, True)


def test_an_old_file_is_rewritten_offline(agentcom, data_dir) -> None:
    at_schema(data_dir, 2)
    done = agentcom("db", "compact", "--offline")
    assert (done.exit_code, done.output[:6]) == (0, "done: ")
    connection = sqlite3.connect(data_dir / "hub.db")
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    connection.close()
    assert json.loads(agentcom("db", "compact", "--offline", "--json").stdout)["bytes_after"] > 0


def test_the_backup_before_an_upgrade_goes_where_the_settings_say(agentcom, data_dir, tmp_path_factory, monkeypatch) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("AGENTCOM_BACKUP_DIR", str(elsewhere))
    at_schema(data_dir, 2)
    assert agentcom("db", "upgrade").exit_code == 0
    assert not (data_dir / "backups").exists()
    assert [path.name for path in next(elsewhere.iterdir()).iterdir() if path.name == "hub.db"] == ["hub.db"]


def test_a_store_that_is_not_whole_is_not_rewritten(agentcom, data_dir) -> None:
    at_schema(data_dir, newest_schema())
    log = data_dir / "hub.db-wal"
    log.write_bytes(b"\x37\x7f\x06\x82" + b"\xa5" * 4096)
    before = log.read_bytes()
    done = agentcom("db", "compact", "--offline")
    assert (done.exit_code, "is broken" in done.output) == (Exit.REFUSED, True)
    assert log.read_bytes() == before


def test_a_restore_that_was_cut_off_is_finished_before_a_rewrite(agentcom, data_dir, monkeypatch) -> None:
    monkeypatch.setattr(guard, "log", structlog.get_logger())  # the other one keeps the first screen it wrote to
    at_schema(data_dir, newest_schema())
    path = data_dir / "hub.db"
    old = path.read_bytes()
    at_fresh = sqlite3.connect(data_dir / "hub.db.restoring")
    with closing(sqlite3.connect(path)) as connection:
        connection.backup(at_fresh)
    at_fresh.execute("INSERT INTO meta VALUES ('restored', 'yes')")
    at_fresh.commit()
    at_fresh.close()
    (data_dir / "hub.db.restore").write_text(json.dumps({"kept_name": "hub.db.kept", "stamp": "now"}))
    assert agentcom("db", "compact", "--offline").exit_code == 0
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'restored'").fetchone() == ("yes",)
    assert (data_dir / "hub.db.kept").read_bytes() == old
