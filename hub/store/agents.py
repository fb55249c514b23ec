"""Agents as they are remembered between their sessions. What is live comes from the scheduler; the doors merge both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Json

from hub.ids import AgentId, AgentState, LeaseEpoch, TaskId, TaskState
from hub.store.base import Reader
from hub.store.decode import decoder

TRANSITION_ROWS = 50
ATTEMPT_ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """What the hub knows of an agent. Times are microseconds UTC."""

    id: AgentId
    name: str
    capabilities: Json[tuple[str, ...]]
    projects: Json[tuple[str, ...]]
    runtimes: Json[list[dict[str, Any]]]
    host: Json[dict[str, Any]]
    paused: bool
    quiet: bool
    quarantined_until: int | None
    quarantined_at: int | None
    quarantine_cause: str | None
    quarantine_level: int
    strikes: str
    note: str
    first_seen_at: int
    last_seen_at: int
    removed_at: int | None
    connected_at: int | None
    """Start of its newest session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionRecord:
    """One step of an agent's state machine, and why."""

    at: int
    from_state: AgentState
    to_state: AgentState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAttempt:
    """A task this agent was given."""

    n: TaskId
    lease_epoch: LeaseEpoch
    title: str
    state: TaskState
    assigned_at: int
    accepted_at: int | None
    ended_at: int | None
    outcome: str | None
    verdict: str | None


_agent = decoder(AgentRecord)
_transition = decoder(TransitionRecord)
_attempt = decoder(AgentAttempt)


async def page(reader: Reader, *, after: str = "", limit: int = 100) -> list[AgentRecord]:
    """At most ``limit`` agents behind ``after``, by id."""
    return [_agent(row) for row in await reader.all("agent_page", after=after, limit=limit)]


async def find(reader: Reader, agent: AgentId) -> AgentRecord | None:
    """One agent, or None."""
    row = await reader.one("agent_by_id", id=agent)
    return _agent(row) if row is not None else None


async def transitions(reader: Reader, agent: AgentId) -> list[TransitionRecord]:
    """Its latest changes of state, newest first."""
    return [_transition(row) for row in await reader.all("agent_transitions", id=agent, limit=TRANSITION_ROWS)]


async def attempts(reader: Reader, agent: AgentId) -> list[AgentAttempt]:
    """The latest tasks it was given, newest first."""
    return [_attempt(row) for row in await reader.all("agent_attempts", id=agent, limit=ATTEMPT_ROWS)]
