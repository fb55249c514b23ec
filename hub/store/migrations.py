"""Bringing a store's schema forward: numbered files, each in one transaction, after a copy of what was there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

from hub.store.base import StoreUnusable


@cache
def schema_files() -> tuple[str, ...]:
    """The migrations, in their order."""
    found = (file.name for file in files("hub.store").joinpath("schema").iterdir())
    return tuple(sorted(name for name in found if name.endswith(".sql")))


def newest_schema() -> int:
    """The number of the schema this version knows."""
    return int(schema_files()[-1][:4])


def migrate(connection: sqlite3.Connection, path: Path, before: Callable[[sqlite3.Connection], object]) -> None:
    """Bring the schema forward, each numbered file in one transaction; a newer schema than ours is refused.

    ``before`` is called with the connection when there is something to bring forward, and keeps a copy of what was there.
    """
    found = next(iter(connection.execute("PRAGMA user_version").fetchone().values()))
    newest = newest_schema()
    if found > newest:
        raise StoreUnusable(
            f"{path} has schema {found}, this hub knows up to {newest}: run the newer version, or restore a backup"
        )
    if 0 < found < newest:
        before(connection)
    for name in schema_files():
        number = int(name[:4])
        if number <= found:
            continue
        script = files("hub.store").joinpath("schema", name).read_text("utf-8")
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _split(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _split(script: str) -> list[str]:
    """Statements of a migration one by one: ``executescript`` would commit the transaction around them."""
    found, current = [], ""
    for line in script.splitlines():
        current += line + "\n"
        if sqlite3.complete_statement(current):
            found.append(current)
            current = ""
    return found
