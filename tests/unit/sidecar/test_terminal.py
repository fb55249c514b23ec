"""What the sidecar's commands print: harmless, and for programs one object."""

from __future__ import annotations

import json

import pytest

from sidecar import terminal


def test_foreign_text_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.entry("head  ", 6, "a\x1b[2Jb\u202ec\nd")
    terminal.say(terminal.styled("x\x07y", "red"))
    assert capsys.readouterr().out == "head  a\\x1b[2Jb\\u202ec d\nx\\x07y\n"


def test_errors_are_told_all_at_once_each_with_its_cure(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.complain("bad_request", [("first\x1b", "cure"), ("second", "")])
    assert capsys.readouterr().err == "error: first\\x1b\nhint: cure\nerror: second\n"
    terminal.complain("bad_request", [("first", "cure"), ("second", "")], as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "code": "bad_request",
        "errors": [{"detail": "first", "hint": "cure"}, {"detail": "second", "hint": None}],
    }
