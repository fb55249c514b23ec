"""Named SQL: every statement of the store lives in ``queries/*.sql`` under ``-- name: something`` and is called by that name."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def statements() -> Mapping[str, str]:
    """All named statements; a name used twice is a defect and raises ValueError at start."""
    found: dict[str, str] = {}
    for file in sorted(files("hub.store").joinpath("queries").iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        for block in file.read_text("utf-8").split("-- name:")[1:]:
            head, _, body = block.partition("\n")
            name = head.strip()
            if name in found:
                raise ValueError(f"query {name!r} is defined twice")
            found[name] = body.strip().rstrip(";")
    return found


def as_dict(cursor: sqlite3.Cursor, row: Sequence[Any]) -> dict[str, Any]:
    """A row factory: rows by the names of their columns, as all of the store reads them."""
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}
