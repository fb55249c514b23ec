"""What ``agentcom backup`` says: of a running hub, of a stopped one, and of a store that broke."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from hub.cli.backup import show_restored
from hub.core.errors import Refused
from hub.ids import Scope
from hub.store.backups import Backup, UnknownBackup
from hub.telemetry import log
from tests.support import broken_stores
from tests.support.doors import House, backup
from tests.unit.hub.store.test_guard import make, with_backup
from tests.unit.hub.store.test_restore import LATER, Lost

Agentcom = Callable[..., Result]
NAME = "20270115T080000Z"


@pytest.fixture(autouse=True)
def logs_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sends the log to a standard error that ends with it, and the next test with another would write to that."""
    monkeypatch.setattr(log, "configure", lambda **_: None)


def test_a_new_one_is_told_with_what_it_means_to_have_it(agentcom: Agentcom, house: House) -> None:
    done = agentcom("backup", "create")
    assert done.exit_code == 0
    assert f"{NAME}  4.0 KiB, 5 tasks up to t-5, event 17" in done.stdout
    assert "has the hub's key" in done.stderr
    assert house.backups.asked == [("create", "asked", "admin")]


def test_the_list_tells_what_is_no_backup(agentcom: Agentcom, house: House) -> None:
    broken = Backup(path=Path("/srv/backups/20270114T080000Z"), manifest=None, fault="it has no manifest.json")
    house.backups.shelved = [backup(), broken]
    lines = [line.split("\t") for line in agentcom("backup", "list").stdout.splitlines()]
    assert [line[0] for line in lines] == ["backup", NAME, "20270114T080000Z"]
    assert (lines[1][-1], lines[2][-1]) == ("good", "it has no manifest.json")
    assert json.loads(agentcom("backup", "list", "--json").stdout)["backups"][1]["fault"] == "it has no manifest.json"


@pytest.mark.parametrize("fault", [None, "page 7 is broken"])
def test_the_verdict_is_in_the_exit_code(agentcom: Agentcom, house: House, fault: str | None) -> None:
    house.backups.shelved = [backup()]
    house.backups.fault = fault
    done = agentcom("backup", "verify", "--newest")
    assert done.exit_code == (0 if fault is None else 6)
    assert (fault or "is whole") in done.stdout


def test_without_a_name_it_is_not_guessed_which(agentcom: Agentcom, house: House) -> None:
    assert agentcom("backup", "verify").exit_code == 2
    assert agentcom("backup", "restore").exit_code == 2
    assert agentcom("backup", "restore", NAME, "--newest").exit_code == 2
    assert agentcom("backup", "verify", "--newest").exit_code == 4, "there is none"


def test_what_the_hub_refuses_is_told(agentcom: Agentcom, house: House) -> None:
    house.scope = Scope.OPERATOR
    assert agentcom("backup", "create").exit_code == 5
    house.scope = Scope.ADMIN
    house.backups.refuse = UnknownBackup(NAME, Path("/srv/backups"))
    assert agentcom("backup", "verify", NAME).exit_code == 4
    house.backups.refuse = Refused(507, "backup_no_room", "free some space")
    assert agentcom("backup", "create").exit_code == 7


# ── without a hub ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def lost(tmp_path: Path) -> Lost:
    made = Lost(tmp_path / "hub.db")
    asyncio.run(made.live())
    return made


@pytest.mark.parametrize("way", [*broken_stores.FILE, *broken_stores.LOG])
def test_a_store_broken_in_any_way_is_refused_with_the_command_that_helps(agentcom: Agentcom, tmp_path: Path, way: str) -> None:
    path = asyncio.run(make(tmp_path / "hub.db", clean=way in broken_stores.FILE))
    made = with_backup(path).every()[0]
    (broken_stores.FILE | broken_stores.LOG)[way](path)
    done = agentcom("server", "start-dev", "--port", "0", "--data-dir", str(tmp_path))
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert lines[0] == f"error: {path} is broken, and was not opened"
    assert any(f"the newest verified backup is {made.name} (made " in line for line in lines)
    assert lines[-1] == f"hint: agentcom backup restore --newest --data-dir {tmp_path}"


def test_a_restore_says_what_is_back_and_what_is_lost_and_what_to_do(agentcom: Agentcom, lost: Lost, tmp_path: Path) -> None:
    done = agentcom("backup", "restore", "--newest", "--data-dir", str(tmp_path))
    assert done.exit_code == 0
    for said in (
        f"restored {lost.backup.name}",
        "59 tasks up to t-59",
        "  t-60 ",
        "by ann: submit it again",
        "6 events",
        "Ended again, as the old store says: 00000001 (t1)",
        "00000002",
        "agentcom token revoke TOKEN",
        "agentcom server start",
    ):
        assert said in done.stdout


def test_a_restore_advises_by_what_became_of_a_lost_task(
    agentcom: Agentcom, lost: Lost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(agentcom("backup", "restore", "--newest", "--data-dir", str(tmp_path), "--json").stdout)
    told["lost_tasks"] = [
        {"task": 60, "title": "merged", "by": "ann", "state": "done"},
        {"task": 61, "title": "not wanted", "by": "ann", "state": "cancelled"},
        {"task": 62, "title": "check c-8", "by": "gatekeeper", "state": "queued"},
        {"task": 63, "title": "under way", "by": "ann", "state": "working"},
    ]
    show_restored(told)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  t-")]
    assert lines == [
        "t-60 merged, by ann: it was done, so look at the base branch before you submit it again",
        "t-61 not wanted, by ann: it had ended: cancelled",
        "t-62 check c-8, by gatekeeper: made again when a change needs it",
        "t-63 under way, by ann: submit it again",
    ]


def test_a_restore_tells_programs_the_same(agentcom: Agentcom, lost: Lost, tmp_path: Path) -> None:
    told = json.loads(agentcom("backup", "restore", lost.backup.name, "--data-dir", str(tmp_path), "--json").stdout)
    assert (told["backup"], told["last_task"], len(told["lost_tasks"])) == (lost.backup.name, 59, 5)


def test_files_are_listed_and_checked_without_a_hub(agentcom: Agentcom, lost: Lost, tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path))
    assert lost.backup.name in agentcom("backup", "list", *where).stdout
    assert agentcom("backup", "verify", "--newest", *where).exit_code == 0
    (lost.backup.path / "hub.key").write_text("another")
    assert agentcom("backup", "verify", lost.backup.name, *where).exit_code == 6
    assert agentcom("backup", "verify", "20000101T000000Z", *where).exit_code == 4
    assert agentcom("backup", "restore", "--newest", *where).exit_code == 1, f"it is not whole, at {LATER}"
