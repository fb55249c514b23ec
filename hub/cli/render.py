"""The one way to the terminal. All text of tasks, agents and submitters is data: :func:`clean` makes it harmless.

On a TTY tables are drawn and coloured (NO_COLOR is obeyed); elsewhere they are tab-separated lines for other programs. Nothing is
ever read as rich markup. JSON is pure ASCII, so it is harmless by itself.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that move the cursor, reorder text, hide or break lines: C0, C1, ANSI's escape, bidi controls …"""
_JOINERS = "\u200c\u200d"
"""Joiners inside words and emoji: invisible, but without any effect outside their neighbours."""


def clean(value: object, *, lines: bool = False) -> str:
    """``value`` as text in which every character with power over a terminal is shown as an escape instead.

    With ``lines``, line breaks and tabs stay; otherwise the result is one line.
    """
    text = ("" if value is None else str(value)).replace("\r\n", "\n")
    return "".join(_harmless(char, lines) for char in text)


def _harmless(char: str, lines: bool) -> str:
    if char.isprintable() or char in _JOINERS or (lines and char in "\n\t"):
        return char
    if char in "\n\t":
        return " "
    if unicodedata.category(char) not in _UNSAFE:
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text with a style for terminals that have one."""

    text: object
    style: str = ""


Value = Cell | str | int | None

_STATES = {
    "waiting": "yellow",
    "scheduled": "yellow",
    "queued": "cyan",
    "assigned": "blue",
    "working": "bold blue",
    "blocked": "bold magenta",
    "in_review": "magenta",
    "done": "green",
    "dead": "bold red",
    "cancelled": "dim",
    "idle": "green",
    "offline": "dim",
    "open": "cyan",
    "checking": "blue",
    "merging": "bold blue",
    "merged": "green",
    "rework": "yellow",
    "closed": "dim",
}
_TIERS = {1: "green", 2: "yellow", 3: "bold red"}


def state(word: str) -> Cell:
    """A state in its colour."""
    return Cell(word, _STATES.get(word, ""))


def tier(number: int | None) -> Cell:
    """A risk tier in its colour."""
    return Cell("-" if number is None else number, _TIERS.get(number or 0, ""))


def moment(text: str | None) -> str:
    """An RFC 3339 moment, to the second."""
    return "" if text is None else text[:19].replace("T", " ") + "Z"


@cache
def _console(stderr: bool = False) -> Console:
    from rich.console import Console  # noqa: PLC0415  rich is slow to import

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def console(*, stderr: bool = False) -> Console:
    """The console on the stream as it is now."""
    found = _console(stderr)
    found.file = sys.stderr if stderr else sys.stdout
    return found


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def say(*parts: Value, stderr: bool = False, lines: bool = False) -> None:
    """One line (or, with ``lines``, one text) made of parts."""
    from rich.text import Text  # noqa: PLC0415  rich is slow to import

    text = Text()
    for part in parts:
        found = part if isinstance(part, Cell) else Cell(part)
        text.append(clean(found.text, lines=lines), style=found.style or None)
    console(stderr=stderr).print(text)


def table(headers: Sequence[str], rows: Iterable[Sequence[Value]], *, empty: str) -> None:
    """Rows under headers; ``empty`` is said (on stderr, so that programs read nothing) when there are none."""
    found = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    if not found:
        say(empty, stderr=True)
        return
    if not is_terminal():
        for row in [[Cell(header) for header in headers], *found]:
            sys.stdout.write("\t".join(clean(cell.text) for cell in row) + "\n")
        return
    from rich import box  # noqa: PLC0415  rich is slow to import
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for header in headers:
        drawn.add_column(header, overflow="fold")
    for row in found:
        drawn.add_row(*(Text(clean(cell.text), style=cell.style) for cell in row))
    console().print(drawn)


def facts(pairs: Iterable[tuple[str, Value]]) -> None:
    """Labelled values, one a line; empty ones are left out."""
    shown = [(label, value if isinstance(value, Cell) else Cell(value)) for label, value in pairs]
    shown = [(label, cell) for label, cell in shown if cell.text not in (None, "", [])]
    width = max((len(label) for label, _ in shown), default=0)
    for label, cell in shown:
        say(Cell(f"{label:<{width}}  ", "dim"), cell)


def heading(text: str) -> None:
    """The title of a section."""
    say("")
    say(Cell(text, "bold"))


def document(value: Any, *, line: bool = False) -> None:
    """JSON on standard output; ``line`` keeps it on one line, for streams."""
    sys.stdout.write(json.dumps(value, indent=None if line else 2) + "\n")
    sys.stdout.flush()


def more(cursor: str | None) -> None:
    """Say how to see the next page."""
    if cursor is not None:
        say(f"more: repeat with --cursor {cursor}", stderr=True)
