"""An agent's state machine as a table, and the entity the scheduler keeps for each known agent.

States say what the agent does; the flags (paused, quiet, quarantined, declining, silent) say whether it may be given work. ``done``
and ``failed`` of a run are outcomes that lead back to idle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import orjson

from hub.core.blame import Strike, dumped
from hub.core.errors import IllegalTransition
from hub.core.rows import AgentRow
from hub.ids import AgentId, AgentState, SessionEpoch, TaskId

A = AgentState

TRANSITIONS: Mapping[AgentState, frozenset[AgentState]] = {
    A.OFFLINE: frozenset({A.IDLE, A.ASSIGNED, A.WORKING, A.BLOCKED}),
    A.IDLE: frozenset({A.OFFLINE, A.ASSIGNED, A.WORKING, A.BLOCKED}),
    A.ASSIGNED: frozenset({A.OFFLINE, A.IDLE, A.WORKING}),
    A.WORKING: frozenset({A.OFFLINE, A.IDLE, A.BLOCKED}),
    A.BLOCKED: frozenset({A.OFFLINE, A.IDLE, A.WORKING}),
}
"""State → the states that may follow. From offline an agent returns to what it still holds."""


@dataclass(slots=True)
class Agent:
    """A known agent. Times ending in ``_mono`` are monotonic microseconds and volatile; the others are UTC.

    ``strikes`` is what speaks against it since it last did something soundly, ``quarantine_level`` how often it was quarantined since.
    """

    id: AgentId
    first_seen_at: int
    name: str = ""
    capabilities: frozenset[str] = frozenset()
    projects: frozenset[str] = frozenset()
    runtimes: str = "[]"
    host: str = "{}"
    state: AgentState = AgentState.OFFLINE
    paused: bool = False
    quiet: bool = False
    strikes: tuple[Strike, ...] = ()
    quarantine_level: int = 0
    quarantined_until: int | None = None
    quarantined_at: int | None = None
    quarantine_cause: str | None = None
    note: str = ""
    last_seen_at: int = 0
    epoch: SessionEpoch = SessionEpoch(0)
    install_id: str = ""
    boot_id: str = ""
    removed_at: int | None = None
    task: TaskId | None = None
    # ── volatile ──
    connected: bool = False
    offline_at_mono: int | None = None
    last_seen_mono: int = 0
    declined_until_mono: int = 0
    decline_step: int = 0
    silent: bool = False
    warm_repo: str | None = None
    heard: tuple[str, int] = ("", 0)
    """The newest hello: its machine's boot, and that boot's clock at sending. A link, and what it still holds up, dies with its hub."""

    def move(self, to: AgentState) -> AgentState:
        """Change the state along the table and return the one before; an edge the table lacks changes nothing and raises."""
        before = self.state
        if to is not before and to not in TRANSITIONS[before]:
            raise IllegalTransition(f"agent {self.id}: {before} → {to}")
        self.state = to
        return before

    def barred(self, mono: int, wall: int, fresh_us: int) -> str | None:
        """Why this agent may not be given work now, or None. ``fresh_us`` = how recent its last frame must be."""
        if not self.connected:
            return "offline"
        if self.paused:
            return "paused"
        if self.quiet:
            return "quiet"
        if self.quarantined_until is not None and wall < self.quarantined_until:
            return "quarantined"
        if mono < self.declined_until_mono:
            return "declining"
        if self.silent or mono - self.last_seen_mono > fresh_us:
            return "silent"
        return None

    def row(self) -> AgentRow:
        """The durable columns as they are now; sets are stored sorted, as JSON lists by the caller's encoder."""
        return AgentRow(
            self.id,
            self.name,
            _json_list(self.capabilities),
            _json_list(self.projects),
            self.runtimes,
            self.host,
            int(self.paused),
            int(self.quiet),
            dumped(self.strikes) if self.strikes else "[]",
            self.quarantine_level,
            self.quarantined_until,
            self.quarantined_at,
            self.quarantine_cause,
            self.note,
            self.first_seen_at,
            self.last_seen_at,
            self.removed_at,
        )


@lru_cache(maxsize=4096)
def _json_list(words: frozenset[str]) -> str:
    # a sidecar chooses these words: whatever they contain, the row must be readable again
    return orjson.dumps(sorted(words)).decode()
