"""What a released version wrote is understood by this one, and what this one says by that.

Each folder of ``releases`` was written by ``ops/compat.py freeze`` with that version's own code and is never changed. Reading old bytes is
tried with today's decoders. Whether an old decoder would read today's bytes is asked of its frozen schema, for every frame, with every
field filled and every closed word: so a field may be added if it has a default, but none may be removed, renamed, demanded or narrowed,
and no word may be added to those an old side knows, for it refuses what it does not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
import orjson
import pytest
from pydantic import Field, TypeAdapter, ValidationError

from hub.core.lease import Terms
from hub.core.scheduler import Scheduler
from hub.ids import Outcome
from hub.store.recovery import load_snapshot
from hub.store.sqlite import STORE_FILE, SqliteStore
from hub.wire import frames
from hub.wire.codec import decode_from_hub, decode_from_sidecar, decode_spec
from sidecar.core.records import decode as decode_record
from sidecar.journal import Journal
from tests.support.clock import Clock
from tests.support.fake_hub import FakeHub, running
from tests.support.scripts import script

RELEASES = sorted(path for path in (Path(__file__).parent / "releases").iterdir() if path.is_dir())
DECODE: dict[str, Any] = {"sidecar": decode_from_sidecar, "hub": decode_from_hub, "journal": decode_record, "blob": decode_spec}
SAMPLES = sorted(path for release in RELEASES for place in DECODE for path in (release / place).glob("*.json"))


compat, shapes = script("compat"), script("shapes")
KINDS: dict[str, dict[str, type[Any]]] = compat.kinds()


def name(path: Path) -> str:
    return "-".join(path.with_suffix("").parts[-3:])


# ── old bytes, today's decoders ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", SAMPLES, ids=name)
def test_what_a_release_wrote_is_read_today(path: Path) -> None:
    decode = DECODE[path.parent.name]
    for how, body in orjson.loads(path.read_bytes()).items():
        found = orjson.loads(orjson.dumps(decode(orjson.dumps(body))))
        assert has(found, body), f"{how}: what it said is not kept"


def has(found: Any, said: Any) -> bool:
    """Whether everything that was said is there, beside what has been added since."""
    if isinstance(said, dict):
        return isinstance(found, dict) and all(key in found and has(found[key], value) for key, value in said.items())
    if isinstance(said, list):
        return isinstance(found, list) and len(found) == len(said) and all(map(has, found, said))
    return bool(found == said)


# ── today's bytes, an old decoder ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
@pytest.mark.parametrize("place", DECODE)
def test_what_is_written_today_a_release_can_read(release: Path, place: str) -> None:
    known = {path.stem for path in (release / place).glob("*.json")}
    assert known <= KINDS[place].keys(), f"{known - KINDS[place].keys()} was said by {release.name} and is gone"
    if place == "journal":
        return  # a sidecar does not go back to an older journal: see ops/docs/upgrade.md
    schema = orjson.loads((release / "schemas" / f"{place}.json").read_bytes())
    for kind in sorted(known):
        faults = refusals(schema, KINDS[place][kind])
        faults += wider(TypeAdapter(KINDS[place][kind]).json_schema(), schema, kind)
        assert not faults, f"{release.name} would refuse {kind}: {faults}"


def refusals(schema: dict[str, Any], kind: type[Any]) -> list[str]:
    """Why an old decoder would refuse this kind as it is written today."""
    judge = jsonschema_rs.validator_for(schema)
    bodies = [orjson.loads(orjson.dumps(value)) for value in (*shapes.variants(kind), shapes.minimal(kind))]
    return [error.message for body in bodies for error in judge.iter_errors(body)]


BOUNDS = {"maximum": 1, "maxLength": 1, "maxItems": 1, "minimum": -1, "minLength": -1, "minItems": -1}
"""Limits of a value, and in which direction they grow wider."""


def wider(today: Any, old: Any, at: str) -> list[str]:
    """Limits that were narrower for the release: what one side may say the other must be able to hear. Compares definitions of one name."""
    faults: list[str] = []
    for name, definition in [*(today.get("$defs") or {}).items(), (str(today.get("title")), today)]:
        before = (old.get("$defs") or {}).get(name)
        for field, now in (definition.get("properties") or {}).items() if before else ():
            then = (before.get("properties") or {}).get(field)
            faults += _wider(now, then, f"{at}: {name}.{field}") if then is not None else []
    return faults


def _wider(now: Any, then: Any, at: str) -> list[str]:
    if isinstance(now, list) and isinstance(then, list):
        return [fault for pair in zip(now, then, strict=False) for fault in _wider(*pair, at)]
    if not isinstance(now, dict) or not isinstance(then, dict):
        return []
    faults = [
        f"{at}: {bound} {then[bound]} became {now.get(bound, 'unbounded')}"
        for bound, way in BOUNDS.items()
        if bound in then and (bound not in now or now[bound] * way > then[bound] * way)
    ]
    return faults + [fault for key in now.keys() & then.keys() for fault in _wider(now[key], then[key], at)]


# ── the check itself ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Old:
    t: Literal["x"] = "x"
    task: Annotated[int, Field(ge=1)]
    word: Literal["a", "b"] = "a"
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Grown(Old):
    later: str | None = None


@dataclass(frozen=True, kw_only=True)
class Renamed:
    t: Literal["x"] = "x"
    job: Annotated[int, Field(ge=1)]
    word: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Wordier:
    t: Literal["x"] = "x"
    task: Annotated[int, Field(ge=1)]
    word: Literal["a", "b", "c"] = "a"


@dataclass(frozen=True, kw_only=True)
class Widened:
    t: Literal["x"] = "x"
    task: Annotated[int, Field(ge=0)] | None
    word: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Demanding(Old):
    needed: int


@pytest.mark.parametrize(
    ("kind", "is_read"), [(Old, True), (Grown, True), (Renamed, False), (Wordier, False), (Widened, False)]
)
def test_a_field_with_a_default_may_be_added_and_nothing_else(kind: type[Any], is_read: bool) -> None:
    assert (not refusals(TypeAdapter(Old).json_schema(), kind)) is is_read


@dataclass(frozen=True, kw_only=True)
class Longer:
    texts: Annotated[tuple[Annotated[str, Field(max_length=9)], ...], Field(max_length=4)] = ()


def test_a_limit_may_not_grow() -> None:
    today = {"$defs": {"Longer": TypeAdapter(Longer).json_schema()}}
    then = orjson.loads(orjson.dumps(today))
    assert wider(today, then, "x") == []
    then["$defs"]["Longer"]["properties"]["texts"]["maxItems"] = 3
    then["$defs"]["Longer"]["properties"]["texts"]["items"]["maxLength"] = 8
    assert len(wider(today, then, "x")) == 2


def test_a_new_field_that_is_needed_is_seen_by_the_other_direction() -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Demanding).validate_json(orjson.dumps(shapes.full(Old)))


# ── what was kept ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
async def test_a_store_of_a_release_is_migrated_and_opened_with_every_task_in_its_state(release: Path, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / STORE_FILE) as old:
        old.executescript((release / "store.sql").read_text("utf-8"))
    old.close()
    store = await SqliteStore.open(tmp_path / STORE_FILE, durability="full")
    try:
        snapshot = await load_snapshot(store.reader)
        scheduler, _ = Scheduler.open(snapshot, Terms(), Clock().stamp(), hub_epoch=9)
        states = {
            row["n"]: row["state"]
            for row in await store.reader.run(lambda db: db.execute("SELECT n, state FROM task").fetchall())
        }
        broken = await store.reader.run(lambda db: db.execute("PRAGMA foreign_key_check").fetchall())
    finally:
        await store.close()
    numbers: dict[str, int] = json.loads((release / "manifest.json").read_bytes())["tasks"]
    wanted = {n: {"reported": "working"}.get(state, state) for state, n in numbers.items()}
    assert states == wanted and not broken
    live = {n for n, state in wanted.items() if state not in ("done", "dead", "cancelled")}
    assert set(scheduler.cluster.tasks) == live


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_journal_of_a_release_is_read_whole(release: Path, tmp_path: Path) -> None:
    numbers = json.loads((release / "manifest.json").read_bytes())["tasks"]
    last: dict[str, dict[int, str]] = {}
    for agent in ("agent-1", "agent-2"):
        copied = shutil.copytree(release / "state" / agent / "agents" / agent, tmp_path / agent)
        journal = Journal(copied / "journal")
        last[agent] = {record.task: record.k for record in journal.records if record.k != "seen"}
        journal.close()
    assert last["agent-1"][numbers["working"]] == "woken"
    assert last["agent-2"] == {numbers["reported"]: "result"}


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
async def test_a_sidecar_of_today_goes_on_where_one_of_a_release_died(release: Path, tmp_path: Path) -> None:
    """The run that died with its machine is lost, the result that waited is sent; both as the hub knows them."""
    numbers = json.loads((release / "manifest.json").read_bytes())["tasks"]
    async with running() as hub:
        for agent, n, outcome in (
            ("agent-1", numbers["working"], Outcome.LOST),
            ("agent-2", numbers["reported"], Outcome.SUCCEEDED),
        ):
            hub.got.clear()
            async with sidecar(hub, release / "state" / agent, tmp_path / agent, agent):
                hello = await hub.expect(frames.Hello)
                result = await hub.expect(frames.Result)
            said = {item.task for item in (*hello.held, *hello.outbox)}
            assert (hello.install_id, said) == ((release / "state" / agent / "install_id").read_text("utf-8").strip(), {n})
            assert (result.task, result.lease_epoch, result.outcome) == (n, 1, outcome)


@contextlib.asynccontextmanager
async def sidecar(hub: FakeHub, kept: Path, home: Path, agent: str) -> AsyncIterator[None]:
    """Today's sidecar on a copy of a state directory."""
    state = shutil.copytree(kept, home)
    for path in (state, *state.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    config = home.with_suffix(".toml")
    config.write_text(
        f'hub_url = "{hub.url}"\nstate_dir = "{state}"\nreconnect_first_s = 0.1\n[[agents]]\nid = "{agent}"\nruntime = "mock"\n',
        "utf-8",
    )
    with home.with_suffix(".log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar", "run", "--config", str(config),
            env={**os.environ, "AGENTCOM_TOKEN": hub.token}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        await process.wait()
