"""Of the hub's log only that becomes an operation of its own which nobody asked for from outside."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.crash.histories import of_the_log
from tests.crash.linearizability import Kind

CASES = {
    "it expired": (("lost", None, "lease_expired"), "queued", "free"),
    "it expired, and its success came late": (("succeeded", "applied", "late"), "queued", "free"),
    "it expired, and its success was salvaged": (("lost", "salvaged", "lease_expired"), "queued", "free"),
    "it was lost for the third time": (("lost", None, "agent_restarted"), "dead", "over"),
    "a result ended it": (("succeeded", "applied", "succeeded"), "done", None),
    "a success came while it was stopped": (("succeeded", "salvaged", "stopped"), "cancelled", None),
    "an offer was cancelled": (("cancelled", None, "cancel"), "cancelled", None),
}


@pytest.mark.parametrize(("attempt", "to", "released"), CASES.values(), ids=CASES.keys())
def test_a_lease_that_ends_unasked_is_a_release(
    tmp_path: Path, attempt: tuple[str | None, ...], to: str, released: str | None
) -> None:
    store = tmp_path / "hub.db"
    with sqlite3.connect(store) as db:
        db.execute("CREATE TABLE attempt (task, lease_epoch, ended_at, outcome, verdict, cause)")
        db.execute("CREATE TABLE event (seq, at, kind, task, agent, lease_epoch, from_state, to_state)")
        db.execute("INSERT INTO attempt VALUES (1, 1, 30, ?, ?, ?)", attempt)
        db.executemany(
            "INSERT INTO event VALUES (?, ?, ?, 1, 'a', ?, ?, ?)",
            [
                (1, 10, "task.submitted", 0, None, "queued"),
                (2, 20, "task.assigned", 1, "queued", "assigned"),
                (3, 25, "change.opened", 1, None, "open"),
                (4, 30, f"task.{to}", 1, "assigned", to),
            ],
        )
    db.close()
    ops = [(op.kind, op.answer) for _, op in of_the_log(store)]
    assert ops == [(Kind.SUBMIT, "ok"), (Kind.CLAIM, "ok"), *([(Kind.RELEASE, released)] if released else [])]
