"""One group, one transaction: what the writer's thread does between BEGIN and COMMIT.

The order is the contract: the scheduler's rows by kind, then record operations in arrival order, each in a SAVEPOINT (one that raises
rolls back alone and only its caller hears), then contiguous event numbers over what survived, then COMMIT. The specs of leases that
the group grants are read just before it: the rows are at hand, and another thread need not be asked for them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hub.core.rows import EventRow, Row
from hub.ids import Micros
from hub.store.base import Operation, Record
from hub.store.faults import OF_THE_DISK, primary
from hub.store.journal import write_rows
from hub.store.specs import Claim, Specs, read_specs


@dataclass(slots=True)
class Group:
    """What is to be committed together. ``grants`` are leases that begin with it: their specs are read on the way."""

    rows: list[Row] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    operations: list[Operation[Any]] = field(default_factory=list)
    grants: list[Claim] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Committed:
    """What became durable: numbered events in order, per operation its value or the exception that rolled it back, and the specs
    of the leases it grants.
    """

    events: list[tuple[int, EventRow]]
    outcomes: list[Any | BaseException]
    seconds: float
    specs: Specs = field(default_factory=dict)


class WriterTx:
    """The writer's :class:`hub.store.base.Tx`; dead as soon as its operation returns."""

    def __init__(self, connection: sqlite3.Connection, statements: Mapping[str, str], now: int) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._statements = statements
        self.now = now
        self.events: list[EventRow] = []

    def _execute(self, query: str, params: dict[str, Any]) -> sqlite3.Cursor:
        if self._connection is None:
            raise RuntimeError("this operation is over; its transaction cannot be used any more")
        return self._connection.execute(self._statements[query], params)

    def one(self, query: str, /, **params: Any) -> Record | None:
        """See the protocol."""
        cursor = self._execute(query, params)
        row: Record | None = cursor.fetchone()
        cursor.close()
        return row

    def all(self, query: str, /, **params: Any) -> list[Record]:
        """See the protocol."""
        return self._execute(query, params).fetchall()

    def run(self, query: str, /, **params: Any) -> int:
        """See the protocol."""
        return self._execute(query, params).rowcount

    def emit(self, event: EventRow) -> None:
        """See the protocol."""
        self.events.append(event)

    def end(self) -> None:
        """No use after this."""
        self._connection = None


def commit_group(
    connection: sqlite3.Connection, group: Group, statements: Mapping[str, str], last_seq: int, now: Micros
) -> Committed:
    """Run one group on the writer's thread; raises whatever made the COMMIT impossible, after rolling back."""
    began = time.perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    try:
        write_rows(connection, group.rows)
        events = list(group.events)
        outcomes = [_operate(connection, operation, statements, now, events) for operation in group.operations]
        numbered = list(enumerate(events, last_seq + 1))
        if numbered:
            connection.executemany(statements["event_insert"], [(seq, *event) for seq, event in numbered])
        specs = read_specs(WriterTx(connection, statements, now), group.grants)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return Committed(events=numbered, outcomes=outcomes, seconds=time.perf_counter() - began, specs=specs)


def _operate(
    connection: sqlite3.Connection,
    operation: Operation[Any],
    statements: Mapping[str, str],
    now: Micros,
    events: list[EventRow],
) -> Any:
    tx = WriterTx(connection, statements, now)
    connection.execute("SAVEPOINT operation")
    try:
        value = operation(tx)
    except Exception as fault:  # whatever it is, it is its caller's to hear and no one else's, unless the disk said it
        if isinstance(fault, sqlite3.Error) and primary(fault) in OF_THE_DISK:
            raise
        connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")
        return fault
    else:
        connection.execute("RELEASE operation")
        events.extend(tx.events)
        return value
    finally:
        tx.end()
