"""A task's state machine as a table, and the entity the scheduler keeps in memory for each live task.

Everything that decides which state may follow which is in :data:`TRANSITIONS`; the diagrams in the documentation are generated from
it. This module knows nothing of agents, lanes or storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hub.core.errors import IllegalTransition
from hub.core.rows import AttemptRow, QuestionRow, SalvageRow, TaskRow
from hub.ids import LEASED, TERMINAL, Access, AgentId, Lane, LeaseEpoch, SessionEpoch, TaskId, TaskState, TaskType

S = TaskState

TRANSITIONS: Mapping[TaskState, frozenset[TaskState]] = {
    S.WAITING: frozenset({S.SCHEDULED, S.QUEUED, S.CANCELLED, S.DEAD, S.DONE}),
    S.SCHEDULED: frozenset({S.QUEUED, S.WAITING, S.CANCELLED, S.DEAD, S.DONE}),
    S.QUEUED: frozenset({S.ASSIGNED, S.WAITING, S.IN_REVIEW, S.DONE, S.CANCELLED, S.DEAD}),
    S.ASSIGNED: frozenset({S.WORKING, S.QUEUED, S.CANCELLED, S.DEAD}),
    S.WORKING: frozenset({S.BLOCKED, S.IN_REVIEW, S.DONE, S.SCHEDULED, S.QUEUED, S.DEAD, S.CANCELLED}),
    S.BLOCKED: frozenset({S.WORKING, S.IN_REVIEW, S.DONE, S.SCHEDULED, S.QUEUED, S.DEAD, S.CANCELLED}),
    S.IN_REVIEW: frozenset({S.DONE, S.QUEUED, S.DEAD, S.CANCELLED}),
    S.DONE: frozenset({S.QUEUED, S.WAITING}),
    S.DEAD: frozenset({S.QUEUED, S.WAITING}),
    S.CANCELLED: frozenset({S.QUEUED, S.WAITING}),
}
"""State → the states that may follow. A terminal state is left only by an explicit requeue, to waiting when a dependency is open."""

MAX_LOST = 3
"""Infrastructure losses of a working agent before a task is dead (protocol §4.6)."""
MAX_REWORK = 3
"""Reworks before a change stays in review for a person (semantics)."""
MAX_CLAIMS = 50
"""Accepted claims per generation: no refund can loop for ever (protocol §4.6)."""


@dataclass(slots=True)
class Edge:
    """A dependency of a task: what happens when ``needs`` fails (skip, run, fail), and whether it is satisfied for good."""

    needs: TaskId
    policy: str
    satisfied: bool = False


@dataclass(slots=True)
class Task:
    """A live task: what scheduling needs and nothing else; the spec stays in the store.

    ``attempt`` is the row of the newest claim while it is open, ``question`` the open question, ``adopting`` what a
    person adopts as soon as its agent has stopped. The fields below the line are
    volatile: ``ended`` (lease epoch → sha256 of the result that ended it, in this process's life), ``answered`` (question ids
    answered in the open attempt), ``queue_token`` (changes with each entry into the ready index, so that stale entries are
    recognised) and ``shelf`` (whose), monotonic deadlines in microseconds, the latest progress and checkpoint, and how many offers in a
    row were refused. ``suspects`` are the agents on which it ended so that it is doubtful whose fault that was.
    """

    n: TaskId
    project: str
    repo: str | None
    type: TaskType
    lane: Lane
    access: Access
    needs_change: bool
    requirement: int
    max_tries: int
    created_at: int
    deadline: int | None = None
    queue_ttl_us: int | None = None
    idem: tuple[str, str, str] | None = None
    unique_key: str | None = None
    generation: int = 1
    state: TaskState = TaskState.WAITING
    seq: int = 0
    queued_at: int | None = None
    not_before: int | None = None
    tries: int = 0
    lost: int = 0
    rework: int = 0
    claims: int = 0
    lease_epoch: LeaseEpoch = LeaseEpoch(0)
    holder: AgentId | None = None
    holder_epoch: SessionEpoch | None = None
    assign_to: AgentId | None = None
    agent_hint: AgentId | None = None
    avoid: AgentId | None = None
    suspects: tuple[AgentId, ...] = ()
    conversation_id: str | None = None
    held: bool = False
    parked: bool = False
    stopping: TaskState | None = None
    merging: bool = False
    cause: str | None = None
    updated_at: int = 0
    finished_at: int | None = None
    edges: tuple[Edge, ...] = ()
    attempt: AttemptRow | None = None
    question: QuestionRow | None = None
    adopting: SalvageRow | None = None
    # ── volatile ──
    ended: dict[int, str] = field(default_factory=dict)
    answered: frozenset[str] = frozenset()
    queue_token: int = 0
    shelf: AgentId | None = None
    accept_by: int = 0
    lease_until: int = 0
    resent: bool = False
    progress: tuple[int, int | None, str] | None = None
    checkpoint: str | None = None
    avoid_until: int = 0
    refusals: int = 0
    rests_until: int = 0

    @property
    def open_deps(self) -> int:
        """How many dependencies are not satisfied."""
        return sum(1 for edge in self.edges if not edge.satisfied)

    @property
    def leased(self) -> bool:
        """Whether an agent holds it now (a parked task has no lease)."""
        return self.state in LEASED and self.holder is not None

    @property
    def terminal(self) -> bool:
        """Whether only a requeue can move it."""
        return self.state in TERMINAL

    @property
    def may_change(self) -> bool:
        """Whether commits made for it can lead to a change."""
        return self.repo is not None and self.access is Access.WRITE and self.type is not TaskType.CHECK

    def move(self, to: TaskState) -> TaskState:
        """Change the state along the table and return the one before; an edge the table lacks changes nothing and raises."""
        before = self.state
        if to not in TRANSITIONS[before]:
            raise IllegalTransition(f"t-{self.n}: {before} → {to}")
        self.state = to
        return before

    def row(self) -> TaskRow:
        """The changing columns as they are now."""
        return TaskRow(
            self.n,
            self.generation,
            self.state,
            self.seq,
            self.queued_at,
            self.not_before,
            self.deadline,
            self.tries,
            self.lost,
            self.rework,
            self.claims,
            self.lease_epoch,
            self.holder,
            self.holder_epoch,
            self.assign_to,
            self.agent_hint,
            self.avoid,
            " ".join(self.suspects) or None,
            self.conversation_id,
            int(self.held),
            int(self.parked),
            self.stopping,
            int(self.merging),
            self.cause,
            self.updated_at,
            self.finished_at,
        )


def raise_fence(task: Task, base: int) -> None:
    """Spend a lease epoch, so that everything sent under the old one is recognised as stale; always above ``base``."""
    task.lease_epoch = LeaseEpoch(max(task.lease_epoch, base) + 1)
