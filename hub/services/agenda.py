"""What the gatekeeper has to do: derived from rows at every look, less what is parked, in line or waiting for its retry.

All of it is memory that may be lost: a gatekeeper that starts with an empty agenda looks at everything once more and finds the same.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hub.core.change import LIVE
from hub.ids import ChangeState
from hub.store.base import Look, Reader, Record

PAGE_ROWS = 500
RETRY_MAX_S = 60.0

Key = tuple[str, str, int | str]
"""What can fail by itself: repository, kind (``task``, ``change`` or ``base``) and which one."""
Signature = tuple[Any, ...]
"""All that could make a change due again."""

_HOLDS_SLOT = frozenset({ChangeState.CHECKING, ChangeState.MERGING})
_FEELS_MERGES = frozenset({ChangeState.WAITING, ChangeState.CHECKING})
"""A merge moves the base under these; the others are judged anyway before anything becomes of them."""


@dataclass(slots=True)
class Work:
    """What is due in one repository: (task, fence) to open a change for, outstanding commands, changes to step by base branch."""

    unopened: list[tuple[int, int]] = field(default_factory=list)
    undelivered: list[int] = field(default_factory=list)
    due: defaultdict[str, dict[int, Signature]] = field(default_factory=lambda: defaultdict(dict))


class Agenda:
    """One gatekeeper's. Retries back off exponentially from ``retry_s`` seconds, each thing that failed by itself."""

    def __init__(self, reader: Reader, retry_s: float) -> None:
        self._reader = reader
        self._retry_s = retry_s
        self._parked: dict[int, Signature] = {}
        self._line: set[int] = set()
        self._merges: dict[str, int] = {}
        self._failures: dict[Key, tuple[int, float]] = {}
        self._retry_at: float | None = None

    async def look(self) -> Mapping[str, Work]:
        """Everything that is due, by repository."""
        unopened, undelivered, live = await self._reader.look(_outstanding)
        self._forget_all_but(unopened, undelivered, live)
        work: defaultdict[str, Work] = defaultdict(Work)
        for row in unopened:
            if not self._backs_off((row["repo"], "task", row["id"])):
                work[row["repo"]].unopened.append((row["id"], row["lease_epoch"]))
        for row in undelivered:
            if not self._backs_off((row["repo"], "change", row["id"])):
                work[row["repo"]].undelivered.append(row["id"])
        taken = {row["repo"] for row in live if row["state"] in _HOLDS_SLOT}
        for row in live:
            signature = (*row.values(), self._merges.get(row["repo"], 0) if row["state"] in _FEELS_MERGES else 0)
            its_turn = row["id"] in self._line and row["repo"] not in taken
            keys = ((row["repo"], "change", row["id"]), (row["repo"], "base", row["base"]))
            if (its_turn or self._parked.get(row["id"]) != signature) and not self._backs_off(*keys):
                work[row["repo"]].due[row["base"]][row["id"]] = signature
        return work

    def _forget_all_but(self, unopened: list[Record], undelivered: list[Record], live: list[Record]) -> None:
        changes = {row["id"] for row in live}
        known = {(row["repo"], "task", row["id"]) for row in unopened}
        known |= {(row["repo"], "change", row["id"]) for row in (*undelivered, *live)}
        known |= {(row["repo"], "base", row["base"]) for row in live}
        self._parked = {change: signature for change, signature in self._parked.items() if change in changes}
        self._line &= changes
        self._failures = {key: failed for key, failed in self._failures.items() if key in known}
        self._retry_at = None

    # ── what became of it ────────────────────────────────────────────────────────────────────────────────────────────────

    def park(self, change: int, signature: Signature) -> None:
        """Nothing can be done about it until something about it differs."""
        self._parked[change] = signature

    def queue(self, change: int) -> None:
        """It is ready but for the merge slot: due as soon as that is free."""
        self._line.add(change)

    def leave_line(self, change: int) -> None:
        """It is being judged anew."""
        self._line.discard(change)

    def in_line(self, change: int) -> bool:
        """Whether it waits for nothing but the merge slot."""
        return change in self._line

    def merged(self, repo: str) -> None:
        """The base of others may have moved."""
        self._merges[repo] = self._merges.get(repo, 0) + 1

    # ── retries ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def failures(self, key: Key) -> int:
        """How often in a row it failed."""
        return self._failures.get(key, (0, 0.0))[0]

    def failed(self, key: Key) -> float:
        """Note a failure; seconds until the next try."""
        failures = self.failures(key) + 1
        wait_s = min(RETRY_MAX_S, self._retry_s * 2.0 ** min(failures - 1, 16))
        self._failures[key] = (failures, asyncio.get_running_loop().time() + wait_s)
        return wait_s

    def succeeded(self, key: Key) -> None:
        """Its next failure is the first again."""
        self._failures.pop(key, None)

    def retry_in_s(self) -> float | None:
        """How long until something is due that the last look left out because it had failed; None if nothing was."""
        return None if self._retry_at is None else max(0.0, self._retry_at - asyncio.get_running_loop().time())

    def _backs_off(self, *keys: Key) -> bool:
        retry_at = max(self._failures.get(key, (0, 0.0))[1] for key in keys)
        if retry_at <= asyncio.get_running_loop().time():
            return False
        self._retry_at = retry_at if self._retry_at is None else min(self._retry_at, retry_at)
        return True


def _outstanding(look: Look) -> tuple[list[Record], list[Record], list[Record]]:
    """Results without a change, changes whose task has not heard of their end, and live changes; all of one moment."""
    live = [row for state in sorted(LIVE) for row in _pages(look, "change_live", state=state)]
    return _pages(look, "change_unopened"), _pages(look, "change_undelivered"), live


def _pages(look: Look, query: str, **params: Any) -> list[Record]:
    """All rows of a query that is paged by ``id``: what cannot be worked on must not hide what can."""
    rows: list[Record] = []
    after = 0
    while True:
        page = look.all(query, after=after, limit=PAGE_ROWS, **params)
        rows += page
        if len(page) < PAGE_ROWS:
            return rows
        after = page[-1]["id"]
