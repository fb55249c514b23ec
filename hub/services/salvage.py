"""What people do with salvaged work: look at it with the remote's help, adopt it, drop it.

The rules are the scheduler's (``hub.core.adopting``). What only the forge knows is found out here: whether the commits are still
there, and what they change. Nothing is adopted that cannot be named by commit, and nothing is merged here: the gatekeeper judges an
adopted change like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from hub.core.commands import AdoptSalvage, DropSalvage, Work
from hub.core.decision import TaskAnswer
from hub.core.errors import Refused
from hub.core.risk import Measured
from hub.forge.base import Forge, ForgeError, Remote, Unusable
from hub.ids import LeaseEpoch, SalvageState, TaskId
from hub.ids import salvage_ref as name_of
from hub.services.ports import Conductor
from hub.store import salvage
from hub.store.base import Reader
from hub.store.salvage import SalvageRecord
from hub.wire.git import assignment_branch, salvage_branch

LOOK_S = 10.0
"""How long the remote may take to answer somebody who only looks."""
GONE = "the next attempt is told what it said; nothing is left to apply"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the forge knows of kept commits. ``why`` says in words why there are none to see, if there are none."""

    work: Work | None = None
    measured: Measured | None = None
    why: str = ""


class Salvage:
    """``forges`` by the repository's ``forge``."""

    def __init__(self, conductor: Conductor, reader: Reader, forges: Mapping[str, Forge]) -> None:
        self._conductor = conductor
        self._reader = reader
        self._forges = forges

    async def look(self, kept: SalvageRecord) -> Sight:
        """The commits of a record and what they change; an answer also when the remote gives none."""
        try:
            async with asyncio.timeout(LOOK_S):
                found = await self._work(kept)
                if found is None:
                    return Sight(why="it carries no commits")
                forge, remote = self._forge(kept)
                return Sight(work=found, measured=await forge.measure(remote, found.base_sha, found.head_sha))
        except TimeoutError:
            return Sight(why=f"the remote gave no answer within {LOOK_S:g} s")
        except (ForgeError, Refused) as fault:
            return Sight(why=str(fault))

    async def apply(self, task: TaskId, lease_epoch: LeaseEpoch, *, by: str, force: bool = False) -> TaskAnswer:
        """Adopt what was kept of a lease. Raises Refused as :func:`hub.core.adopting.adopt`, 409 ``work_gone``, and ForgeError."""
        kept = await self._find(task, lease_epoch)
        work = await self._work(kept) if kept.state is SalvageState.OPEN else None
        command = AdoptSalvage(actor=by, n=task, lease_epoch=lease_epoch, sha256=kept.sha256, work=work, force=force)
        done = await self._conductor.do(command)
        assert isinstance(done, TaskAnswer)
        return done

    async def drop(self, task: TaskId, lease_epoch: LeaseEpoch, *, by: str, reason: str) -> None:
        """Close a record. Raises Refused: 404 ``unknown_salvage``, 409 ``applied``."""
        await self._conductor.do(DropSalvage(actor=by, n=task, lease_epoch=lease_epoch, reason=reason))

    async def _find(self, task: TaskId, lease_epoch: LeaseEpoch) -> SalvageRecord:
        kept = await salvage.find(self._reader, task, lease_epoch)
        if kept is None:
            name = name_of(task, lease_epoch)
            raise Refused(404, "unknown_salvage", f"nothing is kept of {name}", hint="agentcom salvage list")
        return kept

    def _forge(self, kept: SalvageRecord) -> tuple[Forge, Remote]:
        assert kept.forge is not None
        assert kept.repo is not None
        assert kept.url is not None
        return self._forges[kept.forge], Remote(name=kept.repo, url=kept.url)

    async def _work(self, kept: SalvageRecord) -> Work | None:
        """The kept commits as the remote has them now, None without any; only branches that carry this lease's fence count.

        What was committed is at the recorded head. What was left uncommitted is wherever its own branch is: the sidecar made that
        commit, and it is named from here on.
        """
        if kept.forge is None:
            return None
        if kept.head_sha is not None and kept.branch == assignment_branch(kept.task, kept.lease_epoch):
            return await self._fetched(kept, kept.branch, kept.head_sha)
        if kept.salvage_ref is not None and kept.salvage_ref == salvage_branch(kept.task, kept.lease_epoch):
            return await self._fetched(kept, kept.salvage_ref, None)
        return None

    async def _fetched(self, kept: SalvageRecord, branch: str, head: str | None) -> Work:
        forge, remote = self._forge(kept)
        gone = Refused(409, "work_gone", f"{branch} is not at {remote.url} any more", hint=GONE)
        if head is None or not await forge.has(remote, head):
            tip = await forge.fetch(remote, branch)
            if tip is None:
                raise gone
            head = head or tip
        if not await forge.has(remote, head):
            raise gone
        return Work(branch=branch, base_sha=await self._base(kept, forge, remote, head), head_sha=head)

    async def _base(self, kept: SalvageRecord, forge: Forge, remote: Remote, head: str) -> str:
        """The base it was made from; where that was not said, where it parts from the base branch."""
        with suppress(Unusable):
            if kept.base_sha is not None and await forge.contains(remote, head, kept.base_sha):
                return kept.base_sha
        base_now = await forge.fetch(remote, kept.base or "")
        bases = await forge.merge_bases(remote, base_now, head) if base_now is not None else ()
        if not bases:
            raise Refused(409, "work_gone", f"{head[:12]} shares no history with {kept.base}", hint=GONE)
        return bases[0]
