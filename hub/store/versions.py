"""Edits by people: each names the version it read, so nobody's edit is silently overwritten."""

from __future__ import annotations

from hub.core.errors import Refused


class StaleVersion(Refused):
    """The record changed since it was read; ``current`` is the record as it is now, for the door to show."""

    def __init__(self, what: str, current: object, version: int, read: int) -> None:
        super().__init__(
            412,
            "stale_version",
            f"{what} is at version {version}; this edit was made on version {read}",
            hint="read it again and repeat the edit on what you find",
        )
        self.current = current
