"""The composition root of a hub that does not run: its backups, looked at and gone back to."""

from __future__ import annotations

from typing import Any

from hub.core.errors import HubError
from hub.first_start import now_us
from hub.settings import HubSettings
from hub.store.backups import Backup, account_of
from hub.store.manifest import moment
from hub.store.restore import restore as put_back
from hub.upkeep import shelf_of

_MOMENTS = ("created_at", "verified_at")


def shelved(settings: HubSettings) -> list[dict[str, Any]]:
    """The backups, newest first, as a hub would tell them."""
    return [document_of(backup) for backup in shelf_of(settings).every()]


def verified(settings: HubSettings, name: str) -> dict[str, Any]:
    """One backup, checked in full, as a hub would tell it; raises UnknownBackup."""
    shelf = shelf_of(settings)
    return document_of(shelf.verify(shelf.find(name), now_us()))


def restore(settings: HubSettings, name: str | None) -> dict[str, Any]:
    """Put a backup (None: the newest good one) in the place of the store; what was done. Raises HubError, with everything as it was."""
    shelf = shelf_of(settings)
    backup = shelf.find(name) if name is not None else shelf.newest()
    if backup is None:
        raise HubError(f"there is no backup in {shelf.dir}")
    return put_back(shelf.store, backup, now_us())


def document_of(backup: Backup) -> dict[str, Any]:
    """A backup with its moments as text."""
    found = account_of(backup)
    return found | {name: moment(found[name]) for name in _MOMENTS if found[name] is not None}
