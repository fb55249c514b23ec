"""The scheduler's durable facts, one NamedTuple per table and kind of write.

The field names are the column names; ``hub.store.journal`` derives its SQL from them and checks them against the schema at start,
so a row kind is declared exactly once. Times are integer microseconds UTC. JSON columns are already encoded text.
"""

from __future__ import annotations

from typing import NamedTuple


class TaskNew(NamedTuple):
    """Columns of ``task`` that never change after the insert."""

    n: int
    project: str
    repo: str | None
    base: str | None
    title: str
    type: str
    lane: str
    access: str
    needs_change: int
    requirement_id: int
    max_tries: int
    queue_ttl_us: int | None
    parent: int | None
    created_by: str
    created_at: int
    idem_scope: str | None
    idem_key: str | None
    idem_hash: str | None
    unique_key: str | None
    spec: str


class TaskRow(NamedTuple):
    """Columns of ``task`` that change with its state; the row's fence is ``lease_epoch``."""

    n: int
    generation: int
    state: str
    seq: int
    queued_at: int | None
    not_before: int | None
    deadline: int | None
    tries: int
    lost: int
    rework: int
    claims: int
    lease_epoch: int
    holder_agent: str | None
    holder_session_epoch: int | None
    assign_to: str | None
    agent_hint: str | None
    avoid_agent: str | None
    suspects: str | None
    conversation_id: str | None
    held: int
    parked: int
    stopping: str | None
    merging: int
    cause: str | None
    updated_at: int
    finished_at: int | None


class LiveTask(NamedTuple):
    """What the scheduler remembers of a task, as it is read back; the requirement set says which project and repository."""

    n: int
    type: str
    lane: str
    access: str
    needs_change: int
    requirement_id: int
    max_tries: int
    created_at: int
    deadline: int | None
    queue_ttl_us: int | None
    idem_scope: str | None
    idem_key: str | None
    idem_hash: str | None
    unique_key: str | None
    generation: int
    state: str
    seq: int
    queued_at: int | None
    not_before: int | None
    tries: int
    lost: int
    rework: int
    claims: int
    lease_epoch: int
    holder_agent: str | None
    holder_session_epoch: int | None
    assign_to: str | None
    agent_hint: str | None
    avoid_agent: str | None
    suspects: str | None
    conversation_id: str | None
    held: int
    parked: int
    stopping: str | None
    merging: int
    cause: str | None
    updated_at: int
    finished_at: int | None


class RequirementRow(NamedTuple):
    """An interned requirement set: what an agent must offer to be given a task."""

    id: int
    project: str
    repo: str | None
    capabilities: str


class DepRow(NamedTuple):
    """One dependency edge; ``satisfied`` never goes back to 0."""

    task: int
    needs: int
    policy: str
    satisfied: int


class AttemptRow(NamedTuple):
    """One claim of a task, keyed by the fence."""

    task: int
    lease_epoch: int
    agent: str
    install_id: str | None
    session_epoch: int
    assigned_at: int
    accepted_at: int | None
    ended_at: int | None
    outcome: str | None
    cause: str | None
    sha256: str | None
    verdict: str | None
    error: str | None
    usage: str | None


class ResultRow(NamedTuple):
    """The body of an applied result; ``origin_epoch`` is the lease that made the work, if another one adopted it."""

    task: int
    lease_epoch: int
    output: str
    output_ref: str | None
    branch: str | None
    base_sha: str | None
    head_sha: str | None
    commits: str
    verification: str | None
    origin_epoch: int | None = None


class SalvageRow(NamedTuple):
    """Work that was not applied but is never thrown away, and what a person decided about it.

    ``branch`` with its shas are commits, ``salvage_ref`` the branch of what was left uncommitted; ``applied_epoch`` is the fence
    under which it was adopted.
    """

    task: int
    lease_epoch: int
    sha256: str
    at: int
    reason: str
    body: str
    state: str
    outcome: str
    agent: str | None
    branch: str | None
    base_sha: str | None
    head_sha: str | None
    salvage_ref: str | None
    decided_by: str | None
    decided_at: int | None
    note: str | None
    applied_epoch: int | None


class FeedbackRow(NamedTuple):
    """What the next attempt is told: a failure's context or a reviewer's words; ``head_sha`` set when it starts from that work."""

    task: int
    lease_epoch: int
    at: int
    source: str
    text: str
    branch: str | None
    head_sha: str | None


class QuestionRow(NamedTuple):
    """A question an agent asked, and its answer."""

    task: int
    lease_epoch: int
    qid: str
    text: str
    options: str
    asked_at: int
    answered_at: int | None
    answered_by: str | None
    answer: str | None


class ControlRow(NamedTuple):
    """A control frame kept until the sidecar noted it."""

    cid: int
    task: int
    lease_epoch: int
    agent: str
    kind: str
    qid: str | None
    mode: str | None
    text: str
    created_at: int
    noted_at: int | None


class AgentRow(NamedTuple):
    """What the hub knows of an agent between its sessions; its state is that of its newest transition."""

    id: str
    name: str
    capabilities: str
    projects: str
    runtimes: str
    host: str
    paused: int
    quiet: int
    strikes: str
    quarantine_level: int
    quarantined_until: int | None
    quarantined_at: int | None
    quarantine_cause: str | None
    note: str
    first_seen_at: int
    last_seen_at: int
    removed_at: int | None = None


class SessionRow(NamedTuple):
    """The newest session of an agent; ``epoch`` is the fence for everything its socket says."""

    agent: str
    epoch: int
    install_id: str
    boot_id: str
    hub_epoch: int
    connected_at: int


class TransitionRow(NamedTuple):
    """One step of an agent's state machine with its reason."""

    agent: str
    at: int
    from_state: str
    to_state: str
    reason: str


class EventRow(NamedTuple):
    """Audit, feed and time travel in one; the journal gives it its ``seq`` inside the commit. ``data`` is JSON text."""

    at: int
    kind: str
    actor: str
    task: int | None = None
    agent: str | None = None
    lease_epoch: int | None = None
    from_state: str | None = None
    to_state: str | None = None
    cause: str | None = None
    data: str | None = None


Row = (
    TaskNew
    | TaskRow
    | RequirementRow
    | DepRow
    | AttemptRow
    | ResultRow
    | SalvageRow
    | FeedbackRow
    | QuestionRow
    | ControlRow
    | AgentRow
    | SessionRow
    | TransitionRow
)
