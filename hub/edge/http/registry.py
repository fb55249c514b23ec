"""Edits of projects and repositories, told to the scheduler in the order in which they were committed."""

from __future__ import annotations

import asyncio
from typing import Annotated, TypeVar

from fastapi import Header

from hub.core.commands import Registry
from hub.core.errors import Refused
from hub.edge.http.doors import Conductor
from hub.store import projects, repositories
from hub.store.base import Operation, Reader

T = TypeVar("T")


class Registrar:
    """Runs one edit at a time.

    The lock prevents a race: of two edits that commit one after the other, the first could read the rows before the second
    commits and tell the scheduler after it, which would then hold the older truth until the next edit.
    """

    def __init__(self, conductor: Conductor, reader: Reader) -> None:
        self._conductor = conductor
        self._reader = reader
        self._lock = asyncio.Lock()

    async def edit(self, actor: str, operation: Operation[T]) -> T:
        """Commit an edit, then tell the scheduler what is registered now. A crash in between is healed by the rebuild."""
        async with self._lock:
            done = await self._conductor.record(operation)
            known = await projects.every(self._reader)
            repos = await repositories.every(self._reader)
            await self._conductor.do(
                Registry(
                    actor=actor,
                    projects={project.id: (project.paused, project.dispatch) for project in known},
                    repos={repo.name: repo.paused for repo in repos},
                )
            )
            return done


IfMatch = Annotated[str | None, Header(description="the version that was read")]


def version_read(if_match: str | None, in_body: int | None) -> int:
    """The version an edit was made on; refused 428 if it names none, so that nobody's edit is overwritten unseen."""
    if if_match is None:
        if in_body is None:
            raise Refused(
                428, "version_required", "an update names the version it read", hint="send If-Match or the field version"
            )
        return in_body
    tag = if_match.strip().removeprefix("W/").strip('"')
    if not tag.isdecimal() or len(tag) > 15:
        raise Refused(422, "invalid", "If-Match takes the version as it was shown", hint='If-Match: "3"')
    return int(tag)
