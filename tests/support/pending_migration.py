"""``python -m tests.support.pending_migration SCHEMA PROGRAM ARGUMENTS…``: the product as a newer version, with a migration more.

``SCHEMA`` is a directory like ``hub/store/schema``; :func:`newer_schema` makes one. The tests alone start anything this way.
"""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

from hub.store import migrations

SLOW = """-- Touches each row, as a migration of a large store does.
CREATE TABLE carried (n INTEGER PRIMARY KEY, title TEXT NOT NULL, digest TEXT NOT NULL) STRICT;
INSERT INTO carried SELECT n, title, hex(randomblob(200)) FROM task;
CREATE INDEX carried_by_digest ON carried (digest);
UPDATE task SET title = title || ' (carried over)';
"""


def newer_schema(root: Path) -> Path:
    """A copy of the schema with one migration more; returns what goes in place of the package ``hub.store``."""
    shutil.copytree(Path(migrations.__file__).parent / "schema", root / "schema")
    (root / "schema" / "9000_carried.sql").write_text(SLOW, "utf-8")
    return root


if __name__ == "__main__":
    place, program, *arguments = sys.argv[1:]
    migrations.files = lambda _package: Path(place)  # type: ignore[assignment, attr-defined]
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)
