"""Edits of projects and repositories, told to the scheduler in the order in which they were committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Header
from pydantic import BeforeValidator, WithJsonSchema

from hub.core.commands import Registry
from hub.core.errors import Refused
from hub.edge.http.doors import Conductor
from hub.edge.http.fields import Out
from hub.store import projects, repositories
from hub.store.base import Operation, Reader
from hub.store.versions import StaleVersion

T = TypeVar("T")
D = TypeVar("D", bound=Out)


class Registrar:
    """Runs one edit at a time.

    The lock prevents a race: of two edits that commit one after the other, the first could read the rows before the second
    commits and tell the scheduler after it, which would then hold the older truth until the next edit.
    """

    def __init__(self, conductor: Conductor, reader: Reader) -> None:
        self._conductor = conductor
        self._reader = reader
        self._lock = asyncio.Lock()

    async def edit(self, actor: str, operation: Operation[T], show: Callable[[Any], D]) -> D:
        """Commit an edit, then tell the scheduler what is registered now: the document of what it is now.

        A crash in between is healed by the rebuild. Refused 412 with the document of the present record, for an edit of an
        older version.
        """
        async with self._lock:
            try:
                done = await self._conductor.record(operation)
            except StaleVersion as stale:
                stale.current = show(stale.current)
                raise
            known = await projects.every(self._reader)
            repos = await repositories.every(self._reader)
            await self._conductor.do(
                Registry(
                    actor=actor,
                    projects={project.id: (project.paused, project.dispatch) for project in known},
                    repos={repo.name: repo.paused for repo in repos},
                )
            )
            return show(done)


def _tagged(text: str) -> int:
    tag = text.strip().removeprefix("W/").strip('"')
    if not (tag.isascii() and tag.isdecimal()) or len(tag) > 15:
        raise ValueError('it takes the version as it was shown, like If-Match: "3"')
    return int(tag)


IfMatch = Annotated[
    int | None,
    BeforeValidator(lambda text: _tagged(text) if isinstance(text, str) else text),
    WithJsonSchema({"type": "string", "examples": ['"3"']}),
    Header(description="the version that was read"),
]


def version_read(if_match: int | None, in_body: int | None) -> int:
    """The version an edit was made on; refused 428 if it names none, so that nobody's edit is overwritten unseen."""
    found = in_body if if_match is None else if_match
    if found is None:
        raise Refused(428, "version_required", "an update names the version it read", hint="send If-Match or the field version")
    return found
