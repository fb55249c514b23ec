"""Events as the HTTP API shows them, in a task's history and in the stream."""

from __future__ import annotations

from typing import Any

import orjson

from hub.core.rows import EventRow
from hub.edge.http.fields import Out, rfc3339
from hub.ids import task_ref


class EventOut(Out):
    """One committed fact: what happened (``kind``), who did it, and to what. ``data`` is small detail that depends on the kind."""

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

    @classmethod
    def of(cls, seq: int, event: EventRow) -> EventOut:
        """From its row."""
        return cls(
            seq=seq,
            at=rfc3339(event.at),
            kind=event.kind,
            actor=event.actor,
            task=None if event.task is None else task_ref(event.task),
            agent=event.agent,
            lease_epoch=event.lease_epoch,
            from_state=event.from_state,
            to_state=event.to_state,
            cause=event.cause,
            data=None if event.data is None else orjson.loads(event.data),
        )
