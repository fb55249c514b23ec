"""The enrolment code reaches ``join`` by ways that no other user of the machine can watch."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TYPED = "not-a-code"
"""Refused for what it is: so it has arrived."""


def join(
    place: Path, *words: str, stdin: int | None = None, stderr: int = subprocess.PIPE, **environ: str
) -> subprocess.Popen[str]:
    argv = [
        "join",
        "http://127.0.0.1:1",
        "--runtime",
        "mock",
        "--no-service",
        "--run-as",
        "",
        "--state-dir",
        str(place / "state"),
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "sidecar", *argv, "--config", str(place / "sidecar.toml"), *words],
        cwd=ROOT, env={**os.environ, **environ}, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True,
    )  # fmt: skip


def refusal(process: subprocess.Popen[str], said: str | None = None) -> str:
    _, err = process.communicate(said, timeout=60)
    assert process.returncode == 2
    return err


def test_it_is_read_from_the_environment(tmp_path: Path) -> None:
    assert "the enrolment code is not one" in refusal(join(tmp_path, AGENTCOM_ENROL=TYPED))


def test_it_is_read_from_standard_input(tmp_path: Path) -> None:
    assert "the enrolment code is not one" in refusal(join(tmp_path, "--enrol", "-", stdin=subprocess.PIPE), f"{TYPED}\n")


@pytest.mark.parametrize("registered", [False, True])
def test_on_a_terminal_it_is_asked_for_unseen_unless_it_is_not_needed(tmp_path: Path, registered: bool) -> None:
    if registered:
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "install_id").write_text("0" * 32)
        (tmp_path / "state" / "token").touch(0o600)
    ours, theirs = pty.openpty()
    try:
        with join(tmp_path, stdin=theirs, stderr=theirs) as process:
            shown = b""
            if not registered:
                while b"Enrolment code" not in shown:
                    shown += os.read(ours, 4096)
                os.write(ours, f"{TYPED}\n".encode())
            assert process.wait(60) == (1 if registered else 2)
            os.set_blocking(ours, False)
            with contextlib.suppress(BlockingIOError):
                shown += os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (b"Enrolment code" in shown) != registered
    assert (b"is not one" in shown) != registered
    assert TYPED.encode() not in shown
