"""What is kept of attempts: brought over from before there was more than a body, listed page by page, offered within bounds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import orjson
import pytest

from hub.store import salvage
from hub.store.salvage import OFFERS_BYTES
from tests.support.doors import NOW, SHA, MemoryReader, MemoryTx, Rows, open_memory


@pytest.fixture
def rows() -> Iterator[Rows]:
    connection = open_memory()
    yield Rows(connection)
    connection.close()


def keep(rows: Rows, task: int, lease_epoch: int, **changes: Any) -> None:
    columns = {"sha256": "f" * 64, "at": NOW, "reason": "late", "body": "{}", "outcome": "succeeded"} | changes
    rows.insert("salvage", task=task, lease_epoch=lease_epoch, **columns)


def body(**fields: Any) -> str:
    return orjson.dumps(
        {"outcome": "succeeded", "branch": "agentcom/t-1/1", "base_sha": SHA, "head_sha": "b" * 40} | fields
    ).decode()


@pytest.mark.parametrize(
    ("body", "reason", "expected"),
    [
        (body(commits=[{"sha": "b" * 40}]), "stale", ("succeeded", "agentcom/t-1/1", "b" * 40, None)),
        (body(commits=[], salvage_ref="agentcom/salvage/t-1/1"), "stale", ("succeeded", None, None, "agentcom/salvage/t-1/1")),
        (body(outcome="triumph", commits=[1], head_sha=None), "stale", ("failed", None, None, None)),
        (body(commits=[1], head_sha="--upload-pack=x"), "stale", ("succeeded", None, None, None)),
        (body(commits=[1]), "its body was malformed", ("failed", None, None, None)),
        ("{]", "stale", ("failed", None, None, None)),
        ("[]", "stale", ("failed", None, None, None)),
    ],
)
def test_what_was_kept_before_is_brought_over_from_its_body(body: str, reason: str, expected: tuple[Any, ...]) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    schema = files("hub.store").joinpath("schema")
    for name in ("0001_foundation.sql", "0002_identity.sql"):
        connection.executescript(schema.joinpath(name).read_text("utf-8"))
    rows = Rows(connection)
    rows.task(1)
    rows.attempt(1, 1, agent="ada")
    rows.insert("salvage", task=1, lease_epoch=1, sha256="f" * 64, at=NOW, reason=reason, body=body)
    connection.executescript(schema.joinpath("0003_salvage.sql").read_text("utf-8"))
    [row] = connection.execute("SELECT * FROM salvage").fetchall()
    assert (row["state"], row["agent"]) == ("open", "ada")
    assert (row["outcome"], row["branch"], row["head_sha"], row["salvage_ref"]) == expected
    connection.close()


async def test_every_record_is_on_one_page_whatever_the_pages_hold(rows: Rows) -> None:
    reader = MemoryReader(rows.connection)
    rows.task(1, state="done")
    rows.task(2, state="dead")
    for task, lease, sha in ((1, 1, "a"), (2, 1, "b"), (2, 1, "c"), (2, 2, "a"), (9, 3, "a")):
        keep(rows, task, lease, sha256=sha * 64)
    rows.connection.execute("UPDATE salvage SET state = 'dropped' WHERE task = 2 AND lease_epoch = 2")
    seen: list[str] = []
    cursor: str | None = f"{10**17}.0."
    while cursor is not None:
        found, cursor = await salvage.page(reader, before=salvage.read_cursor(cursor), limit=2)
        seen += [f"{one.ref} {one.sha256[0]}" for one in found]
    assert seen == ["t-9/3 a", "t-2/2 a", "t-2/1 c", "t-2/1 b", "t-1/1 a"]
    waiting, _ = await salvage.page(reader, undecided=True)
    assert [one.ref for one in waiting] == ["t-9/3", "t-2/1", "t-2/1"], "of a done task nobody has to decide"
    assert await salvage.count_open(reader) == 3


def test_a_claim_is_told_of_the_newest_open_records_within_bounds(rows: Rows) -> None:
    for lease in range(1, 6):
        said = orjson.dumps({"output": "\x01" * 5000 + f"the end of {lease}"}).decode()
        keep(rows, 1, lease, body=said, branch="b" * 255, head_sha=SHA, agent="a" * 64, reason="r" * 600)
    rows.connection.execute("UPDATE salvage SET state = 'dropped' WHERE lease_epoch = 4")
    told = salvage.offers(MemoryTx(rows.connection, NOW, []), 1, 6)
    assert [one["lease_epoch"] for one in told] == [5, 3, 2]
    assert all(one["summary"].endswith(f"the end of {one['lease_epoch']}") for one in told)
    assert len(orjson.dumps(told)) <= OFFERS_BYTES
    assert salvage.offers(MemoryTx(rows.connection, NOW, []), 1, 1) == []
