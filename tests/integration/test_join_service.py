"""Joining where systemd runs: a stand-in for ``systemctl`` writes down what it is asked for."""

from __future__ import annotations

import fcntl
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import which

import pytest

from hub.ids import LeaseEpoch, TaskId
from sidecar.core.records import Assigned
from sidecar.joining import leaving, progress, unit
from sidecar.joining.config import EXAMPLE
from sidecar.joining.leaving import Leaving
from sidecar.joining.plan import Plan
from sidecar.joining.progress import Progress
from sidecar.joining.running import Running
from sidecar.joining.service import Service, ServiceError
from sidecar.joining.step import Joining, StepError
from sidecar.joining.steps import service, start
from sidecar.joining.unit import Unit
from sidecar.journal import Journal
from sidecar.runs.clock import boot_name


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What systemctl was called with, a line each."""
    log, fake = tmp_path / "asked", tmp_path / "bin" / "systemctl"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\necho "$*" >> {log}\ntest -e {tmp_path}/broken && echo "Failed to connect to bus" >&2 && exit 1\nexit 0\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    return log


@pytest.fixture
def joining(tmp_path: Path) -> Joining:
    """A user's own unit: that of the system would be written to /etc."""
    mine = Unit(argv=("/bin/true",), environ={"PATH": "/bin"}, root=False, home=tmp_path / "home")
    plan = Plan(
        url="http://h:1", code=None, name="m1", agents=("m1-1",), config=tmp_path / "sidecar.toml", state_dir=tmp_path / "state",
        run_as="", page=EXAMPLE, unit=mine, python="/bin/true", foreground=False,
    )  # fmt: skip
    progress.write(
        plan.progress_file, Progress(hub="http://h:1", name="m1", token_id="x", hub_id="h", agents=("m1-1",), config="c")
    )
    return Joining(plan, Running(tmp_path / "join.log"))


def test_the_unit_is_written_enabled_and_started_and_restarted_only_for_a_change(joining: Joining, asked: Path) -> None:
    mine = joining.plan.unit
    assert mine is not None
    said = service(joining)
    assert "loginctl enable-linger" in said.detail
    assert mine.path.read_text() == unit.render(mine)
    start(joining)
    assert asked.read_text().splitlines() == [
        "--user daemon-reload", f"--user enable {unit.NAME}", f"--user restart {unit.NAME}"
    ]  # fmt: skip
    again = Joining(joining.plan, joining.running)
    service(again)
    start(again)
    assert asked.read_text().splitlines()[-1] == f"--user start {unit.NAME}"
    assert again.known is not None
    assert again.known.unit == str(mine.path)


def test_a_sidecar_that_somebody_else_started_is_not_taken_for_the_service(
    joining: Joining, asked: Path, tmp_path: Path
) -> None:
    service(joining)
    handle = os.open(joining.plan.state_dir / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        (tmp_path / "broken").write_text("")
        with pytest.raises(StepError, match="not the service"):
            start(joining)
    finally:
        os.close(handle)


def test_a_session_without_a_user_manager_is_a_failure_with_its_cure(joining: Joining, asked: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("")
    with pytest.raises(StepError) as failed:
        service(joining)
    finding = failed.value.findings[0]
    assert "Failed to connect to bus" in finding.found
    assert "--no-service" in (finding.fix or "")
    assert "enable-linger" in (finding.fix or "")


def test_leaving_stops_and_removes_the_unit_that_join_wrote_and_no_other(joining: Joining, asked: Path, tmp_path: Path) -> None:
    service(joining)
    mine = joining.plan.unit
    assert mine is not None
    order = Leaving(joining.plan.state_dir, tmp_path / "sidecar.toml")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(leaving.os, "geteuid", lambda: 1000)
        assert "removed" in leaving.stop(order)
        assert not mine.path.exists()
        assert f"--user disable --now {unit.NAME}" in asked.read_text()
        mine.path.write_text("[Service]\nExecStart=/mine\n")
        assert leaving.stop(order) == "no sidecar was running"
    assert mine.path.exists(), "somebody's own"


def test_passwords_of_proxies_lie_beside_the_unit_for_its_owner_alone(joining: Joining, asked: Path) -> None:
    plain = joining.plan.unit
    assert plain is not None
    secret, service_of = replace(plain, environ={"https_proxy": "http://a:b@p"}), Service.of(plain)
    beside = unit.secrets_file(plain.path)
    assert service_of.install(secret)
    assert beside.stat().st_mode & 0o777 == 0o600
    assert beside.read_text() == 'https_proxy="http://a:b@p"\n'
    assert not service_of.install(secret)
    assert service_of.install(replace(plain, environ={"https_proxy": "http://a:c@p"})), "the running one has the old password"
    service_of.install(plain)
    assert not beside.exists()
    service_of.install(secret)
    service_of.remove()
    assert not beside.exists()


def test_work_taken_on_while_leaving_stops_the_sidecar_is_not_stopped_unsaid(joining: Joining, tmp_path: Path) -> None:
    (joining.plan.state_dir / "install_id").write_text("0" * 32)
    order = Leaving(joining.plan.state_dir, tmp_path / "sidecar.toml")
    leaving.check(order)
    path = joining.plan.state_dir / "agents" / "m1-1" / "journal"
    path.parent.mkdir(parents=True)
    journal = Journal(path)
    journal.append(Assigned(task=TaskId(7), lease_epoch=LeaseEpoch(2)))
    journal.close()
    with pytest.raises(StepError, match="m1-1 holds t-7/2"):
        leaving.check_again(order)
    leaving.check_again(replace(order, now=True))


def test_leaving_signals_nobody_whom_the_lock_does_not_name_for_certain(joining: Joining, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        lock = joining.plan.state_dir / "lock"
        handle = os.open(lock, os.O_RDWR | os.O_CREAT)
        fcntl.flock(handle, fcntl.LOCK_EX)
        lock.write_text(f"{bystander.pid} 1 {boot_name()}")  # the number of a process that ended, used again
        try:
            with pytest.raises(StepError, match="nobody says which"):
                leaving.stop(Leaving(joining.plan.state_dir, tmp_path / "sidecar.toml"))
            assert bystander.poll() is None
        finally:
            os.close(handle)
            bystander.kill()


def test_without_systemctl_the_failure_says_so(joining: Joining, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    mine = joining.plan.unit
    assert mine is not None
    with pytest.raises(ServiceError, match="systemctl"):
        Service.of(mine).install(mine)


@pytest.mark.skipif(which("systemd-analyze") is None, reason="systemd-analyze is not here to judge")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for root in (True, False):
        wanted = Unit(argv=("/bin/sh", "a b", "$x", "100%"), environ={"PATH": '/x y:"q"%'}, root=root, home=tmp_path)
        (tmp_path / unit.NAME).write_text(unit.render(wanted))
        done = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / unit.NAME)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
