"""Agents: list, show, pause, resume, release, remove. What is remembered comes from the store, what is live from the scheduler."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BeforeValidator, Field

from hub.core.blame import FOREVER, loaded
from hub.core.commands import PauseAgent, ReleaseAgent, RemoveAgent, ResumeAgent
from hub.core.errors import Refused
from hub.edge.http.access import READS, Hub, Operator
from hub.edge.http.doors import Doors, Presence
from hub.edge.http.fields import AgentName, Filters, Moment, Out, TaskId_, rfc3339, words
from hub.edge.http.reading import JsonRoute
from hub.ids import AgentId, AgentState, LeaseEpoch, StrikeOf, TaskState, task_ref
from hub.store import agents
from hub.store.agents import AgentRecord

router = APIRouter(prefix="/agents", tags=["agents"], route_class=JsonRoute)


class AgentOut(Out):
    """An agent.

    ``flags`` beside the state: reconnecting, paused, quiet, removed, quarantined, on_trial (a quarantine is over, and the
    first failure begins the next). ``quarantined_until`` is null while quarantined when only a person ends it.
    ``quarantine_cause`` is the code that began it.
    """

    id: str
    name: str
    state: AgentState
    flags: list[str]
    task: str | None
    note: str
    capabilities: list[str]
    projects: list[str]
    runtimes: list[dict[str, Any]]
    host: dict[str, Any]
    quarantined_until: Moment | None
    quarantined_at: Moment | None
    quarantine_cause: str | None
    first_seen_at: Moment
    last_seen_at: Moment
    connected_at: Moment | None


class AgentPage(Out):
    """By id. ``next`` is the cursor of the following page."""

    agents: list[AgentOut]
    next: str | None


class TransitionOut(Out):
    """One step of the agent's state machine."""

    at: Moment
    from_state: AgentState
    to_state: AgentState
    reason: str


class AgentAttemptOut(Out):
    """A task this agent was given, and how that went."""

    id: TaskId_ = Field(validation_alias="n")
    title: str
    state: TaskState
    lease_epoch: LeaseEpoch
    assigned_at: Moment
    accepted_at: Moment | None
    ended_at: Moment | None
    outcome: str | None
    verdict: str | None


class StrikeOut(Out):
    """One reason against an agent: an offer it did not take (``of`` offer) or a run that ended badly (run)."""

    at: Moment
    of: StrikeOf
    task: TaskId_
    lease_epoch: LeaseEpoch
    cause: str


class AgentDetail(AgentOut):
    """An agent with what speaks against it since its last sound run, its latest transitions and tasks; all newest first."""

    strikes: list[StrikeOut]
    transitions: list[TransitionOut]
    attempts: list[AgentAttemptOut]


class AgentFilters(Filters):
    """Which agents, and which page of them."""

    state: Annotated[AgentState, BeforeValidator(words(AgentState))] | None = None
    cursor: AgentName | None = None
    limit: int = Field(default=100, ge=1, le=500)


@router.get("", dependencies=[READS])
async def listing(hub: Hub, asked: Annotated[AgentFilters, Query()]) -> AgentPage:
    """Agents by id. With ``state``, a page can be short; the list ends when ``next`` is null."""
    records = await agents.page(hub.reader, after=asked.cursor or "", limit=asked.limit)
    live = _live(hub)
    shown = [AgentOut(**_merged(record, live.get(record.id))) for record in records]
    return AgentPage(
        agents=[agent for agent in shown if asked.state in (None, agent.state)],
        next=records[-1].id if len(records) == asked.limit else None,
    )


@router.get("/{agent}", dependencies=[READS])
async def show(agent: AgentName, hub: Hub) -> AgentDetail:
    """One agent."""
    record = await agents.find(hub.reader, agent)
    if record is None:
        raise Refused(404, "unknown_agent", f"there is no agent {agent!r}", hint="agentcom agent list")
    live = _live(hub).get(agent)
    strikes = live.strikes if live is not None else loaded(record.strikes)
    transitions = await agents.transitions(hub.reader, agent)
    attempts = await agents.attempts(hub.reader, agent)
    return AgentDetail(
        **_merged(record, live),
        strikes=[StrikeOut.model_validate(strike) for strike in reversed(strikes)],
        transitions=[TransitionOut.model_validate(step) for step in transitions],
        attempts=[AgentAttemptOut.model_validate(attempt) for attempt in attempts],
    )


@router.post("/{agent}/pause")
async def pause(agent: AgentName, caller: Operator, hub: Hub) -> AgentDetail:
    """No new work for this agent; what it does goes on."""
    await hub.conductor.do(PauseAgent(actor=caller.name, agent=agent))
    return await show(agent, hub)


@router.post("/{agent}/resume")
async def resume(agent: AgentName, caller: Operator, hub: Hub) -> AgentDetail:
    """End a pause and a quarantine."""
    await hub.conductor.do(ResumeAgent(actor=caller.name, agent=agent))
    return await show(agent, hub)


@router.post("/{agent}/release")
async def release(agent: AgentName, caller: Operator, hub: Hub) -> AgentDetail:
    """Its machine is gone for good: its task goes to others at once, and another installation may take its name."""
    await hub.conductor.do(ReleaseAgent(actor=caller.name, agent=agent))
    return await show(agent, hub)


@router.post("/{agent}/remove")
async def remove(agent: AgentName, caller: Operator, hub: Hub) -> AgentDetail:
    """It is no part of this hub any more; what it did stays on record. A token given out later brings it back."""
    await hub.conductor.do(RemoveAgent(actor=caller.name, agent=agent))
    return await show(agent, hub)


def _live(hub: Doors) -> dict[AgentId, Presence]:
    return {presence.id: presence for presence in hub.conductor.scheduler.agents()}


def _merged(record: AgentRecord, live: Presence | None) -> dict[str, Any]:
    """The record under what is live; an agent the scheduler does not know is offline."""
    state = live.state if live is not None else AgentState.OFFLINE
    kept = live if live is not None else record
    until = kept.quarantined_until
    flags = {
        "reconnecting": live is not None and not live.connected and state is not AgentState.OFFLINE,
        "paused": live.paused if live is not None else record.paused,
        "quiet": live.quiet if live is not None else record.quiet,
        "quarantined": until is not None,
        "removed": record.removed_at is not None,
        "on_trial": until is None and kept.quarantine_level > 0,
    }
    return {
        "id": record.id,
        "name": record.name,
        "state": state,
        "flags": [flag for flag, up in flags.items() if up],
        "task": None if live is None or live.task is None else task_ref(live.task),
        "note": live.note if live is not None else record.note,
        "capabilities": list(record.capabilities),
        "projects": list(record.projects),
        "runtimes": record.runtimes,
        "host": record.host,
        "quarantined_until": None if until is None or until >= FOREVER else rfc3339(until),
        "quarantined_at": None if kept.quarantined_at is None else rfc3339(kept.quarantined_at),
        "quarantine_cause": kept.quarantine_cause,
        "first_seen_at": rfc3339(record.first_seen_at),
        "last_seen_at": rfc3339(live.last_seen_at if live is not None else record.last_seen_at),
        "connected_at": None if record.connected_at is None else rfc3339(record.connected_at),
    }
