"""What the HTTP door needs of the rest of the hub, as protocols: it can be tested against fakes and knows no implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hub.core.blame import Strike
from hub.core.commands import Command, Work
from hub.core.decision import Reply, TaskAnswer
from hub.core.risk import Measured
from hub.core.rows import EventRow
from hub.edge.auth import Authenticator
from hub.edge.keyring import Keyring
from hub.edge.ratelimit import Limiter
from hub.ids import AgentId, AgentState, BackupReason, Lane, LeaseEpoch, TaskId, TaskState
from hub.services.errands import Round
from hub.store.backups import Backup
from hub.store.base import Operation, Reader
from hub.store.health import Health
from hub.store.salvage import SalvageRecord
from hub.wire.finding import Finding

T = TypeVar("T")


class Presence(Protocol):
    """The live side of a known agent; ``hub.core.agent.Agent`` is one. ``quarantined_until`` is microseconds UTC."""

    @property
    def id(self) -> AgentId:
        """Stable name."""

    @property
    def state(self) -> AgentState:
        """Where its state machine is."""

    @property
    def install_id(self) -> str:
        """The installation it last came from; empty for none."""

    @property
    def removed_at(self) -> int | None:
        """When it was taken out of this hub, microseconds UTC, or None."""

    @property
    def connected(self) -> bool:
        """Whether a live session exists. Not connected and not offline means reconnecting."""

    @property
    def task(self) -> TaskId | None:
        """The task it holds."""

    @property
    def note(self) -> str:
        """Its free-text status."""

    @property
    def paused(self) -> bool:
        """Paused by a person."""

    @property
    def quiet(self) -> bool:
        """Asked for no new work itself."""

    @property
    def quarantined_until(self) -> int | None:
        """End of its quarantine, or None."""

    @property
    def quarantined_at(self) -> int | None:
        """Start of its latest quarantine, until it has done something soundly."""

    @property
    def quarantine_cause(self) -> str | None:
        """The code that was the last straw."""

    @property
    def quarantine_level(self) -> int:
        """How often it was quarantined since it last did something soundly; on trial when it is not quarantined now."""

    @property
    def strikes(self) -> tuple[Strike, ...]:
        """What speaks against it, the newest last."""

    @property
    def last_seen_at(self) -> int:
        """When its last frame arrived, microseconds UTC."""


class SchedulerView(Protocol):
    """What the scheduler knows and no row holds; every method is immediate and changes nothing.

    It may be ahead of the last commit by a moment: for people, not for promises.
    """

    def explain(self, n: TaskId) -> str | None:
        """One line: why this task is not running now. None when it is not in memory."""

    def agents(self) -> Collection[Presence]:
        """Every known agent."""

    def progress(self, n: TaskId) -> tuple[int | None, str] | None:
        """Latest (percent, note) of a running task."""

    def queue(self) -> Mapping[Lane, int]:
        """Ready tasks by lane."""

    def states(self) -> Mapping[TaskState, int]:
        """Live tasks by state."""


class Conductor(Protocol):
    """The only caller of the scheduler. Both methods return after the commit, and raise ``HubError`` when nothing was done."""

    @property
    def scheduler(self) -> SchedulerView:
        """The scheduler as it is now (another object after a rebuild)."""

    async def do(self, command: Command) -> Reply:
        """Apply a command; facts are added by the conductor."""

    async def record(self, operation: Operation[T], *, size_bytes: int = 0) -> T:
        """Run a record operation in the writer's next group; ``size_bytes`` is the body it carries, if it is a large one."""


class Stream(Protocol):
    """A live subscription. ``first`` is the seq of the first event it will yield: everything before must be read from the rows.

    Iteration ends when the hub closes or when the subscriber was too slow; the subscriber then resumes from its last seq.
    """

    @property
    def first(self) -> int:
        """``after + 1`` unless the ring begins later."""

    def __aiter__(self) -> AsyncIterator[tuple[int, EventRow]]:
        """Events in order of seq, without a gap."""


class Feed(Protocol):
    """Committed events as they happen."""

    @property
    def epoch(self) -> str:
        """Drawn anew when a restore makes old positions meaningless."""

    @property
    def last_seq(self) -> int:
        """The newest committed event."""

    def subscribe(self, after: int | None) -> AbstractAsyncContextManager[Stream]:
        """Join the live ring after this seq (None: from now on)."""


class Gatekeeper(Protocol):
    """Reviews of changes. Each raises ``Refused``: 404 unknown, 409 when state or ``head_sha`` are not what was seen."""

    async def approve(self, change: int, *, by: str, person: bool, head_sha: str, comment: str = "") -> None:
        """Approve exactly ``head_sha``; what follows (candidate, merge) happens in the gatekeeper's own time."""

    async def reject(self, change: int, *, by: str, person: bool, reason: str, final: bool = False) -> None:
        """Send back for rework with ``reason``, or end its task with ``final`` (a person's right)."""

    async def diff(self, change_id: int) -> str:
        """The change against its base as unified text, bounded by the gatekeeper."""


class Sight(Protocol):
    """What the forge knows of kept commits; ``why`` there is nothing to see, if there is not."""

    @property
    def work(self) -> Work | None:
        """Branch, base and head."""

    @property
    def measured(self) -> Measured | None:
        """What they change."""

    @property
    def why(self) -> str:
        """In words."""


class Salvage(Protocol):
    """Work that was not applied. Each raises ``Refused``: 404 unknown, 409 when it cannot be done now, or any more."""

    async def look(self, kept: SalvageRecord) -> Sight:
        """What its commits change, as far as the remote answers in time."""

    async def apply(self, task: TaskId, lease_epoch: LeaseEpoch, *, by: str, force: bool = False) -> TaskAnswer:
        """Adopt it under a new fence; with ``force`` a running attempt is stopped first (the answer is then pending)."""

    async def drop(self, task: TaskId, lease_epoch: LeaseEpoch, *, by: str, reason: str) -> None:
        """Close the record without using it."""


class Doctor(Protocol):
    """The hub examined by itself."""

    async def examine(self) -> Sequence[Finding]:
        """What every room tells; changes nothing."""

    async def mend(self) -> Sequence[Finding]:
        """Do what is safe, and examine again."""


class Backups(Protocol):
    """Whole copies of the store."""

    async def every(self) -> list[Backup]:
        """What is on the shelf, newest first."""

    async def create(self, reason: BackupReason, actor: str) -> Backup:
        """Make one; raises ``BackupFailed``."""

    async def verify(self, name: str, actor: str) -> Backup:
        """Check one; raises ``UnknownBackup``."""


class Pruner(Protocol):
    """Deletes what is no longer kept."""

    @property
    def pruned(self) -> Mapping[str, int]:
        """What was deleted since the start of the hub, by kind."""

    async def would_prune(self) -> Mapping[str, int]:
        """What a round would delete now, by kind, changing nothing."""


class Keeper(Protocol):
    """Keeps the store small; the long part of it is asked for, and goes on by itself."""

    async def look(self) -> Health:
        """The store in figures."""

    async def findings(self, found: Health) -> Sequence[Finding]:
        """What the figures mean, each with its cure; and what is known of backups and checks."""

    def ask(self, errand: str) -> Round:
        """Begin ``prune`` or ``compact``, unless it runs; raises ``Refused`` 409 where it is not possible."""

    def stop(self, errand: str) -> Round | None:
        """End it after its present step; None if it never ran."""

    def round_of(self, errand: str) -> Round | None:
        """Its last round, which may be under way."""

    def file_bytes(self) -> tuple[int, int] | None:
        """(when the last compaction began, now or when it ended); None before the first."""

    @property
    def pruner(self) -> Pruner:
        """What pruning would do and did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Everything the HTTP door is given.

    ``metrics`` renders (body, content type); ``readiness`` names each check and whether it holds; ``degraded`` lists the codes with
    which a ready hub refuses people just now; ``admit_body`` raises Refused for a body of that many bytes without room.
    """

    conductor: Conductor
    reader: Reader
    feed: Feed
    gatekeeper: Gatekeeper
    salvage: Salvage
    doctor: Doctor
    backups: Backups
    keeper: Keeper
    auth: Authenticator
    limiter: Limiter
    keyring: Keyring
    metrics: Callable[[], tuple[bytes, str]]
    readiness: Callable[[], Mapping[str, bool]]
    degraded: Callable[[], Sequence[str]]
    admit_body: Callable[[int], None]
    probe: Callable[[str, str, str], Awaitable[None]]
    """(name, url, base) of a repository to be registered: raises 422 with the cure if changes could not be merged there."""
    now: Callable[[], int]
    """Microseconds UTC, for relative times in submissions."""
    hub_id: str
    version: str = "0"
