"""Logs hold no secret, and nothing foreign in them has power over the terminal they are read on."""

import logging

import structlog

from hub.telemetry import log

FOREIGN = "\x1b[2J\x9b31m\u202e\nforged line"
TOKEN = "ac_01234567_" + "s" * 43


def test_words_of_others_are_shown_without_power_and_on_one_line():
    shown = log.harmless(None, "warning", {"event": FOREIGN, "message": FOREIGN, "n": 3})
    assert shown == {"event": r"\x1b[2J\x9b31m\u202e\nforged line", "message": r"\x1b[2J\x9b31m\u202e\nforged line", "n": 3}


def test_a_traceback_keeps_its_lines_alone():
    shown = log.harmless(None, "error", {"exception": f"Traceback\n  ValueError: {FOREIGN}"})
    assert shown["exception"] == "Traceback\n  ValueError: \\x1b[2J\\x9b31m\\u202e\nforged line"


def test_secrets_are_taken_out_wherever_they_stand():
    shown = log.redact(None, "info", {"event": f"Bearer {TOKEN}", "url": "https://ann:secret@host/x"})
    assert "s" * 43 not in shown["event"]
    assert shown["url"] == "https://ann:[redacted]host/x"


def test_terminals_are_given_harmless_text_and_programs_json(monkeypatch):
    monkeypatch.setattr(structlog, "configure", lambda **given: chains.append(given["processors"]))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    chains: list = []
    log.configure(as_json=False)
    log.configure(as_json=True)
    assert log.harmless in chains[0]
    assert log.harmless not in chains[1]
