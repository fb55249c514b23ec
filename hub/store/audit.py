"""Old events as files: compressed JSON lines beside the store, whole and on the disk before anything is deleted.

A file is named for the first and the last seq in it, and each line carries its own: what was exported twice, because a crash came between
the file and the deletion, is told apart by that. Nothing here is read by the hub again.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from pathlib import Path

import orjson

from hub.core.rows import EventRow
from hub.store.files import make_directory, sync_directory

AUDIT_DIR = "audit"
"""In the data directory."""


def export(directory: Path, events: Sequence[tuple[int, EventRow]]) -> Path:
    """Write the events to a file of their own; it is durable on return. Raises OSError, and then leaves no half of one."""
    make_directory(directory)
    path = directory / f"events-{events[0][0]:015d}-{events[-1][0]:015d}.jsonl.gz"
    fresh = path.with_suffix(".part")
    try:
        with fresh.open("wb") as file:
            fresh.chmod(0o600)
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                for seq, event in events:
                    packed.write(orjson.dumps(_document(seq, event), option=orjson.OPT_APPEND_NEWLINE))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(directory)
    return path


def _document(seq: int, event: EventRow) -> dict[str, object]:
    found: dict[str, object] = {"seq": seq, **event._asdict()}
    if event.data is not None:
        found["data"] = orjson.loads(event.data)
    return {key: value for key, value in found.items() if value is not None}
