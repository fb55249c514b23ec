"""What the hub's documents look like. They arrive as plain dictionaries; these types name their fields.

Moments are RFC 3339 text, references read ``t-17`` and ``c-4``. A newer hub may send more fields.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class FileHint(TypedDict):
    """A file worth looking at."""

    path: str
    reason: NotRequired[str]


class Verification(TypedDict):
    """One check of a task's outcome."""

    kind: str
    target: NotRequired[str]
    argv: NotRequired[list[str]]
    description: NotRequired[str]
    timeout_s: NotRequired[int]


class Budget(TypedDict, total=False):
    """Upper bounds of one run."""

    wall_s: int
    tokens: int | None
    cost: float | None
    turns: int | None


class DependsOn(TypedDict):
    """A dependency: ``t-17`` or a ref of the same batch."""

    task: str
    policy: NotRequired[Literal["skip", "run", "fail"]]


class NewTask(TypedDict):
    """A submission; only the title is required."""

    title: str
    description: NotRequired[str]
    ref: NotRequired[str | None]
    type: NotRequired[str]
    lane: NotRequired[str]
    project: NotRequired[str]
    repo: NotRequired[str | None]
    base: NotRequired[str | None]
    access: NotRequired[str]
    needs_change: NotRequired[bool | None]
    capabilities: NotRequired[list[str]]
    assign_to: NotRequired[str | None]
    not_before: NotRequired[str | None]
    deadline: NotRequired[str | None]
    queue_ttl_s: NotRequired[int | None]
    depends_on: NotRequired[list[str | DependsOn]]
    parent: NotRequired[str | None]
    max_tries: NotRequired[int]
    max_fix_rounds: NotRequired[int]
    hold: NotRequired[bool]
    idempotency_key: NotRequired[str | None]
    unique_key: NotRequired[str | None]
    file_hints: NotRequired[list[FileHint]]
    success_criteria: NotRequired[list[str]]
    verification: NotRequired[list[Verification]]
    budget: NotRequired[Budget]
    model: NotRequired[str | None]
    complexity: NotRequired[Literal["trivial", "standard", "complex"] | None]
    tags: NotRequired[list[str]]
    effort: NotRequired[str | None]
    metadata: NotRequired[dict[str, Any]]


class Submitted(TypedDict):
    """An accepted submission."""

    id: str
    state: str
    created: bool


class Batch(TypedDict):
    """The tasks of a batch in its order."""

    tasks: list[Submitted]


class Task(TypedDict):
    """A task in a list."""

    id: str
    title: str
    state: str
    type: str
    lane: str
    project: str
    repo: str | None
    base: str | None
    access: str
    needs_change: bool
    agent: str | None
    assign_to: str | None
    tries: int
    max_tries: int
    lost: int
    rework: int
    lease_epoch: int
    generation: int
    held: bool
    parked: bool
    stopping: str | None
    merging: bool
    cause: str | None
    reason: str | None
    parent: str | None
    unique_key: str | None
    created_by: str
    created_at: str
    updated_at: str
    queued_at: str | None
    not_before: str | None
    deadline: str | None
    finished_at: str | None


class TaskPage(TypedDict):
    """Newest first; ``next`` is the cursor of the following page."""

    tasks: list[Task]
    next: str | None


class Edge(TypedDict):
    """A dependency, seen from either end."""

    id: str
    title: str
    state: str
    policy: str
    satisfied: bool


class Attempt(TypedDict):
    """One claim of a task."""

    lease_epoch: int
    agent: str
    session_epoch: int
    assigned_at: str
    accepted_at: str | None
    ended_at: str | None
    outcome: str | None
    cause: str | None
    verdict: str | None
    error: dict[str, Any] | None
    usage: dict[str, Any] | None


class Question(TypedDict):
    """A question of the agent."""

    lease_epoch: int
    qid: str
    text: str
    options: list[str]
    asked_at: str
    answered_at: str | None
    answered_by: str | None
    answer: str | None


class Feedback(TypedDict):
    """What later attempts are told."""

    lease_epoch: int
    at: str
    source: str
    text: str
    branch: str | None
    head_sha: str | None


class Result(TypedDict):
    """The applied result."""

    lease_epoch: int
    output: str
    output_ref: str | None
    branch: str | None
    base_sha: str | None
    head_sha: str | None
    commits: list[dict[str, Any]]
    verification: dict[str, Any] | None


class Salvage(TypedDict):
    """Work kept although it was not applied; ``title`` and ``task_state`` are None of a task that the hub does not know.

    ``branch`` names commits, ``salvage_ref`` the branch of what was left uncommitted.
    """

    id: str
    task: str
    lease_epoch: int
    title: str | None
    task_state: str | None
    state: str
    at: str
    agent: str | None
    reason: str
    outcome: str
    branch: str | None
    base_sha: str | None
    head_sha: str | None
    salvage_ref: str | None
    decided_by: str | None
    decided_at: str | None
    note: str | None
    applied_epoch: int | None


class SalvagePage(TypedDict):
    """Newest task first; ``next`` is the cursor of the following page."""

    salvage: list[Salvage]
    next: str | None


class SalvageDetail(Salvage):
    """A record with what was said and what is left of it; ``stat`` is None, with ``stat_missing``, where there is none to see."""

    error: dict[str, Any] | None
    output: str
    commits: list[dict[str, Any]]
    stat: dict[str, Any] | None
    stat_missing: str
    feedback: str | None
    told: list[int]


class ChangeOfTask(TypedDict):
    """A change the task led to."""

    id: str
    lease_epoch: int
    state: str
    tier: int | None
    cause: str | None
    head_sha: str
    merged_sha: str | None


class Progress(TypedDict):
    """How far the agent said it is."""

    percent: int | None
    note: str


class Event(TypedDict):
    """One committed fact."""

    seq: int
    at: str
    kind: str
    actor: str
    task: str | None
    agent: str | None
    lease_epoch: int | None
    from_state: str | None
    to_state: str | None
    cause: str | None
    data: dict[str, Any] | None


class TaskDetail(Task):
    """A task with everything known of it."""

    explanation: str
    progress: Progress | None
    capabilities: list[str]
    spec: dict[str, Any]
    depends_on: list[Edge]
    needed_by: list[Edge]
    attempts: list[Attempt]
    questions: list[Question]
    feedback: list[Feedback]
    result: Result | None
    salvage: list[Salvage]
    changes: list[ChangeOfTask]
    history: list[Event]


class TaskAnswer(TypedDict):
    """The task after a command; ``pending``: it takes effect when the agent has stopped."""

    id: str
    state: str
    lease_epoch: int
    pending: bool


class Dispatched(TypedDict):
    """How many held tasks were released."""

    released: int
    why: str


class Explanation(TypedDict):
    """Why a task is not running now."""

    id: str
    explanation: str


class Agent(TypedDict):
    """An agent in a list."""

    id: str
    name: str
    state: str
    flags: list[str]
    task: str | None
    note: str
    capabilities: list[str]
    projects: list[str]
    runtimes: list[dict[str, Any]]
    host: dict[str, Any]
    quarantined_until: str | None
    quarantined_at: str | None
    quarantine_cause: str | None
    first_seen_at: str
    last_seen_at: str
    connected_at: str | None


class AgentPage(TypedDict):
    """By id; ``next`` is the cursor of the following page."""

    agents: list[Agent]
    next: str | None


class Transition(TypedDict):
    """One step of an agent's state machine."""

    at: str
    from_state: str
    to_state: str
    reason: str


class AgentAttempt(TypedDict):
    """A task an agent was given."""

    id: str
    title: str
    state: str
    lease_epoch: int
    assigned_at: str
    accepted_at: str | None
    ended_at: str | None
    outcome: str | None
    verdict: str | None


class Strike(TypedDict):
    """One reason against an agent."""

    at: str
    of: str
    task: str
    lease_epoch: int
    cause: str


class AgentDetail(Agent):
    """An agent with what speaks against it, its latest transitions and tasks."""

    strikes: list[Strike]
    transitions: list[Transition]
    attempts: list[AgentAttempt]


class ProbeStarted(TypedDict):
    """The task of a probe."""

    task: str


class Probe(TypedDict):
    """How far a probe is."""

    task: str
    state: str
    outcome: str | None
    cause: str | None
    explanation: str


class Change(TypedDict):
    """A change in a list."""

    id: str
    task: str
    lease_epoch: int
    origin_epoch: int | None
    repo: str
    state: str
    title: str
    tier: int | None
    reasons: list[str]
    cause: str | None
    labels: list[str]
    base: str
    branch: str
    base_sha: str
    head_sha: str
    stat: dict[str, Any]
    check_task: str | None
    merged_sha: str | None
    created_at: str
    updated_at: str


class ChangePage(TypedDict):
    """Newest first; ``next`` is the cursor of the following page."""

    changes: list[Change]
    next: str | None


class Review(TypedDict):
    """One reviewer's word on one head."""

    reviewer: str
    head_sha: str
    verdict: str
    person: bool
    comment: str
    at: str


class ChangeDetail(Change):
    """A change with its text, commits and reviews."""

    body: str
    commits: list[dict[str, Any]]
    reviews: list[Review]


class Project(TypedDict):
    """A project."""

    id: str
    name: str
    description: str
    repos: list[str]
    default_repo: str | None
    dispatch: str
    paused: bool
    version: int
    created_at: str
    updated_at: str


class Projects(TypedDict):
    """All projects."""

    projects: list[Project]


class Repo(TypedDict):
    """A repository."""

    name: str
    url: str
    forge: str
    base: str
    policy: dict[str, Any]
    checks: list[dict[str, Any]]
    paused: bool
    version: int
    created_at: str
    updated_at: str


class Repos(TypedDict):
    """All repositories."""

    repos: list[Repo]


class Status(TypedDict):
    """Counts of the whole house."""

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


class Finding(TypedDict):
    """What one check of the doctor found. ``state`` is ok, warn or fail; ``fix`` is None where nothing has to be done."""

    check: str
    state: str
    found: str
    fix: str | None
    fixable: bool


class Examination(TypedDict):
    """The hub examined by itself."""

    version: str
    findings: list[Finding]
