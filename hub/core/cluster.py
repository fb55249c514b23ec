"""The scheduler's state, and the step in which one command changes it.

:class:`Cluster` is what the hub holds in memory; :class:`Volatile` declares the part that is deliberately not persisted.
:class:`Step` collects what one command decides: every change of a task or an agent goes through its few verbs, so rows, events and
effects can never disagree with the state. Handlers in the neighbouring modules speak only these verbs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from hub.core.agent import Agent
from hub.core.commands import Stamp
from hub.core.decision import CloseSession, Decision, Effect, SendControl
from hub.core.errors import Refused
from hub.core.lanes import FairSequence, LanePicker
from hub.core.lease import Terms
from hub.core.matching import AgentClass, Idle
from hub.core.ready import Ready
from hub.core.rows import ControlRow, EventRow, SalvageRow, TransitionRow
from hub.core.task import Edge, Task
from hub.core.timers import Timer, Timers
from hub.ids import TERMINAL, AgentId, AgentState, ControlKind, LeaseEpoch, SessionEpoch, TaskId, TaskState, task_ref

DECISIONS = 1024
"""Decisions about salvaged work that are remembered: many more than can be in flight."""


@dataclass(slots=True)
class Volatile:
    """What a restart forgets on purpose: fairness, who is idle in which order, armed timers, retries that avoid an agent, draining, until
    when agents may still tell what they hold from before a restore, and the latest decisions about salvaged work (the rows have them).

    Also volatile, and declared on the entities themselves: live links, lease deadlines, progress and warm repositories.
    """

    pickers: dict[AgentClass, LanePicker] = field(default_factory=dict)
    fair: FairSequence = field(default_factory=FairSequence)
    idle: Idle = field(default_factory=Idle)
    timers: Timers = field(default_factory=Timers)
    avoiding: dict[int, None] = field(default_factory=dict)
    decided: dict[tuple[int, int, str], SalvageRow] = field(default_factory=dict)
    draining: bool = False
    settling_until: int = 0

    def remember(self, row: SalvageRow) -> None:
        """What was decided about salvaged work, until every fact read before it has been used."""
        self.decided.pop(row[:3], None)
        self.decided[row[:3]] = row
        if len(self.decided) > DECISIONS:
            del self.decided[next(iter(self.decided))]


@dataclass(slots=True)
class Cluster:
    """Everything scheduling needs. ``projects`` maps to (paused, dispatch), ``repos`` to paused.

    Lease and session epochs up to their bases may have been used by a hub whose store was lost: none is given out again.
    """

    terms: Terms
    hub_epoch: int = 0
    tasks: dict[int, Task] = field(default_factory=dict)
    agents: dict[AgentId, Agent] = field(default_factory=dict)
    projects: dict[str, tuple[bool, str]] = field(default_factory=dict)
    repos: dict[str, bool] = field(default_factory=dict)
    dependants: dict[int, dict[int, None]] = field(default_factory=dict)
    unique: dict[str, int] = field(default_factory=dict)
    idempotent: dict[tuple[str, str], int] = field(default_factory=dict)
    controls: dict[int, ControlRow] = field(default_factory=dict)
    live: int = 0
    counts: Counter[TaskState] = field(default_factory=Counter)
    next_n: int = 1
    next_requirement: int = 1
    next_cid: int = 1
    fence_base: int = 0
    session_base: int = 0
    ready: Ready = field(init=False)
    volatile: Volatile = field(default_factory=Volatile)

    def __post_init__(self) -> None:
        self.ready = Ready(self.tasks)

    def index(self, task: Task) -> None:
        """Make a task findable by its keys and count it, when it enters memory."""
        self.tasks[task.n] = task
        self.ready.remember(task)
        if task.idem is not None:
            self.idempotent[task.idem[0], task.idem[1]] = task.n
        if not task.terminal:
            self.enliven(task)

    def enliven(self, task: Task) -> None:
        """Count a task that became live."""
        self.live += 1
        self.counts[task.state] += 1
        self.ready.enliven(task)
        if task.unique_key is not None:
            self.unique[task.unique_key] = task.n
        for edge in task.edges:
            if not edge.satisfied:
                self.dependants.setdefault(edge.needs, {})[task.n] = None

    def retire(self, task: Task) -> None:
        """Discount a task that became terminal; it stays as a tombstone."""
        self.live -= 1
        self.counts[task.state] -= 1
        self.ready.retire(task)
        if task.unique_key is not None:
            self.unique.pop(task.unique_key, None)
        for edge in task.edges:
            self.leave(task, edge)

    def leave(self, task: Task, edge: Edge) -> None:
        """The task no longer waits for this edge."""
        waiting = self.dependants.get(edge.needs)
        if waiting is not None:
            waiting.pop(task.n, None)
            if not waiting:
                del self.dependants[edge.needs]

    def forget(self, task: Task) -> None:
        """Drop a tombstone."""
        del self.tasks[task.n]
        self.ready.forget(task)
        if task.idem is not None:
            self.idempotent.pop((task.idem[0], task.idem[1]), None)


class Step:
    """One command being applied: the moment, who asked, and what was decided so far.

    ``queued`` and ``freed`` are to be matched when the command is done; ``anybody`` asks to try every idle agent.
    """

    __slots__ = ("_agents", "_dirty", "actor", "anybody", "cluster", "decision", "freed", "queued", "stamp")

    def __init__(self, cluster: Cluster, stamp: Stamp, actor: str) -> None:
        self.cluster = cluster
        self.stamp = stamp
        self.actor = actor
        self.decision = Decision()
        self.queued: list[Task] = []
        self.freed: list[Agent] = []
        self.anybody = False
        self._dirty: dict[int, Task] = {}
        self._agents: dict[AgentId, Agent] = {}

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def task(self, n: TaskId) -> Task:
        """The task in memory; refused 404 if there is none (the conductor loads terminal ones as facts where a command allows them)."""
        found = self.cluster.tasks.get(n)
        if found is None:
            raise Refused(404, "unknown_task", f"there is no live task {task_ref(n)}", hint="agentcom task list --live")
        return found

    def touch(self, task: Task) -> None:
        """The task's row is to be written."""
        task.updated_at = self.stamp.wall
        self._dirty[task.n] = task
        self.decision.tasks.add(task.n)

    def move(self, task: Task, to: TaskState, kind: str, *, cause: str | None = None, **data: Any) -> None:
        """Change a task's state with its event; leaving the queue, becoming terminal and entering the queue are kept in the indexes."""
        before = task.move(to)
        if before not in TERMINAL:
            self.cluster.counts[before] -= 1
            self.cluster.counts[to] += 1
        if task.stopping is None:  # what stops it stays the cause of its end, whatever its agent does meanwhile
            task.cause = cause
        if before is TaskState.QUEUED:
            self._leave_queue(task)
        if to is TaskState.QUEUED:
            self._enter_queue(task)
        else:
            task.queued_at = None
        if task.terminal:
            task.finished_at = self.stamp.wall
            task.held = task.parked = task.merging = False
            self.withdraw_question(task)
            task.stopping = None
            for timer in (Timer.DEADLINE, Timer.NOT_BEFORE, Timer.AVOID, Timer.REST):
                self.cluster.volatile.timers.disarm(timer, task.n)
            self.cluster.retire(task)
            self.cluster.volatile.timers.arm(Timer.TOMBSTONE, task.n, self.stamp.mono + self.cluster.terms.tombstone_us)
        elif task.deadline is not None:
            self.arm(Timer.DEADLINE, task.n, task.deadline)  # a timer fired in review or lost with the memory counts again
        self.note(task, kind, before, cause=cause, **data)
        self.touch(task)

    def _enter_queue(self, task: Task) -> None:
        task.queued_at = self.stamp.wall
        task.not_before = None
        task.seq = self.cluster.volatile.fair.enter(task.lane, task.project)
        self.cluster.ready.put(task)
        self.queued.append(task)
        if task.queue_ttl_us is not None:
            self.arm(Timer.QUEUE_TTL, task.n, self.stamp.wall + task.queue_ttl_us)

    def _leave_queue(self, task: Task) -> None:
        cluster = self.cluster
        cluster.ready.drop(task)
        cluster.volatile.timers.disarm(Timer.QUEUE_TTL, task.n)
        if (task.lane, task.project) not in cluster.ready.crowd:
            cluster.volatile.fair.emptied(task.lane, task.project)

    def change_shelf(self, task: Task) -> None:
        """Stand a ready task where its pin now says."""
        self.cluster.ready.drop(task)
        self.cluster.ready.put(task)
        self.queued.append(task)

    def note(
        self,
        task: Task,
        kind: str,
        before: TaskState | None = None,
        *,
        cause: str | None = None,
        enters: bool = False,
        **data: Any,
    ) -> None:
        """Record an event about a task. ``before`` or ``enters`` (it is new) make it a change of state, which a fold of the events
        follows; ``agent`` in the data names one that just left.
        """
        agent = data.pop("agent", None) or task.holder
        self.decision.events.append(
            EventRow(
                self.stamp.wall,
                kind,
                self.actor,
                task.n,
                agent,
                task.lease_epoch,
                before,
                task.state if before is not None or enters else None,
                cause,
                orjson.dumps(data).decode() if data else None,
            )
        )

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def end_attempt(self, task: Task, outcome: str, cause: str, **changes: Any) -> None:
        """Close the open attempt row, take the lease away and free the agent; open controls of it need no answer any more."""
        if task.attempt is not None:
            self.decision.rows.append(task.attempt._replace(ended_at=self.stamp.wall, outcome=outcome, cause=cause, **changes))
            task.attempt = None
        holder, task.holder, task.holder_epoch = task.holder, None, None
        task.progress = task.checkpoint = None
        task.answered = frozenset()
        if outcome != "parked":
            self.withdraw_question(task)
        for cid in [cid for cid, row in self.cluster.controls.items() if row.task == task.n]:
            self.note_control(cid)
        timers = self.cluster.volatile.timers
        for kind in (Timer.ACCEPT, Timer.LEASE):
            timers.disarm(kind, task.n)
        if holder is not None:
            agent = self.cluster.agents[holder]
            agent.task = None
            if agent.state is not AgentState.OFFLINE:
                self.move_agent(agent, AgentState.IDLE, cause)
                self.freed.append(agent)
        self.touch(task)

    def withdraw_question(self, task: Task) -> None:
        """Nobody waits for the answer any more."""
        if task.question is not None:
            self.decision.rows.append(task.question._replace(answered_at=self.stamp.wall, answered_by="withdrawn"))
            task.question = None

    def control(
        self, task: Task, kind: ControlKind, *, qid: str | None = None, mode: str | None = None, text: str = ""
    ) -> None:
        """Ask something of the holder, in a row that is kept until the sidecar has noted it."""
        assert task.holder is not None
        cid = self.cluster.next_cid
        self.cluster.next_cid += 1
        row = ControlRow(cid, task.n, task.lease_epoch, task.holder, kind, qid, mode, text, self.stamp.wall, None)
        self.cluster.controls[cid] = row
        self.decision.rows.append(row)
        self.tell(self.cluster.agents[task.holder], control_effect(row))

    def note_control(self, cid: int) -> None:
        """A control is settled."""
        row = self.cluster.controls.pop(cid, None)
        if row is not None:
            self.decision.rows.append(row._replace(noted_at=self.stamp.wall))

    # ── agents ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def agent(self, agent: AgentId) -> Agent:
        """A known agent; refused 404 otherwise."""
        found = self.cluster.agents.get(agent)
        if found is None:
            raise Refused(404, "unknown_agent", f"there is no agent {agent!r}", hint="agentcom agent list")
        return found

    def touch_agent(self, agent: Agent) -> None:
        """The agent's row is to be written."""
        self._agents[agent.id] = agent

    def move_agent(self, agent: Agent, to: AgentState, reason: str) -> None:
        """Change an agent's state, with its transition row; what is not idle leaves the index of idle agents."""
        if agent.state is not to:
            before = agent.move(to)
            self.decision.rows.append(TransitionRow(agent.id, self.stamp.wall, before, to, reason))
        if to is not AgentState.IDLE:
            self.cluster.volatile.idle.remove(agent.id)

    def presence(self, agent: Agent, kind: str, *, cause: str | None = None, **data: Any) -> None:
        """Record an event about an agent."""
        said = orjson.dumps(data).decode() if data else None
        self.decision.events.append(EventRow(self.stamp.wall, kind, self.actor, agent.task, agent.id, cause=cause, data=said))

    def tell(self, agent: Agent, effect: Effect) -> None:
        """Publish an effect to the agent's newest session, once the commit is done; nothing is said to an absent one."""
        if agent.connected:
            self.decision.effects.append((agent.id, agent.epoch, effect))

    def close(self, agent: AgentId, epoch: SessionEpoch, code: int, reason: str) -> None:
        """Close one particular session's socket."""
        self.decision.effects.append((agent, epoch, CloseSession(code=code, reason=reason)))

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def arm(self, kind: Timer, key: int | str, due: int) -> None:
        """Arm a timer on the clock of its kind."""
        self.cluster.volatile.timers.arm(kind, key, due)

    def finish(self) -> Decision:
        """Snapshot every touched row as it is now (later commands must not leak into this group) and hand over the decision."""
        self.decision.rows.extend(task.row() for task in self._dirty.values())
        self.decision.rows.extend(agent.row() for agent in self._agents.values())
        return self.decision


def control_effect(row: ControlRow) -> SendControl:
    """A control row as the effect that sends it."""
    return SendControl(
        cid=row.cid,
        n=TaskId(row.task),
        lease_epoch=LeaseEpoch(row.lease_epoch),
        kind=ControlKind(row.kind),
        qid=row.qid,
        mode=row.mode,
        text=row.text,
    )
