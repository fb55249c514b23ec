"""What the sidecar's commands print for people: lines with colour on a terminal, plain text elsewhere. NO_COLOR is obeyed.

All text passes :func:`hub.wire.text.clean`: what a hub, a program or a file name says cannot move the cursor.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

import typer

from hub.wire.text import clean

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}
"""By the word of a state."""
LEAST_WIDTH = 40


def styled(text: object, colour: str | None = None, *, bold: bool = False, to: TextIO | None = None) -> str:
    """Clean text in a colour, if ``to`` (default: stdout) is a terminal that wants some."""
    words = clean(text)
    plain = colour is None and not bold
    if plain or not (to or sys.stdout).isatty() or os.environ.get("NO_COLOR"):
        return words
    return typer.style(words, fg=colour, bold=bold or None)


def state(word: str) -> str:
    """A state in its colour."""
    return styled(word, COLOURS.get(word), bold=word == "fail")


def say(*parts: str) -> None:
    """One line on standard output, at once: whoever waits sees where it is. Parts come from :func:`styled`."""
    sys.stdout.write("".join(parts) + "\n")
    sys.stdout.flush()


def entry(head: str, width: int, text: object) -> None:
    """Clean text behind a head that takes ``width`` cells; on a terminal it is wrapped there."""
    room = max(LEAST_WIDTH, shutil.get_terminal_size().columns - width) if sys.stdout.isatty() else sys.maxsize
    for line in textwrap.wrap(clean(text), room, break_on_hyphens=False, break_long_words=False) or [""]:
        say(head, line)
        head = " " * width


def complain(code: str, faults: Sequence[tuple[object, object]], *, as_json: bool = False) -> None:
    """Errors on standard error, each with what to do about it; for programs one JSON object with all of them."""
    if as_json:
        told = [{"detail": str(what), "hint": str(cure) or None} for what, cure in faults]
        sys.stderr.write(json.dumps({"code": code, "errors": told}) + "\n")
        return
    for what, cure in faults:
        sys.stderr.write(styled("error: ", "red", bold=True, to=sys.stderr) + clean(what, lines=True) + "\n")
        if cure:
            sys.stderr.write(f"hint: {clean(cure, lines=True)}\n")


def document(value: object, *, line: bool = False) -> None:
    """JSON on standard output, pure ASCII; ``line`` keeps it on one line, for streams."""
    sys.stdout.write(json.dumps(value, indent=None if line else 2) + "\n")
    sys.stdout.flush()
