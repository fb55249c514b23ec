"""What an agent writes down, on a disk that may be slow or full: nothing is lost, nothing that cannot be written down is begun."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from hub.wire.frames import Assign, Decline
from sidecar.core.records import JournalRecord
from sidecar.journal import Journal, JournalFull

RETRY_S = 1.0
"""How often a record that found no room is tried again."""
DECLINE_MS = 30_000
DISK_FULL = "disk_full"
"""The code of a decline that says nothing against the agent."""


class Writing:
    """Writes the records of one agent, in the order in which they come. ``has_room``: whether anything new may be begun."""

    def __init__(self, journal: Journal, has_room: Callable[[], bool], agent: str) -> None:
        self._journal = journal
        self._has_room = has_room
        self._waits = False
        self._log = structlog.get_logger(__name__).bind(agent=agent)

    async def write(self, record: JournalRecord) -> None:
        """Make a record durable, off the loop: a disk may take its time, the beat must not wait for it.

        Without room it waits, and everything that follows from the record with it; beats and deadlines do not.
        """
        while True:
            try:
                await asyncio.to_thread(self._journal.append, record)
            except JournalFull as full:
                if not self._waits:
                    self._log.error(
                        "disk_full", code=full.code, reason=str(full), note="free some space; nothing is lost meanwhile"
                    )
                self._waits = True
                await asyncio.sleep(RETRY_S)
            else:
                if self._waits:
                    self._log.info("disk_has_room")
                self._waits = False
                return

    def refusal(self, frame: Assign) -> Decline | None:
        """The answer to an offer of work that could not be written down."""
        if not self._waits and self._has_room():
            return None
        self._log.warning("work_declined", task=frame.task, code=DISK_FULL)
        return Decline(re=frame.id, task=frame.task, lease_epoch=frame.lease_epoch, code=DISK_FULL, retry_after_ms=DECLINE_MS)
