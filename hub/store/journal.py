"""The scheduler's rows as SQL: each row kind is declared once in ``hub.core.rows``; its statement is derived here and checked at start.

A group's rows are written by kind with ``executemany``, later versions of the same row replacing earlier ones, in an order in which no
constraint is crossed half-way. Every upsert carries the fence; a change count that differs from the rows sent aborts the group.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hub.core import rows
from hub.core.errors import HubError
from hub.ids import TERMINAL


class FenceBroken(HubError):
    """A row was older than what is stored, or was not there: a defect of ours, and the group is rolled back."""

    code = "fence_broken"


class Kind(NamedTuple):
    """How one row type is written. ``key`` = its first columns; ``None`` = append only. ``guard`` is the fence of the upsert.

    ``fixed`` = how many columns after the key never change: an upsert that leaves them alone spares their indexes.
    """

    row: type[Any]
    table: str
    key: int | None
    guard: str = ""
    fixed: int = 0


KINDS: tuple[Kind, ...] = (
    Kind(rows.RequirementRow, "requirement", 1),
    Kind(rows.AgentRow, "agent", 1),
    Kind(rows.SessionRow, "agent_session", 1, "agent_session.epoch <= excluded.epoch"),
    Kind(rows.TransitionRow, "agent_transition", None),
    Kind(rows.DepRow, "task_dep", 2, "task_dep.satisfied <= excluded.satisfied"),
    Kind(rows.AttemptRow, "attempt", 2, fixed=4),
    Kind(rows.ResultRow, "result", 2),
    Kind(rows.SalvageRow, "salvage", 3),
    Kind(rows.FeedbackRow, "feedback", 2),
    Kind(rows.QuestionRow, "question", 3),
    Kind(rows.ControlRow, "control", 1),
)
"""Every kind but the task itself, in the order in which they are written (tasks come first)."""

_NEW, _STATE = rows.TaskNew._fields, rows.TaskRow._fields
_INSERT_TASK = f"INSERT INTO task ({', '.join(_NEW + _STATE[1:])}) VALUES ({', '.join('?' * (len(_NEW) + len(_STATE) - 1))})"  # noqa: S608  names are ours
_UPDATE_TASK = f"UPDATE task SET {', '.join(f'{name} = ?' for name in _STATE[1:])} WHERE n = ? AND lease_epoch <= ?"  # noqa: S608  names are ours
_EPOCH = _STATE.index("lease_epoch")


def upsert_sql(kind: Kind) -> str:
    """The statement of a row kind."""
    fields = kind.row._fields
    sql = f"INSERT INTO {kind.table} ({', '.join(fields)}) VALUES ({', '.join('?' * len(fields))})"  # noqa: S608  names are ours
    if kind.key is None:
        return sql
    changes = ", ".join(f"{name} = excluded.{name}" for name in fields[kind.key + kind.fixed :])
    guard = f" WHERE {kind.guard}" if kind.guard else ""
    return f"{sql} ON CONFLICT ({', '.join(fields[: kind.key])}) DO UPDATE SET {changes}{guard}"


_UPSERTS = {kind.row: (kind, upsert_sql(kind)) for kind in KINDS}


def check_schema(connection: sqlite3.Connection) -> None:
    """Every declared column exists; raises FenceBroken naming what is missing."""
    declared: list[tuple[str, Sequence[str]]] = [(kind.table, kind.row._fields) for kind in KINDS]
    declared.append(("task", _NEW + _STATE))
    for table, fields in declared:
        present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        missing = sorted(set(fields) - present)
        if missing:
            raise FenceBroken(f"table {table} lacks columns {', '.join(missing)}")


def write_rows(connection: sqlite3.Connection, group: Iterable[rows.Row]) -> None:
    """Write one group's rows; raises FenceBroken when a row did not land."""
    created: dict[int, rows.TaskNew] = {}
    states: dict[int, rows.TaskRow] = {}
    others: dict[type[Any], dict[Any, rows.Row]] = {}
    appended: dict[type[Any], list[rows.Row]] = {}
    for row in group:
        if isinstance(row, rows.TaskRow):
            states[row.n] = row
        elif isinstance(row, rows.TaskNew):
            created[row.n] = row
        else:
            kind = _UPSERTS[type(row)][0]
            if kind.key is None:
                appended.setdefault(type(row), []).append(row)
            else:
                others.setdefault(type(row), {})[row[: kind.key]] = row
    _write(connection, _UPSERTS[rows.RequirementRow][1], list(others.pop(rows.RequirementRow, {}).values()))
    _write_tasks(connection, created, states)
    for kind in KINDS:
        sent = list(others.get(kind.row, {}).values()) if kind.key is not None else appended.get(kind.row, [])
        _write(connection, _UPSERTS[kind.row][1], sent)


def _write_tasks(connection: sqlite3.Connection, created: dict[int, rows.TaskNew], states: dict[int, rows.TaskRow]) -> None:
    # rows that leave a partial unique index go first: a unique key freed and taken in one group never collides with itself
    updates = sorted((row for n, row in states.items() if n not in created), key=lambda row: row.state not in TERMINAL)
    _write(connection, _UPDATE_TASK, [(*row[1:], row.n, row[_EPOCH]) for row in updates])
    inserts = sorted(((new, states[n]) for n, new in created.items()), key=lambda pair: pair[1].state not in TERMINAL)
    _write(connection, _INSERT_TASK, [(*new, *state[1:]) for new, state in inserts])


def _write(connection: sqlite3.Connection, sql: str, sent: Sequence[Sequence[Any]]) -> None:
    if not sent:
        return
    landed = connection.executemany(sql, sent).rowcount
    if landed != len(sent):
        raise FenceBroken(f"{len(sent)} rows were sent and {landed} landed: {sql[:60]}")
