"""Examines the running hub: every room tells what it knows about itself, and one that cannot is a finding, too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from hub.core.agent import Agent
from hub.core.errors import HubError
from hub.wire.finding import Finding, fail, ok, warn

Examine = Callable[[], Awaitable[Sequence[Finding]]]
Mend = Callable[[], Awaitable[None]]

SHOWN = 5
"""Agents named in one finding."""

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


def judge_agents(quarantined: Sequence[Agent]) -> Finding:
    """Agents that spoil what they are given need a person: their machine is wrong, not the tasks."""
    if not quarantined:
        return ok("agents", "none is quarantined")
    shown = ", ".join(f"{agent.id} ({agent.quarantine_cause})" for agent in quarantined[:SHOWN])
    more = f" and {len(quarantined) - SHOWN} more" if len(quarantined) > SHOWN else ""
    cure = f"agentcom agent show {quarantined[0].id}; correct its machine, then agentcom agent resume {quarantined[0].id}"
    return warn("agents", f"quarantined: {shown}{more}", cure)
