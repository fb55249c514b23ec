"""One group, one transaction: the order inside it, savepoints of the operations, numbers of the events."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from hub.core.rows import EventRow
from hub.ids import Micros
from hub.store.base import Tx
from hub.store.journal import FenceBroken
from hub.store.sql import statements
from hub.store.writer import Group, commit_group
from hub.wire.spec import Spec
from tests.support.stores import MemoryStore
from tests.unit.hub.store.test_journal import NEED, new, state


def event(kind: str) -> EventRow:
    return EventRow(1, kind, "ann")


def keeps(key: str, value: str = "1") -> Any:
    def operation(tx: Tx) -> str:
        tx.run("meta_set", key=key, value=value)
        tx.emit(event(f"kept.{key}"))
        return value

    return operation


def test_events_are_numbered_contiguously_over_what_survived() -> None:
    store = MemoryStore()

    def fails(tx: Tx) -> None:
        tx.emit(event("never"))
        raise ValueError("no")

    first = store.write([], [event("a"), event("b")])
    second = store.write([], [event("c")], [keeps("x"), fails, keeps("y")])
    assert [seq for seq, _ in first.events + second.events] == [1, 2, 3, 4, 5]
    assert [row.kind for _, row in second.events] == ["c", "kept.x", "kept.y"]
    assert [row["seq"] for row in store.rows("SELECT seq FROM event ORDER BY seq")] == [1, 2, 3, 4, 5]


def test_operations_see_the_rows_of_their_group_and_each_other() -> None:
    store = MemoryStore()

    def look(tx: Tx) -> Any:
        found = tx.one("meta_get", key="x")
        return tx.one("task_fact", n=1)["state"], found and found["value"]  # type: ignore[index]

    done = store.write([NEED, new(), state()], [], [look, keeps("x", "2"), look])
    assert done.outcomes == [("queued", None), "2", ("queued", "2")]


def test_what_an_operation_raises_is_its_outcome_and_undoes_it_alone() -> None:
    store = MemoryStore()

    def half(tx: Tx) -> None:
        tx.run("meta_set", key="half", value="1")
        raise sqlite3.IntegrityError("of its own making")

    done = store.write([NEED, new(), state()], [], [keeps("a"), half, keeps("b")])
    assert isinstance(done.outcomes[1], sqlite3.IntegrityError)
    assert [row["key"] for row in store.rows("SELECT key FROM meta ORDER BY key")] == ["a", "b"]
    assert store.rows("SELECT n FROM task") == [{"n": 1}]


def test_a_group_that_cannot_be_committed_leaves_nothing() -> None:
    store = MemoryStore()
    with pytest.raises(FenceBroken):
        store.write([NEED, new(), state(), state(9)], [event("a")], [keeps("x")])
    assert not store.connection.in_transaction
    for table in ("task", "event", "meta", "requirement"):
        assert store.rows(f"SELECT * FROM {table}") == []


def test_a_broken_reference_is_found_by_the_commit() -> None:
    store = MemoryStore()
    with pytest.raises(sqlite3.IntegrityError):
        store.write([new(requirement_id=5), state()], [])
    assert not store.connection.in_transaction


def test_an_operation_cannot_keep_its_transaction() -> None:
    store = MemoryStore()
    kept: list[Tx] = []
    store.write([], [], [kept.append])
    for use in (lambda tx: tx.one("meta_get", key="x"), lambda tx: tx.all("meta_get", key="x"), lambda tx: tx.run("meta_set")):
        with pytest.raises(RuntimeError, match="over"):
            use(kept[0])


def test_everybody_in_a_group_has_the_same_moment() -> None:
    store = MemoryStore()
    group = Group(operations=[lambda tx: tx.now, lambda tx: tx.now])
    from hub.store.sql import statements

    assert commit_group(store.connection, group, statements(), 0, 77).outcomes == [77, 77]  # type: ignore[arg-type]


def test_the_specs_of_granted_leases_are_read_with_the_rows_that_grant_them() -> None:
    store = MemoryStore()
    group = Group(rows=[NEED, new(title="mine"), state()], grants=[(1, 1), (2, 1)])
    done = commit_group(store.connection, group, statements(), 0, Micros(0))
    spec = done.specs[1, 1]
    assert isinstance(spec, Spec) and spec.title == "mine"
    assert isinstance(done.specs[2, 1], LookupError), "one that cannot be read spoils nothing"
    assert store.rows("SELECT count(*) AS n FROM task") == [{"n": 1}]
