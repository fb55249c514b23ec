"""Closing token files touches nothing that somebody else has put in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.doctor.repair import close_tokens, is_open_token
from sidecar.settings import Settings


def settings(token: Path) -> Settings:
    return Settings.model_validate({"hub_url": "ws://h/ws", "token_file": token, "agents": [{"id": "a", "runtime": "mock"}]})


def test_a_token_of_ones_own_is_closed(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(0o644)
    assert close_tokens(settings(token)) == [f"closed {token} to others"]
    assert token.stat().st_mode & 0o777 == 0o600
    assert close_tokens(settings(token)) == []


@pytest.mark.parametrize("planted", ["link", "second name"])
def test_what_may_be_another_file_is_left_as_it_is(tmp_path: Path, planted: str) -> None:
    token, other = tmp_path / "token", tmp_path / "other"
    other.touch(0o644)
    token.symlink_to(other) if planted == "link" else token.hardlink_to(other)
    assert not is_open_token(token)
    assert close_tokens(settings(token)) == []
    assert other.stat().st_mode & 0o777 == 0o644
