"""Every named query is served by an index: a read must not get slower as history grows."""

import re
import sqlite3

import pytest

from hub.store.sql import statements
from tests.support.doors import open_memory

GROWING = {
    "task",
    "task_dep",
    "attempt",
    "result",
    "salvage",
    "feedback",
    "question",
    "control",
    "agent_transition",
    "change",
    "review",
    "event",
    "blob",
}
"""Tables that grow with the work done. The others grow with what people register or with the fleet."""


WHOLE = {"restored_results", "store_facts", "store_tasks_by_state", "store_fold"}
"""What is asked of a whole store, on a copy or a connection of its own: reading all of it is the point."""


@pytest.fixture(scope="module")
def database():
    connection = open_memory()
    # the planner may prefer a scan of what it believes to be empty: tell it how large these are
    connection.execute("ANALYZE")
    connection.executemany(
        "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, NULL, '1000000')", [(table,) for table in GROWING]
    )
    connection.execute("ANALYZE sqlite_schema")
    yield connection
    connection.close()


def partial_indexes(connection):
    rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
    return {row["name"] for row in rows if " WHERE " in row["sql"]}


def plan(connection, sql):
    marks = sql.count("?")
    given = [1] * marks if marks else dict.fromkeys(re.findall(r":([a-z_0-9]+)", sql), 1)
    return [row["detail"] for row in connection.execute("EXPLAIN QUERY PLAN " + sql, given)]


def scans(connection, sql):
    """Steps of the plan that walk a growing table. A partial index is a bounded set, so walking one is fine."""
    small = partial_indexes(connection)
    aliases = {found[1] or found[0]: found[0] for found in re.findall(r"(?:FROM|JOIN)\s+([a-z_]+)(?:\s+AS\s+([a-z_]+))?", sql)}
    found = []
    for step in plan(connection, sql):
        walked = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", step)
        if walked and aliases.get(walked[1], walked[1]) in GROWING and walked[2] not in small:
            found.append(step)
    return found


@pytest.mark.parametrize("name", sorted(statements().keys() - WHOLE))
def test_no_query_scans_a_growing_table(database, name):
    assert scans(database, statements()[name]) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT n FROM task WHERE title = :title",
        "SELECT t.n FROM task AS t WHERE t.created_by = :by ORDER BY t.n",
        "SELECT count(*) FROM event",
        "SELECT task FROM attempt ORDER BY task",
    ],
)
def test_the_test_sees_a_scan(database, sql):
    assert scans(database, sql)


def test_a_page_needs_no_sorting(database):
    pages = [name for name in statements() if "_page" in name]
    assert len(pages) >= 8
    for name in pages:
        assert not [step for step in plan(database, statements()[name]) if "ORDER BY" in step], name


def test_every_query_is_one_statement_of_the_real_schema(database):
    for sql in statements().values():
        assert sqlite3.complete_statement(sql + ";")


def test_every_index_serves_a_query_or_a_constraint(database):
    """Each one is written with every row: one that nobody asks for only costs."""
    walked = " ".join(step for sql in statements().values() for step in plan(database, sql))
    rows = database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    unasked = {row["name"] for row in rows if "UNIQUE" not in row["sql"] and row["name"] not in walked}
    assert unasked == set()
