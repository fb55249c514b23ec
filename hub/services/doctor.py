"""Examines the running hub: every room tells what it knows about itself, and one that cannot is a finding, too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from hub.core.errors import HubError
from hub.wire.finding import Finding, fail

Examine = Callable[[], Awaitable[Sequence[Finding]]]
Mend = Callable[[], Awaitable[None]]

log = structlog.get_logger("doctor")


@dataclass(frozen=True, slots=True)
class Doctor:
    """``examiners`` by name, and ``menders`` that do what findings call fixable. One examination at a time."""

    examiners: Mapping[str, Examine]
    menders: Sequence[Mend] = ()
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def examine(self) -> list[Finding]:
        """All findings, in the order of the examiners."""
        async with self._turn:
            return await self._examine()

    async def mend(self) -> list[Finding]:
        """Do what is safe, and examine again."""
        async with self._turn:
            for mender in self.menders:
                await mender()
            return await self._examine()

    async def _examine(self) -> list[Finding]:
        found: list[Finding] = []
        for name, examiner in self.examiners.items():
            try:
                found += await examiner()
            except (HubError, OSError) as fault:
                log.warning("examination_failed", check=name, error=str(fault))
                found.append(fail(name, f"could not be examined: {fault}", "see the hub's log"))
        return found
