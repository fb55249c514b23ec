"""Bringing a store's schema forward: numbered files, each in one transaction, after a copy of what was there."""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from pathlib import Path

import structlog

from hub.store.base import StoreUnusable

log = structlog.get_logger("store")


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema forward, each numbered file in one transaction; a newer schema than ours is refused."""
    found = next(iter(connection.execute("PRAGMA user_version").fetchone().values()))
    known = sorted(file.name for file in files("hub.store").joinpath("schema").iterdir() if file.name.endswith(".sql"))
    newest = int(known[-1][:4])
    if found > newest:
        raise StoreUnusable(
            f"{path} has schema {found}, this hub knows up to {newest}: run the newer version, or restore a backup"
        )
    if 0 < found < newest:
        backup = path.with_name(f"{path.name}.before-{newest:04d}")
        connection.execute("VACUUM INTO ?", (str(backup),))
        backup.chmod(0o600)
        log.info("backup_before_migration", file=str(backup))
    for name in known:
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
