"""Pruning: what is old and unneeded goes with all that belongs to it, everything else stays, and the audit tells the same story."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from hub.core import commands as c
from hub.core.rows import EventRow
from hub.ids import DAY, Micros
from hub.store import audit, blobs, retention
from hub.store.retention import Bounds, Named, Step, Walk
from tests.support.cluster import Hub
from tests.support.doors import NOW, Rows
from tests.support.stores import MemoryStore, finished

OLD = NOW - 100 * DAY
BOUNDS = Bounds(
    tasks=Micros(NOW - 90 * DAY), salvage=Micros(NOW - 180 * DAY), audit=Micros(NOW - 365 * DAY), blobs=Micros(NOW - DAY)
)
OF_TASK = ("attempt", "result", "salvage", "feedback", "question")
NEWEST = 1000


@pytest.fixture
def store() -> MemoryStore:
    """With a newest task, which is never pruned for its number's sake."""
    made = MemoryStore()
    Rows(made.connection).task(NEWEST, state="done", finished_at=OLD)
    return made


@pytest.fixture
def rows(store: MemoryStore) -> Rows:
    return Rows(store.connection)


def ended(rows: Rows, n: int, at: int = OLD, **changes: Any) -> int:
    return rows.task(n, **({"state": "done", "finished_at": at, "lease_epoch": 1} | changes))


def run(store: MemoryStore, operation: Any) -> Any:
    (outcome,) = store.write([], [], [operation]).outcomes
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def prune(store: MemoryStore, named: Named | None = None, limit: int = 500, bounds: Bounds = BOUNDS) -> list[Step]:
    """Walk through everything once."""
    named, steps = named or Named(), []
    walk: Walk | None = Walk()
    while walk is not None:
        steps.append(run(store, retention.prune_tasks(walk, limit, bounds, named)))
        named.settle()
        walk = steps[-1].on
    return steps


def left(store: MemoryStore) -> list[int]:
    return [row["n"] for row in store.rows("SELECT n FROM task ORDER BY n") if row["n"] != NEWEST]


# ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_ended_task_goes_with_all_that_belongs_to_it_and_nothing_else_does(store: MemoryStore, rows: Rows) -> None:
    rows.repository()
    for n, at in ((1, OLD), (2, NOW - 89 * DAY)):
        ended(rows, n, at)
        rows.attempt(n, 1)
        rows.insert("result", task=n, lease_epoch=1, output="", commits="[]")
        rows.insert("salvage", task=n, lease_epoch=1, sha256="s", at=NOW - 200 * DAY, reason="", body="no JSON")
        rows.feedback(n, 1)
        rows.insert("question", task=n, lease_epoch=1, qid="q", text="", options="[]", asked_at=1)
        rows.change(n, n, state="merged")
        rows.insert("review", change=n, reviewer="ann", head_sha="x", verdict="approved", person=1, comment="", at=1)
        rows.task(10 + n)
    rows.change(9, 2, lease_epoch=2, state="closed")
    rows.insert("task_dep", task=1, needs=2, policy="skip", satisfied=1)
    assert [step.deleted for step in prune(store)] == [1]
    assert left(store) == [2, 11, 12]
    for table in OF_TASK:
        assert [row["task"] for row in store.rows(f"SELECT task FROM {table}")] == [2], table
    assert [row["id"] for row in store.rows("SELECT id FROM change ORDER BY id")] == [2, 9]
    assert len(store.rows("SELECT * FROM review")) == 1
    assert store.rows("SELECT * FROM task_dep") == []
    assert store.rows("PRAGMA foreign_key_check") == []
    (event,) = store.rows("SELECT kind, actor, data FROM event")
    assert (event["kind"], event["actor"], json.loads(event["data"])) == ("tasks.pruned", "hub", {"tasks": [1]})


def test_what_something_still_needs_stays(store: MemoryStore, rows: Rows) -> None:
    rows.repository()
    ended(rows, 1)
    rows.task(2, state="waiting")
    rows.insert("task_dep", task=2, needs=1, policy="skip", satisfied=1)
    ended(rows, 3)
    rows.change(1, 3, state="checking", check_task=4)
    ended(rows, 4, type="check")
    ended(rows, 5)
    rows.insert("salvage", task=5, lease_epoch=1, sha256="s", at=OLD, reason="", body="{}")
    ended(rows, 6)
    rows.change(2, 6, state="merged")
    ended(rows, 7)
    rows.insert("salvage", task=7, lease_epoch=1, sha256="s", at=1, reason="", body="{}", state="applying")
    assert [step.deleted for step in prune(store)] == [0]
    assert left(store) == [1, 2, 3, 4, 5, 6, 7]
    assert store.rows("SELECT * FROM event") == [], "nothing happened, so nothing is told"


@pytest.mark.parametrize("state", ["applied", "dropped"])
def test_salvage_that_people_decided_about_keeps_no_task(store: MemoryStore, rows: Rows, state: str) -> None:
    ended(rows, 1)
    rows.insert("salvage", task=1, lease_epoch=1, sha256="s", at=NOW, reason="", body="{}", state=state)
    prune(store)
    assert left(store) == []


def test_the_newest_task_keeps_its_number(store: MemoryStore) -> None:
    prune(store)
    assert [row["n"] for row in store.rows("SELECT n FROM task")] == [NEWEST]


def test_a_chain_goes_from_its_end(store: MemoryStore, rows: Rows) -> None:
    for n in range(1, 5):
        ended(rows, n)
    for n in range(2, 5):
        rows.insert("task_dep", task=n, needs=n - 1, policy="skip", satisfied=1)
    assert [sum(step.deleted for step in prune(store)) for _ in range(5)] == [1, 1, 1, 1, 0]


def test_a_walk_goes_on_behind_what_it_left(store: MemoryStore, rows: Rows) -> None:
    rows.task(99, state="waiting")
    for n in range(1, 12):
        ended(rows, n, at=OLD + n % 3)
        if n % 2:
            rows.insert("task_dep", task=99, needs=n, policy="skip", satisfied=1)
    steps = prune(store, limit=2)
    assert sum(step.deleted for step in steps) == 5
    assert all(step.seen <= 2 for step in steps)
    assert left(store) == [1, 3, 5, 7, 9, 11, 99]


def test_for_ever_is_for_ever(store: MemoryStore, rows: Rows) -> None:
    ended(rows, 1, at=1)
    rows.insert("salvage", task=1, lease_epoch=1, sha256="s", at=1, reason="", body="{}")
    prune(store, bounds=Bounds(tasks=Micros(NOW), salvage=None, audit=None, blobs=Micros(0)))
    assert left(store) == [1], "its salvage is kept for ever, so it is, too"


def test_the_fold_of_the_events_is_still_the_table() -> None:
    hub = Hub()
    (gone,) = hub.submit()
    hub.do(c.Cancel(n=gone))
    hub.later(1)
    (kept,) = hub.submit()
    hub.do(c.Cancel(n=kept))
    (live,) = hub.submit()
    before = hub.store.rows("SELECT finished_at FROM task WHERE n = ?", kept)[0]["finished_at"]
    prune(hub.store, bounds=Bounds(tasks=Micros(before), salvage=Micros(0), audit=None, blobs=Micros(0)))
    fold: dict[int, str] = {}
    for event in hub.store.rows("SELECT task, kind, to_state, data FROM event ORDER BY seq"):
        if event["kind"] == retention.PRUNED:
            for n in json.loads(event["data"])["tasks"]:
                del fold[n]
        elif event["to_state"] is not None and event["task"] is not None:
            fold[event["task"]] = event["to_state"]
    assert fold == {row["n"]: row["state"] for row in hub.store.rows("SELECT n, state FROM task")}
    assert live in fold and gone not in fold


# ── beside commands ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_that_a_command_names_is_not_pruned_meanwhile(store: MemoryStore, rows: Rows) -> None:
    ended(rows, 1)
    named = Named()
    with named.holding([1]) as gone, named.holding([1, 1]):
        assert gone == frozenset()
        prune(store, named)
        assert left(store) == [1]
    prune(store, named)
    assert left(store) == []
    assert not named._named


def test_a_task_that_is_being_pruned_is_gone_for_whoever_names_it_now() -> None:
    named = Named()
    assert named.doom([1, 2]) == [1, 2]
    with named.holding([2, 3]) as gone:
        assert gone == {2}
    named.settle()
    with named.holding([2, 3]) as gone:
        assert gone == frozenset()


# ── what hangs on no task ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_newest_of_each_stays(store: MemoryStore, rows: Rows) -> None:
    for agent in "abab":
        rows.insert("agent_transition", agent=agent, at=OLD, from_state="idle", to_state="offline", reason="")
    for cid, noted in ((1, 1), (2, None), (3, 1)):
        base = {"task": 1, "lease_epoch": 1, "agent": "a", "kind": "cancel", "text": "", "created_at": OLD}
        rows.insert("control", cid=cid, noted_at=noted, **base)
    assert run(store, retention.prune_plain("prune_transitions", Micros(NOW))).deleted == 2
    assert [row["id"] for row in store.rows("SELECT id FROM agent_transition")] == [3, 4]
    assert run(store, retention.prune_plain("prune_controls", Micros(NOW))).deleted == 1
    assert [row["cid"] for row in store.rows("SELECT cid FROM control")] == [2, 3]


def test_salvage_of_unknown_tasks_goes_by_its_own_age(store: MemoryStore, rows: Rows) -> None:
    for task, at in ((1, OLD), (2, NOW), (NEWEST, OLD)):
        rows.insert("salvage", task=task, lease_epoch=1, sha256="s", at=at, reason="", body="{}")
    assert run(store, retention.prune_plain("prune_lone_salvage", Micros(NOW - DAY))).deleted == 1
    assert [row["task"] for row in store.rows("SELECT task FROM salvage")] == [2, NEWEST]


def test_a_blob_goes_when_nothing_names_it_and_nobody_is_about_to(store: MemoryStore, rows: Rows) -> None:
    for name, at in (("result", OLD), ("salvage", OLD), ("spare", OLD), ("again", OLD), ("fresh", NOW)):
        rows.insert("blob", sha256=name, size=1, created_at=at, body=b"x")
    rows.insert("result", task=NEWEST, lease_epoch=1, output="", output_ref="result", commits="[]")
    rows.insert("salvage", task=1, lease_epoch=1, sha256="a", at=1, reason="", body='{"output_ref": "salvage"}')
    rows.insert("salvage", task=1, lease_epoch=1, sha256="b", at=1, reason="", body="no JSON")
    needed = finished(retention.salvaged_blobs(store.reader))
    spare, on = finished(retention.spare_blobs(store.reader, Walk(), BOUNDS.blobs, needed))
    assert (sorted(row["sha256"] for row in spare), on) == (["again", "spare"], None)
    done = store.connection.execute("UPDATE blob SET created_at = ? WHERE sha256 = 'again'", (NOW,))
    assert done.rowcount == 1
    assert run(store, retention.prune_blobs(["again", "spare", "result"], BOUNDS.blobs)).deleted == 1
    assert [row["sha256"] for row in store.rows("SELECT sha256 FROM blob ORDER BY 1")] == [
        "again",
        "fresh",
        "result",
        "salvage",
    ]


def test_storing_a_blob_again_makes_it_young(store: MemoryStore, rows: Rows) -> None:
    rows.insert("blob", sha256="x", size=1, created_at=-1, body=b"x")
    assert run(store, blobs.put("x", b"x")) is False
    assert store.rows("SELECT created_at FROM blob") == [{"created_at": 0}]


# ── the audit ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_old_events_of_what_is_gone_are_exported_and_all_others_stay(store: MemoryStore, rows: Rows, tmp_path: Path) -> None:
    ancient = NOW - 400 * DAY
    rows.task(1)
    for seq, given in enumerate(
        [{"task": 7, "data": '{"a": 1}'}, {"task": 1}, {"agent": "bob"}, {"task": 7, "at": NOW}, {"task": 8}], start=1
    ):
        rows.event(seq, **({"at": ancient} | given))
    page = finished(retention.old_events(store.reader, 0, Micros(NOW - 365 * DAY)))
    assert [seq for seq, _ in page.events] == [1, 3], "the task of the second is there; the fourth is young, and ends the walk"
    assert page.on is None

    path = audit.export(tmp_path / "audit", page.events)
    assert [file.name for file in path.parent.iterdir()] == ["events-000000000000001-000000000000003.jsonl.gz"]
    assert path.stat().st_mode & 0o777 == 0o600
    lines = [orjson.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert lines[0] == {"seq": 1, "at": ancient, "kind": "task.queued", "actor": "ann", "task": 7, "data": {"a": 1}}
    assert lines[1] == {"seq": 3, "at": ancient, "kind": "task.queued", "actor": "ann", "agent": "bob"}
    assert audit.export(tmp_path / "audit", page.events).read_bytes() == path.read_bytes(), "again is the same"

    assert run(store, retention.delete_events([1, 3])).deleted == 2
    assert [row["seq"] for row in store.rows("SELECT seq FROM event")] == [2, 4, 5]


def test_the_newest_event_keeps_its_number(store: MemoryStore, rows: Rows) -> None:
    rows.event(1, at=1)
    assert finished(retention.old_events(store.reader, 0, Micros(NOW))).events == []


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit.os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        audit.export(tmp_path, [(1, EventRow(1, "k", "ann"))])
    assert list(tmp_path.iterdir()) == []
