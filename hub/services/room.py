"""Whether there is room for what people ask: submissions end before the disk does, so that work under way can be written down.

Results, renewals, accepts, cancels and all other commands are never asked for room: they are written from the reserve. A body that a
sidecar stores takes at most the half of it, so that a few large ones cannot keep a thousand small ones out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import orjson

from hub.core.commands import Command, Submit
from hub.core.errors import Refused, StoreFull
from hub.core.rows import EventRow
from hub.ids import SpaceState, TaskType
from hub.services.ports import Conductor
from hub.store.base import Operation, Tx
from hub.store.reserve import MEBIBYTE, Reserve, Space
from hub.wire.finding import Finding, fail, ok, warn

RETRY_S = 10
LOOK_S = 5.0
"""How often the disk is looked at while nobody is refused."""


@dataclass(slots=True)
class Room:
    """The judge of one store's disk; :meth:`look` is a chore."""

    reserve: Reserve
    blob_quota_bytes: int | None = None
    blob_bytes: int = field(default=0, init=False)
    """All blobs as last counted, and what was admitted since."""
    _told: SpaceState = field(default=SpaceState.AMPLE, init=False)

    def admit(self, command: Command) -> None:
        """Raises Refused 507 for a submission by people while there is no room; the hub's own checks of merges go on."""
        if isinstance(command, Submit) and any(task.type is not TaskType.CHECK for task in command.tasks):
            self.admit_growth()

    def admit_growth(self) -> None:
        """Raises Refused 507 while there is no room. A refusal looks at the disk again, acceptance costs nothing."""
        if self.reserve.state is not SpaceState.AMPLE and (found := self.reserve.look()).state is not SpaceState.AMPLE:
            raise _refusal(found)

    def admit_body(self, size_bytes: int) -> None:
        """Raises Refused 507 for a body beyond the quota of blobs, or that would take more than the half of what is kept for agents."""
        if self.blob_quota_bytes is not None and self.blob_bytes + size_bytes > self.blob_quota_bytes:
            said = f"blobs have {self.blob_bytes / MEBIBYTE:,.0f} of {self.blob_quota_bytes / MEBIBYTE:,.0f} MiB"
            cure = "raise storage.blob_quota_mb, or let go of old tasks: agentcom db prune --dry-run says what would go"
            raise Refused(507, "blob_quota", said, hint=cure, retry_after_s=RETRY_S)
        if self.reserve.state is not SpaceState.AMPLE:
            found = self.reserve.look()
            if found.state is not SpaceState.AMPLE and found.free_bytes - size_bytes < found.size_bytes // 2:
                raise _refusal(found)
        self.blob_bytes += size_bytes

    def degraded(self) -> list[str]:
        """What a ready hub does not do just now, as the codes it refuses with."""
        return [] if self.reserve.state is SpaceState.AMPLE else [StoreFull.code]

    async def look(self, conductor: Conductor) -> None:
        """Look at the disk, make the reserve again where there is room, and put a change into the audit."""
        found = await asyncio.to_thread(self.reserve.keep)
        if found.state is not self._told:
            was, self._told = self._told, found.state
            await conductor.record(_note(was, found))


def judge_space(found: Space) -> Finding:
    """The room as it is."""
    free = f"{found.free_bytes / MEBIBYTE:,.0f} MiB free"
    if not found.size_bytes:
        return warn("reserve", f"{free}, and nothing is kept for agents at work", "set storage.reserve_mb, and restart the hub")
    cure = "free some space: agentcom db health says what the store takes; submissions are taken again by themselves"
    match found.state:
        case SpaceState.AMPLE:
            return ok("reserve", f"{found.held_bytes / MEBIBYTE:,.0f} MiB kept for agents at work, {free}")
        case SpaceState.LOW:
            return fail("reserve", f"{free}: submissions are refused, agents at work go on", cure)
        case SpaceState.FULL:
            return fail("reserve", f"{free}, and the reserve is given up: submissions are refused, results still land", cure)


def _refusal(found: Space) -> Refused:
    said = f"the hub's disk is nearly full ({found.free_bytes / MEBIBYTE:,.0f} MiB free): nothing new is taken; work under way goes on"
    return Refused(507, StoreFull.code, said, hint=StoreFull.hint, retry_after_s=RETRY_S)


def _note(was: SpaceState, found: Space) -> Operation[None]:
    data = orjson.dumps({"free_bytes": found.free_bytes, "reserve_bytes": found.held_bytes}).decode()

    def operation(tx: Tx) -> None:
        tx.emit(EventRow(tx.now, "hub.space", "hub", from_state=was, to_state=found.state, data=data))

    return operation
