"""The journal: each row kind fits the schema, later versions replace earlier ones, and nothing older than what is stored gets in."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from hub.core import commands as c
from hub.core import rows
from hub.core.rows import AgentRow, DepRow, RequirementRow, SessionRow, TaskNew, TaskRow
from hub.ids import TERMINAL
from hub.store import journal
from hub.store.journal import KINDS, FenceBroken, check_schema, upsert_sql, write_rows
from hub.store.sql import statements
from tests.support.cluster import Hub
from tests.support.stores import open_memory


@pytest.fixture
def db() -> sqlite3.Connection:
    return open_memory()


def new(n: int = 1, **fields: Any) -> TaskNew:
    blank: dict[str, Any] = dict.fromkeys(TaskNew._fields)
    blank |= {
        "n": n,
        "project": "default",
        "title": "t",
        "type": "task",
        "lane": "normal",
        "access": "write",
        "needs_change": 0,
        "requirement_id": 1,
        "max_tries": 3,
        "created_by": "ann",
        "created_at": 1,
        "spec": "{}",
    }
    return TaskNew(**(blank | fields))


def state(n: int = 1, **fields: Any) -> TaskRow:
    blank: dict[str, Any] = dict.fromkeys(TaskRow._fields)
    blank |= dict.fromkeys(("seq", "tries", "lost", "rework", "claims", "held", "parked", "merging", "lease_epoch"), 0)
    blank |= {"n": n, "generation": 1, "state": "queued", "updated_at": 1}
    row = TaskRow(**(blank | fields))
    return row._replace(finished_at=9) if row.state in TERMINAL else row


NEED = RequirementRow(1, "default", None, "[]")


def write(db: sqlite3.Connection, *group: Any) -> None:
    """One group, one transaction."""
    db.execute("BEGIN")
    try:
        write_rows(db, group)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def test_every_row_kind_of_the_rules_is_declared_once() -> None:
    declared = [kind.row for kind in KINDS]
    known = {cls for cls in vars(rows).values() if isinstance(cls, type) and cls.__name__.endswith(("Row", "New"))}
    assert set(declared) | {TaskNew, TaskRow, rows.EventRow} == known
    assert len(declared) == len(set(declared))


def test_the_schema_has_every_column(db: sqlite3.Connection) -> None:
    db.row_factory = None
    check_schema(db)
    db.execute("ALTER TABLE salvage RENAME COLUMN reason TO why")
    with pytest.raises(FenceBroken, match="salvage lacks columns reason"):
        check_schema(db)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.table)
def test_every_statement_compiles(db: sqlite3.Connection, kind: Any) -> None:
    db.execute("EXPLAIN " + upsert_sql(kind), [None] * len(kind.row._fields))


def test_every_named_statement_compiles(db: sqlite3.Connection) -> None:
    for name, sql in statements().items():
        marks = sql.count("?")
        try:
            db.execute("EXPLAIN " + sql, [None] * marks if marks else Anything())
        except sqlite3.Error as fault:
            raise AssertionError(name) from fault


class Anything(dict[str, Any]):
    """Every parameter is NULL."""

    def __missing__(self, _: str) -> None:
        return None


def test_later_states_of_a_row_collapse_to_the_last(db: sqlite3.Connection) -> None:
    statements_run: list[str] = []
    db.set_trace_callback(statements_run.append)
    write(db, NEED, new(), state(), *(state(lease_epoch=i, seq=i) for i in range(50)))
    assert db.execute("SELECT seq, lease_epoch FROM task").fetchone() == {"seq": 49, "lease_epoch": 49}
    assert sum("INTO task " in sql or "UPDATE task " in sql for sql in statements_run) == 1


def test_an_older_fence_is_refused_and_the_group_rolled_back(db: sqlite3.Connection) -> None:
    write(db, NEED, new(), state(lease_epoch=5))
    with pytest.raises(FenceBroken, match="1 rows were sent and 0 landed"):
        write(db, new(2), state(2), state(1, lease_epoch=4, seq=99))
    assert db.execute("SELECT n, seq FROM task").fetchall() == [{"n": 1, "seq": 0}]


def test_an_equal_fence_is_an_ordinary_change(db: sqlite3.Connection) -> None:
    write(db, NEED, new(), state(lease_epoch=5))
    write(db, state(lease_epoch=5, seq=7))
    assert db.execute("SELECT seq FROM task").fetchone() == {"seq": 7}


def test_a_row_that_is_not_there_is_a_defect(db: sqlite3.Connection) -> None:
    with pytest.raises(FenceBroken):
        write(db, state(77))


AGENT = AgentRow("w1", "w1", "[]", "[]", "[]", "{}", 0, 0, "[]", 0, None, None, None, "", 1, 1)


def test_an_older_session_is_refused(db: sqlite3.Connection) -> None:
    write(db, AGENT, SessionRow("w1", 3, "i", "b", 1, 1))
    with pytest.raises(FenceBroken):
        write(db, SessionRow("w1", 2, "i", "b", 1, 1))


def test_a_satisfied_dependency_stays_satisfied(db: sqlite3.Connection) -> None:
    write(db, NEED, new(1), state(1), new(2), state(2), DepRow(2, 1, "skip", 1))
    with pytest.raises(FenceBroken):
        write(db, DepRow(2, 1, "skip", 0))


def test_a_unique_key_is_freed_and_taken_in_one_group(db: sqlite3.Connection) -> None:
    write(db, NEED, new(1, unique_key="u"), state(1))
    write(db, new(2, unique_key="u"), state(2), state(1, state="cancelled"))
    write(db, state(1, state="queued", generation=2, lease_epoch=1), state(2, state="cancelled"))
    assert db.execute("SELECT n FROM task WHERE state = 'queued'").fetchall() == [{"n": 1}]


def test_a_dependant_may_be_written_before_what_it_needs(db: sqlite3.Connection) -> None:
    write(db, DepRow(1, 2, "skip", 0), state(2), state(1), new(1), new(2), NEED)


@pytest.mark.parametrize(
    "impossible",
    [
        {"state": "working"},
        {"state": "queued", "holder_agent": "w1", "holder_session_epoch": 1},
        {"state": "assigned", "holder_agent": "w1"},
        {"state": "blocked"},
        {"state": "queued", "held": 1},
        {"state": "queued", "parked": 1},
        {"state": "queued", "merging": 1},
        {"state": "queued", "finished_at": 1},
        {"state": "lost"},
        {"state": "queued", "stopping": "working"},
        {"state": "queued", "seq": "first"},
    ],
    ids=str,
)
def test_impossible_states_cannot_be_stored(db: sqlite3.Connection, impossible: dict[str, Any]) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        write(db, NEED, new(), state(**impossible))


def test_the_fold_of_the_events_is_the_table() -> None:
    hub = Hub()
    n = hub.in_review()
    hub.do(c.Rework(n=n, lease_epoch=1, feedback="no"))  # type: ignore[arg-type]
    hub.later(241)
    fold: dict[int, str] = {}
    for row in hub.store.rows("SELECT task, from_state, to_state FROM event WHERE to_state IS NOT NULL ORDER BY seq"):
        assert fold.get(row["task"]) == row["from_state"]
        fold[row["task"]] = row["to_state"]
    assert fold == {row["n"]: row["state"] for row in hub.store.rows("SELECT n, state FROM task")}


@pytest.mark.parametrize("sql", [journal._UPDATE_TASK, journal._INSERT_TASK, *map(upsert_sql, KINDS)])
def test_no_write_builds_a_list_of_words_first(db: sqlite3.Connection, sql: str) -> None:
    """SQLite makes a temporary table of each list of three or more constants in a constraint or an index, anew for every row."""
    program = db.execute(f"EXPLAIN {sql}", [None] * sql.count("?")).fetchall()
    assert "OpenEphemeral" not in {step["opcode"] for step in program}


def test_the_story_of_a_change_is_not_taken_for_that_of_its_task() -> None:
    """A change that ended after its task made a whole store look broken: it was refused, and so were its backups."""
    hub = Hub()
    n = hub.in_review()
    hub.do(c.Cancel(n=n))  # type: ignore[arg-type]
    event = rows.EventRow(hub.clock.wall, "change.closed", "gatekeeper", task=n, from_state="open", to_state="closed")
    hub.store.write([], [event])
    assert hub.store.rows(statements()["store_fold"].replace(":limit", "10")) == []
    hub.store.connection.execute("UPDATE task SET state = 'done' WHERE n = ?", (n,))
    assert len(hub.store.rows(statements()["store_fold"].replace(":limit", "10"))) == 1
