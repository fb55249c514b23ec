"""The seam of the store: what record operations and readers may do. No transaction object leaves the store.

A record operation is a plain sync function over a :class:`Tx`: load, decide by a pure rule of core, save, emit an event. It runs on
the writer's thread inside a SAVEPOINT of the group; raising rolls back that operation alone and only its caller hears of it.
Queries are named; their text lives in ``hub/store/queries/*.sql``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from hub.core.errors import HubError
from hub.core.rows import EventRow

Record = Mapping[str, Any]
"""One row by column name."""

T = TypeVar("T")


class CommitFailed(HubError):
    """A group was rolled back for a reason that a rebuild can cure; whether it had happened is unknown to its callers."""

    code = "commit_failed"
    status = 503
    retryable = True


class StoreBroken(HubError):
    """I/O error, corruption or a failed fsync: the process must end (exit 74) and start anew; never retry on the same descriptor."""

    code = "store_broken"


class ReadAborted(HubError):
    """A query held the log of the store for longer than any is allowed to, and was ended."""

    code = "read_aborted"
    status = 503
    retryable = True
    hint = "ask for less at once"


class StoreUnusable(HubError):
    """The store cannot be opened safely; the message names the cure."""

    code = "store_unusable"


class Tx(Protocol):
    """The writer's side of one operation, valid only while it runs."""

    def one(self, query: str, /, **params: Any) -> Record | None:
        """The first row of a named query, or None."""

    def all(self, query: str, /, **params: Any) -> list[Record]:
        """All rows of a named query."""

    def run(self, query: str, /, **params: Any) -> int:
        """Execute a named statement; the number of rows changed."""

    def emit(self, event: EventRow) -> None:
        """Add an event to this operation; it gets its ``seq`` when the group commits."""

    @property
    def now(self) -> int:
        """Microseconds UTC, one value for the whole group."""


class Look(Protocol):
    """Committed rows of one moment, valid only while the function it was given to runs."""

    def one(self, query: str, /, **params: Any) -> Record | None:
        """The first row of a named query, or None."""

    def all(self, query: str, /, **params: Any) -> list[Record]:
        """All rows of a named query."""


class Reader(Protocol):
    """Committed rows over read-only connections."""

    async def one(self, query: str, /, **params: Any) -> Record | None:
        """The first row of a named query, or None."""

    async def all(self, query: str, /, **params: Any) -> list[Record]:
        """All rows of a named query."""

    async def look(self, fn: Callable[[Look], T]) -> T:
        """Run a plain function over the rows of one moment, on a reading thread: one way there and back for many queries."""


Operation = Callable[[Tx], T]
"""A record operation."""
