"""The one way to the terminal. All text of tasks, agents and submitters is data: :func:`clean` makes it harmless.

On a terminal tables are fitted to its width and coloured (NO_COLOR is obeyed: no style at all); elsewhere lists are tab-separated
lines for other programs, and pages stay aligned text. Nothing is ever read as rich markup. JSON is pure ASCII, so it is harmless by
itself.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from hub.wire import text as foreign

if TYPE_CHECKING:
    from rich.console import Console

clean = foreign.clean


@dataclass(frozen=True, slots=True)
class Cell:
    """Text with a style for terminals that have one. ``short`` is shown instead in a table on a terminal."""

    text: object
    style: str = ""
    short: str | None = None


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
    "applying": "bold blue",
    "applied": "green",
    "dropped": "dim",
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


BRIEF = 32
"""Characters of free text beside other columns on a terminal."""


def brief(text: str) -> Cell:
    """Free text: in full for programs, its beginning in a table on a terminal."""
    return Cell(text, short=text if len(text) <= BRIEF else text[: BRIEF - 1] + "…")


_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def age(text: str | None) -> Cell:
    """An RFC 3339 moment: in full for programs, and as ``2m`` ago (or ``in 2m``) in a table on a terminal."""
    if text is None:
        return Cell("")
    seconds = (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()
    return Cell(moment(text), short=f"in {_span(-seconds)}" if seconds < -1 else _span(max(0.0, seconds)))


def took(start: str, end: str | None) -> str:
    """How long it took between two RFC 3339 moments."""
    if end is None:
        return ""
    return _span((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def _span(seconds: float) -> str:
    unit, length = next((unit for unit in _UNITS if seconds >= unit[1]), _UNITS[-1])
    return f"{int(seconds // length)}{unit}"


@cache
def _console(stderr: bool, plain: bool) -> Console:
    from rich.console import Console

    # NO_COLOR alone would leave bold and dim
    colours: Literal["auto"] | None = None if plain else "auto"
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True, color_system=colours)


def console(*, stderr: bool = False) -> Console:
    """The console on the stream as it is now."""
    found = _console(stderr, bool(os.environ.get("NO_COLOR")))
    found.file = sys.stderr if stderr else sys.stdout
    return found


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def say(*parts: Value, stderr: bool = False, lines: bool = False) -> None:
    """One line (or, with ``lines``, one text) made of parts."""
    from rich.text import Text

    text = Text()
    for part in parts:
        found = part if isinstance(part, Cell) else Cell(part)
        text.append(clean(found.text, lines=lines), style=found.style or None)
    console(stderr=stderr).print(text)


def table(
    headers: Sequence[str], rows: Iterable[Sequence[Value]], *, empty: str, flex: str = "", drop: Sequence[str] = ()
) -> None:
    """A list: rows under headers, tab-separated and complete for programs, and fitted to the width of a terminal.

    Where a terminal is narrow, the columns of ``drop`` go, the first named first, and then the column ``flex`` is cut with
    an ellipsis. ``empty`` is said (on stderr, so that programs read nothing) when there are no rows.
    """
    found = _cells(rows)
    if not found:
        say(empty, stderr=True)
    elif is_terminal():
        _draw(list(headers), found, flex=flex, drop=drop, width=console().width)
    else:
        for row in [[Cell(header) for header in headers], *found]:
            sys.stdout.write("\t".join(clean(cell.text) for cell in row) + "\n")


def part(
    headers: Sequence[str], rows: Iterable[Sequence[Value]], *, flex: str = "", drop: Sequence[str] = (), indent: int = 0
) -> None:
    """A table within a page: always aligned, because a page is read by people; complete where nobody knows the width."""
    _draw(list(headers), _cells(rows), flex=flex, drop=drop, width=console().width if is_terminal() else None, indent=indent)


def _cells(rows: Iterable[Sequence[Value]]) -> list[list[Cell]]:
    return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]


GAP = 2
FLEX_MIN = 24
"""Cells a cut column keeps, as long as other columns can go instead."""


def _draw(
    headers: list[str], rows: list[list[Cell]], *, flex: str, drop: Sequence[str], width: int | None, indent: int = 0
) -> None:
    """Aligned columns; ``width`` None means as wide as they are. A column without anything in it is left out."""
    from rich.cells import cell_len
    from rich.text import Text

    shown = [[clean(cell.short if cell.short is not None else cell.text) for cell in row] for row in rows]
    widths = [max(map(cell_len, (header, *column))) for header, column in zip(headers, zip(*shown, strict=True), strict=True)]
    kept = [i for i in range(len(headers)) if any(row[i] for row in shown)]
    if width is not None:
        kept = _fit(headers, widths, kept, flex=flex, drop=drop, width=width - indent)
    for style, line in [("bold", [Cell(header) for header in headers]), *(("", row) for row in rows)]:
        text = Text(" " * indent)
        for place, i in enumerate(kept):
            cell = line[i]
            one = Text(clean(cell.short if cell.short is not None else cell.text), style=style or cell.style)
            last = place == len(kept) - 1
            one.truncate(widths[i], overflow="ellipsis", pad=not last)
            text.append_text(one).append("" if last else " " * GAP)
        console().print(text)


def _fit(
    headers: Sequence[str], widths: list[int], kept: list[int], *, flex: str, drop: Sequence[str], width: int
) -> list[int]:
    """The columns that stay, with their ``widths`` cut so that a line is no wider than ``width``."""

    def excess() -> int:
        return sum(widths[i] for i in kept) + GAP * (len(kept) - 1) - width

    soft = headers.index(flex) if flex in headers else -1
    for name in drop:
        spare = max(0, widths[soft] - FLEX_MIN) if soft in kept else 0
        if excess() <= spare:
            break
        kept = [i for i in kept if headers[i] != name]
    while kept and (over := excess()) > 0:
        victim = soft if soft in kept and widths[soft] > FLEX_MIN else max(kept, key=lambda i: widths[i])
        least = FLEX_MIN if victim == soft and widths[soft] > FLEX_MIN else 1
        if widths[victim] <= 1:
            break
        widths[victim] = max(least, widths[victim] - (over if victim == soft and least > 1 else 1))
    return kept


def facts(pairs: Iterable[tuple[str, Value]]) -> None:
    """Labelled values, one a line; empty ones are left out."""
    shown = [(label, value if isinstance(value, Cell) else Cell(value)) for label, value in pairs]
    shown = [(label, cell) for label, cell in shown if cell.text not in (None, "", [])]
    width = max((len(label) for label, _ in shown), default=0)
    for label, cell in shown:
        for place, line in enumerate(_wrapped(clean(cell.text), width + GAP)):
            say(Cell(f"{label if place == 0 else '':<{width + GAP}}", "dim"), Cell(line, cell.style))


def _wrapped(text: str, indent: int) -> list[str]:
    """Lines that fit beside a label on a terminal; elsewhere one."""
    if not is_terminal():
        return [text]
    return textwrap.wrap(text, max(FLEX_MIN, console().width - indent), break_on_hyphens=False) or [text]


def heading(text: str) -> None:
    """The title of a section."""
    say("")
    say(Cell(text, "bold"))


def document(value: Any, *, line: bool = False) -> None:
    """JSON on standard output; ``line`` keeps it on one line, for streams."""
    sys.stdout.write(json.dumps(value, indent=None if line else 2) + "\n")
    sys.stdout.flush()


def note(*parts: Value) -> None:
    """One line beside the answer: worth knowing, nothing a program reads."""
    say(Cell("note: ", "yellow"), *parts, stderr=True)


_SIZES = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def size(count: int) -> str:
    """Bytes as people read them."""
    for unit, length in _SIZES:
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"


def more(cursor: str | None) -> None:
    """Say how to see the next page."""
    if cursor is not None:
        say(f"more: repeat with --cursor {cursor}", stderr=True)
