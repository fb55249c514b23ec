"""Findings about the hub and the machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hub.ids import FindingState
from sidecar.doctor import hub, machine
from sidecar.hub import Refusal, Unreachable

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("apart_s", "state", "words"),
    [
        (0, "ok", "within a second"),
        (30, "ok", "30 s"),
        (31, "warn", "31 s ahead of"),
        (-31, "warn", "31 s behind"),
        (300, "warn", "300 s"),
        (301, "fail", "301 s ahead of"),
    ],
)
def test_a_clock_is_judged_by_how_far_it_is_off(apart_s: int, state: str, words: str) -> None:
    found = hub.clock(NOON, NOON + timedelta(seconds=apart_s))
    assert found.state == state
    assert words in found.found
    assert (found.fix is None) == (state == "ok")


def test_a_hub_that_hides_its_clock_is_a_warning() -> None:
    assert hub.clock(None, NOON).state is FindingState.WARN


class Answers:
    """A hub that says one thing."""

    def __init__(self, said: Any) -> None:
        self.said = said

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        ({"name": "machine:m1", "scopes": ["agent:a", "agent:b"]}, "ok", "machine:m1"),
        ({"name": "sidecar", "scopes": ["agent:*"]}, "ok", "sidecar"),
        ({"name": "m1", "scopes": ["agent:a"]}, "fail", "not for b"),
        ({"name": "ann", "scopes": ["admin"]}, "fail", "not for a, b"),
        ({}, "fail", "not for a, b"),
        (Refusal(401, {"detail": "a valid token is needed"}), "fail", "refuses"),
        (Refusal(404, {}), "warn", "does not say"),
        (Unreachable("gone", "wait"), "warn", "could not be tried"),
    ],
)
def test_a_token_is_good_for_all_its_agents_or_not_good(said: Any, state: str, words: str) -> None:
    found = hub.token(Answers(said), ["a", "b"])  # type: ignore[arg-type]
    assert found.state == state
    assert words in found.found


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (None, "fail"),
        ("git version 2.37.9", "fail"),
        ("git version 2.38.0", "ok"),
        ("git version 3.0.1", "ok"),
        ("nonsense", "fail"),
    ],
)
def test_an_old_git_is_refused(said: str | None, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_says", lambda *_: said)
    found = machine.git()
    assert found.state == state
    assert state == "ok" or "2.38" in (found.fix or "")


def test_a_shared_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.state_directory(tmp_path / "not" / "yet").state is FindingState.OK
    monkeypatch.setattr(machine, "file_system", lambda _: "nfs4")
    found = machine.state_directory(tmp_path)
    assert (found.state, "nfs4" in found.found) == (FindingState.FAIL, True)


@pytest.mark.parametrize(("free", "state"), [(100 * 2**20, "fail"), (2**30, "warn"), (2**40, "ok")])
def test_room_on_the_disk_is_judged(free: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    assert machine.disk(tmp_path).state == state


def test_a_program_that_may_start_to_work_is_not_started_to_ask_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(machine, "_says", lambda argv, *_: asked.append(argv) or "1.2.3")
    for name in ("my-agent", "claude"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert machine.program("runtime", str(tmp_path / "my-agent")).state is FindingState.OK
    assert asked == []
    assert "1.2.3" in machine.program("runtime", str(tmp_path / "claude")).found
    assert asked == [[str(tmp_path / "claude"), "--version"]]
    assert machine.program("runtime", str(tmp_path / "none")).state is FindingState.FAIL


def test_linux_has_what_is_needed_here() -> None:
    assert machine.linux().state is FindingState.OK


class Greets:
    """A hub that answers, or does not, at an address."""

    def __init__(self, url: str, fault: Unreachable | None = None) -> None:
        self.url = url
        self.fault = fault

    def greet(self) -> datetime:
        if self.fault is not None:
            raise self.fault
        return datetime.now(UTC)


@pytest.mark.parametrize(
    ("url", "state", "words"),
    [
        ("http://127.0.0.1:1", "ok", "answers"),
        ("https://hub.example", "ok", "answers"),
        ("http://10.0.0.1:1", "warn", "unencrypted"),
    ],
)
def test_an_unencrypted_way_through_a_network_is_a_warning(url: str, state: str, words: str) -> None:
    found = list(hub.reachable(Greets(url)))  # type: ignore[arg-type]
    assert [finding.check for finding in found] == ["hub", "clock"]
    assert (found[0].state, words in found[0].found) == (state, True)


def test_a_hub_that_does_not_answer_tells_nothing_of_the_clock() -> None:
    found = list(hub.reachable(Greets("http://h", Unreachable("gone", "wait"))))  # type: ignore[arg-type]
    assert [(finding.check, finding.state, finding.fix) for finding in found] == [("hub", "fail", "wait")]
