"""The account that makes a directory a backup: what is in it, of which hub and moment, and when it was last found whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hub.core.errors import HubError
from hub.ids import SECOND, BackupReason, Micros
from hub.store.files import sync_directory

MANIFEST = "manifest.json"
STORE = "hub.db"
KEY = "hub.key"
"""Names within a backup, the same as in a data directory."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_READ_BYTES = 1 << 20
_AGES = (("days", 86_400), ("hours", 3600), ("minutes", 60), ("seconds", 1))


class ManifestUnusable(HubError):
    """A directory that is no backup: without an account that can be read, nothing in it can be trusted."""

    code = "no_backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One backup. Moments are microseconds UTC; ``schema`` is the number of its last migration, ``version`` that of the software.

    ``seq`` is its last event and ``n`` its highest task; ``tasks`` counts them by state. ``sha256`` is by file; ``bytes`` is the
    store's. ``verified_at`` is when the store was last opened and checked in full.
    """

    created_at: Micros
    reason: BackupReason
    hub_id: str
    hub_epoch: int
    schema: int
    version: str
    seq: int
    n: int
    tasks: Mapping[str, int]
    bytes: int
    sha256: Mapping[str, str]
    verified_at: Micros


def write(directory: Path, manifest: Manifest) -> None:
    """Write (or replace) the account of a backup; whole or not at all."""
    document = asdict(manifest) | {"created_at": moment(manifest.created_at), "verified_at": moment(manifest.verified_at)}
    fresh = directory / f".{MANIFEST}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(document, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(directory / MANIFEST)
    sync_directory(directory)


def read(directory: Path) -> Manifest:
    """The account of a backup; raises ManifestUnusable, which says what is wrong with it."""
    try:
        return _parse(json.loads((directory / MANIFEST).read_text("utf-8")))
    except FileNotFoundError:
        raise ManifestUnusable(f"it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise ManifestUnusable(f"its {MANIFEST} cannot be read: {type(fault).__name__}: {fault}") from fault


def _parse(document: dict[str, Any]) -> Manifest:
    told = {name: document[name] for name in Manifest.__slots__}
    told["reason"] = BackupReason(document["reason"])
    told["created_at"], told["verified_at"] = micros(document["created_at"]), micros(document["verified_at"])
    made = Manifest(**told)
    numbers = (made.hub_epoch, made.schema, made.seq, made.n, made.bytes, *made.tasks.values())
    names = (made.hub_id, made.version, *made.sha256.values(), made.sha256[STORE])
    if not all(isinstance(number, int) for number in numbers) or not all(isinstance(name, str) for name in names):
        raise TypeError("a value is of another kind")
    if unknown := made.sha256.keys() - {STORE, KEY}:
        raise ValueError(f"it names files that are none of a backup: {sorted(unknown)[:3]}")
    return made


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            found.update(chunk)
    return found.hexdigest()


def moment(at: int) -> str:
    """Microseconds UTC as RFC 3339."""
    return (_EPOCH + timedelta(microseconds=at)).isoformat().replace("+00:00", "Z")


def span(seconds: float) -> str:
    """A length of time in its largest unit of which there are two."""
    unit, length = next((unit for unit in _AGES if seconds >= 2 * unit[1]), _AGES[-1])
    return f"{int(seconds // length)} {unit}"


def micros(text: str) -> Micros:
    """RFC 3339 as microseconds UTC; raises ValueError."""
    since = datetime.fromisoformat(text) - _EPOCH
    return Micros((since.days * 86_400 + since.seconds) * SECOND + since.microseconds)
