"""``agentcom join`` and ``leave`` become the sidecar's commands, with every word that was said."""

from __future__ import annotations

import pytest

from hub.cli import joining
from hub.cli.root import app


@pytest.mark.parametrize(
    "words",
    [
        ["join", "http://h:1", "--enrol", "ac_x", "--command", "a {prompt}", "--agents", "3", "--repo", "a=b", "--json"],
        ["join", "--help"],
        ["join"],
        ["leave", "--purge", "-c", "x.toml"],
    ],
)
def test_every_word_is_passed_on(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(joining.os, "execv", lambda program, argv: seen.append([program, *argv[1:]]))
    app(words, standalone_mode=False)
    assert seen == [[joining.sys.executable, "-m", "sidecar", *words]]
