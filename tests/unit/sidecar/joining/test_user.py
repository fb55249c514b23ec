"""Making the user that agents run as: a stand-in for ``useradd`` writes down what it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.joining import user


def test_the_home_is_closed_from_the_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, fake = tmp_path / "asked", tmp_path / "bin" / "useradd"
    home = tmp_path / "homes" / "agents"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nmkdir {home}\necho "$*" > {asked}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(user, "exists", lambda _: True)
    user.make("agents", home)
    assert "--key HOME_MODE=0700" in asked.read_text()
    assert home.stat().st_mode & 0o777 == 0o700
