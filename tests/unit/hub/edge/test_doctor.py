"""The door of the doctor, and the rights of the data directory."""

import os
from pathlib import Path

import pytest

from hub.edge.doctor import close_permissions, examine_permissions
from hub.ids import Scope
from hub.wire.finding import warn


async def test_an_operator_may_look_and_an_administrator_may_mend(house):
    house.doctor.findings = [warn("clones", "no longer registered: old", "drop them", fixable=True)]
    async with house.client(Scope.OPERATOR) as client:
        answer = await client.get("/api/v1/doctor")
        assert answer.json() == {
            "version": "0.1.0",
            "findings": [
                {"check": "clones", "state": "warn", "found": "no longer registered: old", "fix": "drop them", "fixable": True}
            ],
        }
        assert (await client.post("/api/v1/doctor")).status_code == 403
        assert house.doctor.mended == 0
    async with house.client(Scope.ADMIN) as client:
        assert (await client.post("/api/v1/doctor")).status_code == 200
        assert house.doctor.mended == 1


@pytest.mark.parametrize("scope", [Scope.SUBMITTER, Scope.OBSERVER, Scope.APPROVER, Scope.AGENT])
async def test_others_may_not_look(house, scope):
    async with house.client(scope) as client:
        assert (await client.get("/api/v1/doctor")).status_code == 403


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    there = tmp_path / "data dir"
    there.mkdir(mode=0o700)
    for name in ("hub.key", "hub.db"):
        (there / name).touch(mode=0o600)
    (there / "repositories").mkdir(mode=0o755)
    return there


def modes(data_dir: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in (data_dir, *data_dir.iterdir())}


def test_a_directory_that_is_no_hubs_is_left_alone(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "hosts").touch(mode=0o644)
    (tmp_path / "hub.txt").touch(mode=0o644)
    close_permissions(tmp_path)
    assert modes(tmp_path) == {tmp_path.name: 0o755, "hosts": 0o644, "hub.txt": 0o644}
    assert not examine_permissions(tmp_path)[0].fixable


def test_what_is_closed_is_fine_and_stays_as_it_is(data_dir):
    before = modes(data_dir)
    assert [one.state for one in examine_permissions(data_dir)] == ["ok"]
    close_permissions(data_dir)
    assert modes(data_dir) == before


def test_what_others_can_use_is_named_with_the_command_and_closed(data_dir):
    data_dir.chmod(0o755)
    (data_dir / "hub.key").chmod(0o640)
    (found,) = examine_permissions(data_dir)
    assert (found.state, found.fixable) == ("fail", True)
    assert found.fix == f"chmod go= '{data_dir}' '{data_dir}/hub.key'"
    close_permissions(data_dir)
    assert modes(data_dir) == {"data dir": 0o700, "hub.key": 0o600, "hub.db": 0o600, "repositories": 0o755}
    assert examine_permissions(data_dir)[0].state == "ok"


def test_a_link_is_not_followed(data_dir, tmp_path):
    outside = tmp_path / "outside"
    outside.touch(mode=0o644)
    (data_dir / "link").symlink_to(outside)
    close_permissions(data_dir)
    assert outside.stat().st_mode & 0o777 == 0o644
    assert examine_permissions(data_dir)[0].state == "ok"


def test_what_belongs_to_somebody_else_is_not_touched(data_dir, monkeypatch):
    data_dir.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: data_dir.stat().st_uid + 1)
    assert examine_permissions(data_dir)[0].fixable is False
    close_permissions(data_dir)
    assert data_dir.stat().st_mode & 0o777 == 0o755


def test_a_directory_that_is_not_there_is_no_fault_and_is_not_made(tmp_path):
    assert examine_permissions(tmp_path / "none")[0].state == "warn"
    close_permissions(tmp_path / "none")
    assert not (tmp_path / "none").exists()
