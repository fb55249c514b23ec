"""The state of the whole house in one document."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter

from hub.edge.http.access import READS, Hub
from hub.edge.http.fields import Out
from hub.edge.http.reading import JsonRoute
from hub.ids import DAY, AgentState, Lane, TaskState
from hub.store.salvage import count_open
from hub.store.status import figures

router = APIRouter(tags=["status"], route_class=JsonRoute)


class StatusOut(Out):
    """``tasks`` live by state, ``queue`` ready by lane, ``finished_24h`` by terminal state, ``changes`` open by state.

    ``degraded`` lists the codes with which a ready hub refuses people just now.
    ``salvage_open`` counts work that was not applied and waits for a decision, up to 1 000.
    """

    version: str
    ready: bool
    checks: dict[str, bool]
    degraded: list[str]
    tasks: dict[str, int]
    queue: dict[str, int]
    finished_24h: dict[str, int]
    changes: dict[str, int]
    salvage_open: int
    agents: dict[str, int]
    feed_epoch: str
    seq: int


@router.get("/status", dependencies=[READS])
async def status(hub: Hub) -> StatusOut:
    """Counts of tasks, changes and agents."""
    scheduler = hub.conductor.scheduler
    checks = dict(hub.readiness())
    counted = await figures(hub.reader, hub.now() - DAY)
    states = scheduler.states()
    queue = scheduler.queue()
    present = Counter(agent.state for agent in scheduler.agents() if agent.removed_at is None)
    return StatusOut(
        version=hub.version,
        ready=all(checks.values()),
        checks=checks,
        degraded=list(hub.degraded()),
        tasks={state: states[state] for state in TaskState if states.get(state)},
        queue={lane: queue.get(lane, 0) for lane in Lane},
        finished_24h=counted.finished,
        changes=counted.changes,
        salvage_open=await count_open(hub.reader),
        agents={state: present[state] for state in AgentState if present[state]},
        feed_epoch=hub.feed.epoch,
        seq=hub.feed.last_seq,
    )
