"""From committed rows back to entities: one task that is requeued, or the whole cluster at start and after a failed commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from hub.core.agent import Agent
from hub.core.cluster import Cluster
from hub.core.lanes import LANES
from hub.core.lease import Terms
from hub.core.matching import Requirement
from hub.core.rows import AttemptRow, ControlRow, QuestionRow
from hub.core.task import Edge, Task
from hub.core.timers import Timer
from hub.ids import Access, AgentId, AgentState, Lane, LeaseEpoch, SessionEpoch, TaskId, TaskState, TaskType

Record = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """Everything a rebuild needs, read in one transaction.

    ``tasks`` are the live ones, ``deps`` their edges, ``attempts`` the open ones, ``questions`` the open ones and those of open attempts,
    ``agents`` joined with their newest session. The ``next_*`` numbers are above every number ever used.
    """

    tasks: Iterable[Record] = ()
    deps: Iterable[Record] = ()
    attempts: Iterable[Record] = ()
    questions: Iterable[Record] = ()
    controls: Iterable[Record] = ()
    requirements: Iterable[Record] = ()
    agents: Iterable[Record] = ()
    projects: dict[str, tuple[bool, str]] = field(default_factory=dict)
    repos: dict[str, bool] = field(default_factory=dict)
    next_n: int = 1
    next_requirement: int = 1
    next_cid: int = 1


def task_from_rows(row: Record, deps: Iterable[Record], requirement: int) -> Task:
    """A task from its row and its dependency rows."""
    return Task(
        TaskId(row["n"]),
        row["project"],
        row["repo"],
        TaskType(row["type"]),
        Lane(row["lane"]),
        Access(row["access"]),
        bool(row["needs_change"]),
        requirement,
        row["max_tries"],
        row["created_at"],
        deadline=row["deadline"],
        queue_ttl_us=row["queue_ttl_us"],
        idem=(row["idem_scope"], row["idem_key"], row["idem_hash"]) if row["idem_key"] is not None else None,
        unique_key=row["unique_key"],
        generation=row["generation"],
        state=TaskState(row["state"]),
        seq=row["seq"],
        queued_at=row["queued_at"],
        not_before=row["not_before"],
        tries=row["tries"],
        lost=row["lost"],
        rework=row["rework"],
        claims=row["claims"],
        lease_epoch=LeaseEpoch(row["lease_epoch"]),
        holder=row["holder_agent"],
        holder_epoch=row["holder_session_epoch"],
        assign_to=row["assign_to"],
        agent_hint=row["agent_hint"],
        avoid=row["avoid_agent"],
        conversation_id=row["conversation_id"],
        held=bool(row["held"]),
        parked=bool(row["parked"]),
        stopping=TaskState(row["stopping"]) if row["stopping"] is not None else None,
        merging=bool(row["merging"]),
        cause=row["cause"],
        updated_at=row["updated_at"],
        finished_at=row["finished_at"],
        edges=[Edge(TaskId(dep["needs"]), dep["policy"], bool(dep["satisfied"])) for dep in deps],
    )


def rebuild(snapshot: Snapshot, terms: Terms) -> Cluster:
    """A cluster from committed rows. Every agent is offline until it says hello; deadlines are armed by the opening step."""
    cluster = Cluster(
        terms,
        projects=dict(snapshot.projects),
        repos=dict(snapshot.repos),
        next_n=snapshot.next_n,
        next_requirement=snapshot.next_requirement,
        next_cid=snapshot.next_cid,
    )
    meaning: dict[int, Requirement] = {}
    for row in snapshot.requirements:
        need = Requirement(row["project"], row["repo"], frozenset(orjson.loads(row["capabilities"])))
        meaning[row["id"]] = need
        cluster.ready.add_requirement(row["id"], need)
    deps: dict[int, list[Record]] = {}
    for row in snapshot.deps:
        deps.setdefault(row["task"], []).append(row)
    for row in snapshot.agents:
        cluster.agents[AgentId(row["id"])] = _agent(row)
    queued: list[Task] = []
    for row in snapshot.tasks:
        need = meaning[row["requirement_id"]]
        cluster.ready.add_requirement(row["requirement_id"], need)
        task = task_from_rows(row, deps.get(row["n"], ()), cluster.ready.ids[need])
        cluster.index(task)
        if task.state is TaskState.QUEUED:
            queued.append(task)
        if task.holder is not None:
            cluster.agents[task.holder].task = task.n
    for task in sorted(queued, key=lambda task: (task.queued_at or 0, task.n)):
        cluster.ready.put(task)
    _resume_fairness(cluster, queued)
    for row in snapshot.attempts:
        cluster.tasks[row["task"]].attempt = AttemptRow(*(row[name] for name in AttemptRow._fields))
    for row in snapshot.questions:
        task = cluster.tasks[row["task"]]
        if row["answered_at"] is None:
            task.question = QuestionRow(*(row[name] for name in QuestionRow._fields))
        else:
            task.answered.add(row["qid"])
    for row in snapshot.controls:
        cluster.controls[row["cid"]] = ControlRow(*(row[name] for name in ControlRow._fields))
    return cluster


def arm_all(cluster: Cluster, mono: int) -> None:
    """Arm every deadline as of readiness: accept and lease terms start anew, so no outage of ours expires anybody's lease."""
    timers, terms = cluster.volatile.timers, cluster.terms
    for task in cluster.tasks.values():
        if task.deadline is not None:
            timers.arm(Timer.DEADLINE, task.n, task.deadline)
        if task.state is TaskState.SCHEDULED and task.not_before is not None:
            timers.arm(Timer.NOT_BEFORE, task.n, task.not_before)
        elif task.state is TaskState.QUEUED and task.queue_ttl_us is not None and task.queued_at is not None:
            timers.arm(Timer.QUEUE_TTL, task.n, task.queued_at + task.queue_ttl_us)
        elif task.state is TaskState.ASSIGNED:
            task.accept_by = mono + terms.accept_us
            timers.arm(Timer.ACCEPT, task.n, task.accept_by)
        elif task.leased:
            task.lease_until = mono + terms.hold_us
            timers.arm(Timer.LEASE, task.n, task.lease_until)
    for agent in cluster.agents.values():
        if agent.quarantined_until is not None:
            timers.arm(Timer.QUARANTINE, agent.id, agent.quarantined_until)


def _agent(row: Record) -> Agent:
    return Agent(
        AgentId(row["id"]),
        row["first_seen_at"],
        row["name"],
        frozenset(orjson.loads(row["capabilities"])),
        frozenset(orjson.loads(row["projects"])),
        row["runtimes"],
        row["host"],
        AgentState(row["state"]),
        bool(row["paused"]),
        bool(row["quiet"]),
        row["streak"],
        row["quarantine_level"],
        row["quarantined_until"],
        row["note"],
        row["last_seen_at"],
        SessionEpoch(row["epoch"] or 0),
        row["install_id"] or "",
        row["boot_id"] or "",
    )


def _resume_fairness(cluster: Cluster, queued: list[Task]) -> None:
    fair = cluster.volatile.fair
    for lane in LANES:
        places = [task.seq for task in queued if task.lane is lane]
        fair.virtual_time[lane] = min(places) - 1 if places else 0
    for task in queued:
        key = (task.lane, task.project)
        fair.last[key] = max(fair.last.get(key, 0), task.seq)
