"""From committed rows back to entities: one task that is requeued, or the whole cluster at start and after a failed commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from hub.core.agent import Agent
from hub.core.blame import loaded
from hub.core.cluster import Cluster
from hub.core.lanes import LANES
from hub.core.lease import Terms
from hub.core.matching import Requirement
from hub.core.rows import AttemptRow, ControlRow, LiveTask, QuestionRow, SalvageRow
from hub.core.task import Edge, Task
from hub.core.timers import Timer
from hub.ids import Access, AgentId, AgentState, Lane, LeaseEpoch, SessionEpoch, TaskId, TaskState, TaskType

Record = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """Everything a rebuild needs, read in one transaction.

    ``tasks`` are the live ones, ``deps`` their edges, ``attempts`` the open ones, ``questions`` the open ones and those of open attempts,
    ``adoptions`` salvaged work that live tasks take as soon as their agents have stopped,
    ``agents`` joined with their newest session. The ``next_*`` numbers are above every number ever used.
    ``restored_at`` is when the store was restored, microseconds UTC.
    """

    tasks: Iterable[LiveTask] = ()
    deps: Iterable[Record] = ()
    attempts: Iterable[Record] = ()
    questions: Iterable[Record] = ()
    controls: Iterable[Record] = ()
    adoptions: Iterable[Record] = ()
    requirements: Iterable[Record] = ()
    agents: Iterable[Record] = ()
    projects: dict[str, tuple[bool, str]] = field(default_factory=dict)
    repos: dict[str, bool] = field(default_factory=dict)
    next_n: int = 1
    next_requirement: int = 1
    next_cid: int = 1
    fence_base: int = 0
    session_base: int = 0
    restored_at: int | None = None


_TYPES: Mapping[str, TaskType] = {word: word for word in TaskType}
_LANES: Mapping[str, Lane] = {word: word for word in Lane}
_ACCESSES: Mapping[str, Access] = {word: word for word in Access}
_STATES: Mapping[str, TaskState] = {word: word for word in TaskState}
"""Text to word, several times quicker than asking the enumeration: a rebuild does it for each of some 100 000 tasks."""


def task_from_rows(row: LiveTask, deps: Sequence[Record], requirement: int, need: Requirement) -> Task:
    """A task from its row, its dependency rows and its requirement set."""
    return Task(
        TaskId(row.n),
        need.project,
        need.repo,
        _TYPES[row.type],
        _LANES[row.lane],
        _ACCESSES[row.access],
        bool(row.needs_change),
        requirement,
        row.max_tries,
        row.created_at,
        deadline=row.deadline,
        queue_ttl_us=row.queue_ttl_us,
        idem=(row.idem_scope or "", row.idem_key, row.idem_hash or "") if row.idem_key is not None else None,
        unique_key=row.unique_key,
        generation=row.generation,
        state=_STATES[row.state],
        seq=row.seq,
        queued_at=row.queued_at,
        not_before=row.not_before,
        tries=row.tries,
        lost=row.lost,
        rework=row.rework,
        claims=row.claims,
        lease_epoch=LeaseEpoch(row.lease_epoch),
        holder=AgentId(row.holder_agent) if row.holder_agent is not None else None,
        holder_epoch=SessionEpoch(row.holder_session_epoch) if row.holder_session_epoch is not None else None,
        assign_to=AgentId(row.assign_to) if row.assign_to is not None else None,
        agent_hint=AgentId(row.agent_hint) if row.agent_hint is not None else None,
        avoid=AgentId(row.avoid_agent) if row.avoid_agent is not None else None,
        suspects=tuple(map(AgentId, row.suspects.split())) if row.suspects is not None else (),
        conversation_id=row.conversation_id,
        held=bool(row.held),
        parked=bool(row.parked),
        stopping=_STATES[row.stopping] if row.stopping is not None else None,
        merging=bool(row.merging),
        cause=row.cause,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
        edges=tuple(Edge(TaskId(dep["needs"]), dep["policy"], bool(dep["satisfied"])) for dep in deps) if deps else (),
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
        fence_base=snapshot.fence_base,
        session_base=snapshot.session_base,
    )
    for row in snapshot.agents:
        cluster.agents[AgentId(row["id"])] = _agent(row)
    queued = _remember(cluster, snapshot)
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
            task.answered |= {row["qid"]}
    for row in snapshot.adoptions:
        cluster.tasks[row["task"]].adopting = SalvageRow(*(row[name] for name in SalvageRow._fields))
    for row in snapshot.controls:
        cluster.controls[row["cid"]] = ControlRow(*(row[name] for name in ControlRow._fields))
    return cluster


def _remember(cluster: Cluster, snapshot: Snapshot) -> list[Task]:
    """Bring requirement sets and live tasks into memory; the queued ones, which are still to be made ready."""
    meaning: dict[int, Requirement] = {}
    for row in snapshot.requirements:
        need = Requirement(row["project"], row["repo"], frozenset(orjson.loads(row["capabilities"])))
        meaning[row["id"]] = need
        cluster.ready.add_requirement(row["id"], need)
    deps: dict[int, list[Record]] = {}
    for row in snapshot.deps:
        deps.setdefault(row["task"], []).append(row)
    rids: dict[int, int] = {}
    queued: list[Task] = []
    for known in snapshot.tasks:
        need = meaning[known.requirement_id]
        if known.requirement_id not in rids:
            cluster.ready.add_requirement(known.requirement_id, need)
            rids[known.requirement_id] = cluster.ready.ids[need]
        task = task_from_rows(known, deps.get(known.n, ()), rids[known.requirement_id], need)
        cluster.index(task)
        if task.state is TaskState.QUEUED:
            queued.append(task)
        if task.holder is not None:
            cluster.agents[task.holder].task = task.n
    return queued


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
        loaded(row["strikes"]),
        row["quarantine_level"],
        row["quarantined_until"],
        row["quarantined_at"],
        row["quarantine_cause"],
        row["note"],
        max(row["last_seen_at"], row["moved_at"]),
        SessionEpoch(row["epoch"] or 0),
        row["install_id"] or "",
        row["boot_id"] or "",
        row["removed_at"],
    )


def _resume_fairness(cluster: Cluster, queued: list[Task]) -> None:
    fair = cluster.volatile.fair
    first: dict[Lane, int] = {}
    for task in queued:
        lane, key, place = task.lane, (task.lane, task.project), task.seq
        first[lane] = min(first.get(lane, place), place)
        fair.last[key] = max(fair.last.get(key, 0), place)
    for lane in LANES:
        fair.virtual_time[lane] = first[lane] - 1 if lane in first else 0
