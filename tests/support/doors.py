"""Fakes behind the HTTP door: a conductor that records commands, a store of real SQLite rows, a feed and a gatekeeper."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI

from hub.core.agent import Agent
from hub.core.commands import (
    Command,
    Dispatch,
    DropSalvage,
    OnTask,
    PauseAgent,
    Registry,
    ReleaseAgent,
    RemoveAgent,
    ResumeAgent,
    Submit,
)
from hub.core.decision import Dispatched, Reply, Submitted, SubmittedTask, TaskAnswer
from hub.core.errors import Refused
from hub.core.rows import EventRow
from hub.edge.auth import Authenticator, digest, mint
from hub.edge.http import Doors, create_http
from hub.edge.http.registry import Registrar
from hub.edge.keyring import Keyring
from hub.edge.ratelimit import Limiter, Rates
from hub.ids import (
    ANY_AGENT,
    SECOND,
    BackupReason,
    FindingState,
    Lane,
    LeaseEpoch,
    Scope,
    SpaceState,
    TaskId,
    TaskState,
    agent_scope,
)
from hub.services.errands import Round
from hub.services.salvage import Salvage
from hub.store.backups import Backup
from hub.store.base import Record
from hub.store.compaction import Pages
from hub.store.health import Health
from hub.store.manifest import Manifest
from hub.store.reserve import Space
from hub.store.sql import statements
from hub.store.tokens import TokenRecord
from hub.wire.finding import Finding

NOW = 1_800_000_000_000_000
"""2027-01-15T08:00:00Z in microseconds."""
SHA = "a" * 40


def open_memory() -> sqlite3.Connection:
    """An empty database with the real schema."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    for script in sorted(files("hub.store").joinpath("schema").iterdir(), key=lambda entry: entry.name):
        connection.executescript(script.read_text("utf-8"))
    return connection


class MemoryReader:
    """``hub.store.base.Reader`` over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def one(self, query: str, /, **params: Any) -> Record | None:
        return self._connection.execute(statements()[query], params).fetchone()

    async def all(self, query: str, /, **params: Any) -> list[Record]:
        return self._connection.execute(statements()[query], params).fetchall()

    async def look(self, fn: Callable[[Any], Any]) -> Any:
        return fn(MemoryTx(self._connection, NOW, []))


class MemoryTx:
    """``hub.store.base.Tx`` over one connection."""

    def __init__(self, connection: sqlite3.Connection, now: int, events: list[EventRow]) -> None:
        self._connection = connection
        self._events = events
        self.now = now

    def one(self, query: str, /, **params: Any) -> Record | None:
        return self._connection.execute(statements()[query], params).fetchone()

    def all(self, query: str, /, **params: Any) -> list[Record]:
        return self._connection.execute(statements()[query], params).fetchall()

    def run(self, query: str, /, **params: Any) -> int:
        return self._connection.execute(statements()[query], params).rowcount

    def emit(self, event: EventRow) -> None:
        self._events.append(event)


class Rows:
    """Inserts rows as the journal would, with defaults for what a test does not care about."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def insert(self, table: str, **columns: Any) -> None:
        names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
        self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", columns)

    def task(self, n: int, **changes: Any) -> int:
        columns: dict[str, Any] = {
            "n": n,
            "project": "default",
            "title": f"task {n}",
            "type": "task",
            "lane": "normal",
            "access": "write",
            "needs_change": 1,
            "requirement_id": 1,
            "max_tries": 3,
            "created_by": "ann",
            "created_at": NOW,
            "spec": "{}",
            "generation": 1,
            "state": "queued",
            "seq": n,
            "tries": 0,
            "lost": 0,
            "rework": 0,
            "claims": 0,
            "lease_epoch": 0,
            "held": 0,
            "parked": 0,
            "merging": 0,
            "updated_at": NOW,
            **changes,
        }
        if columns["state"] in ("done", "dead", "cancelled"):
            columns.setdefault("finished_at", NOW)
        if columns["state"] in ("assigned", "working"):
            columns.setdefault("holder_agent", "bob")
            columns.setdefault("holder_session_epoch", 1)
        self.connection.execute(
            "INSERT OR IGNORE INTO requirement (id, project, capabilities) VALUES (1, 'default', '[\"python\"]')"
        )
        self.insert("task", **columns)
        return n

    def attempt(self, task: int, lease_epoch: int, **changes: Any) -> None:
        base = {"agent": "bob", "session_epoch": 1, "assigned_at": NOW + lease_epoch}
        self.insert("attempt", task=task, lease_epoch=lease_epoch, **{**base, **changes})

    def feedback(self, task: int, lease_epoch: int, **changes: Any) -> None:
        base = {"at": NOW, "source": "failure", "text": f"feedback {lease_epoch}"}
        self.insert("feedback", task=task, lease_epoch=lease_epoch, **{**base, **changes})

    def event(self, seq: int, **changes: Any) -> None:
        self.insert("event", seq=seq, **{"at": NOW, "kind": "task.queued", "actor": "ann", **changes})

    def agent(self, agent: str, **changes: Any) -> None:
        base: dict[str, Any] = {
            "id": agent,
            "name": agent.title(),
            "capabilities": '["python"]',
            "projects": "[]",
            "runtimes": '[{"name": "mock", "version": "1", "caps": []}]',
            "host": '{"hostname": "box"}',
            "paused": 0,
            "quiet": 0,
            "quarantine_level": 0,
            "note": "",
            "first_seen_at": NOW,
            "last_seen_at": NOW,
        }
        self.insert("agent", **{**base, **changes})

    def repository(self, name: str = "site", **changes: Any) -> None:
        base = {"url": f"/srv/{name}.git", "forge": "local", "base": "main", "created_at": NOW, "updated_at": NOW}
        self.insert("repository", name=name, **{**base, **changes})

    def project(self, project: str = "default", **changes: Any) -> None:
        self.insert("project", id=project, **{"name": project, "created_at": NOW, "updated_at": NOW, **changes})

    def change(self, change: int, task: int, **changes: Any) -> None:
        base: dict[str, Any] = {
            "lease_epoch": 1,
            "repo": "site",
            "state": "waiting",
            "title": f"feat: change {change}",
            "body": "why",
            "labels": '["tier-2"]',
            "base": "main",
            "branch": f"agentcom/t-{task}/1",
            "base_sha": "b" * 40,
            "head_sha": SHA,
            "commits": '[{"sha": "' + SHA + '", "subject": "feat: x", "files": ["a.py"]}]',
            "stat": '{"added": 3, "deleted": 1, "files": [{"path": "a.py", "status": "M", "added": 3, "deleted": 1}],'
            ' "complete": true}',
            "tier": 2,
            "reasons": '["no check is registered"]',
            "created_at": NOW,
            "updated_at": NOW,
        }
        self.insert("change", id=change, task=task, **{**base, **changes})


class FakeScheduler:
    """``SchedulerView``: what a test sets."""

    def __init__(self) -> None:
        self.explanations: dict[int, str] = {}
        self.present: dict[str, Agent] = {}
        self.done: dict[int, tuple[int | None, str]] = {}
        self.depth: dict[Lane, int] = {}
        self.live: dict[TaskState, int] = {}

    def explain(self, n: TaskId) -> str | None:
        return self.explanations.get(n)

    def agents(self) -> list[Agent]:
        return list(self.present.values())

    def progress(self, n: TaskId) -> tuple[int | None, str] | None:
        return self.done.get(n)

    def queue(self) -> Mapping[Lane, int]:
        return self.depth

    def states(self) -> Mapping[TaskState, int]:
        return self.live


class FakeConductor:
    """Records commands and answers them plainly; ``refuse`` makes the next one fail; record operations really run."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.scheduler = FakeScheduler()
        self.commands: list[Command] = []
        self.events: list[EventRow] = []
        self.refuse: Exception | None = None
        self.answer: Callable[[Command], Reply] = self._plain

    async def do(self, command: Command) -> Reply:
        self.commands.append(command)
        refused, self.refuse = self.refuse, None
        if refused is not None:
            raise refused
        return self.answer(command)

    async def record(self, operation: Callable[[MemoryTx], Any], *, size_bytes: int = 0) -> Any:
        self.connection.execute("BEGIN")
        events: list[EventRow] = []
        try:
            done = operation(MemoryTx(self.connection, NOW, events))
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        self.events += events
        return done

    def _plain(self, command: Command) -> Reply:
        match command:
            case Submit():
                tasks = enumerate(command.tasks, start=1)
                return Submitted(
                    tasks=tuple(SubmittedTask(n=TaskId(n), state=TaskState.QUEUED, created=True) for n, _ in tasks)
                )
            case Dispatch():
                return Dispatched(released=2)
            case DropSalvage():
                return None
            case OnTask():
                return TaskAnswer(n=command.n, state=TaskState.QUEUED, lease_epoch=LeaseEpoch(3))
            case Registry() | PauseAgent() | ResumeAgent() | ReleaseAgent() | RemoveAgent():
                return None
        raise AssertionError(command)


class FakeStream:
    """A subscription that yields what the feed holds and ends."""

    def __init__(self, first: int, entries: list[tuple[int, EventRow]], hold: asyncio.Event | None) -> None:
        self.first = first
        self._entries = entries
        self._hold = hold

    async def __aiter__(self) -> AsyncIterator[tuple[int, EventRow]]:
        for entry in self._entries:
            yield entry
        if self._hold is not None:
            await self._hold.wait()


class FakeFeed:
    """A ring that ends once it is read, so that a stream in a test ends too; with ``hold`` when that is set."""

    def __init__(self) -> None:
        self.epoch = "e1"
        self.last_seq = 0
        self.ring: list[tuple[int, EventRow]] = []
        self.coming: list[tuple[int, EventRow]] = []
        self.hold: asyncio.Event | None = None

    @asynccontextmanager
    async def subscribe(self, after: int | None) -> AsyncIterator[FakeStream]:
        start = self.last_seq if after is None else after
        oldest = self.ring[0][0] if self.ring else self.last_seq + 1
        kept = [entry for entry in self.ring + self.coming if entry[0] > start]
        yield FakeStream(max(start + 1, oldest), kept, self.hold)


@dataclass
class FakeGatekeeper:
    """Remembers what it was asked."""

    reviews: list[tuple[Any, ...]] = field(default_factory=list)
    text: str = "diff --git a/a.py b/a.py\n+new\n"
    refuse: Refused | None = None

    async def approve(self, change: int, *, by: str, person: bool, head_sha: str, comment: str = "") -> None:
        if self.refuse is not None:
            raise self.refuse
        self.reviews.append(("approve", change, by, person, head_sha, comment))

    async def reject(self, change: int, *, by: str, person: bool, reason: str, final: bool = False) -> None:
        self.reviews.append(("reject", change, by, person, reason, final))

    async def diff(self, change_id: int) -> str:
        return self.text


@dataclass
class FakeDoctor:
    """Tells what a test gives it; ``mended`` counts."""

    findings: list[Finding] = field(default_factory=lambda: [Finding("disk", FindingState.OK, "1 MiB free")])
    mended: int = 0

    async def examine(self) -> list[Finding]:
        return self.findings

    async def mend(self) -> list[Finding]:
        self.mended += 1
        return self.findings


@dataclass
class FakeBackups:
    """A shelf with what a test puts on it; ``asked`` remembers."""

    shelved: list[Backup] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    refuse: Exception | None = None
    fault: str | None = None

    async def every(self) -> list[Backup]:
        return self.shelved

    async def create(self, reason: BackupReason, actor: str) -> Backup:
        self.asked.append(("create", reason, actor))
        if self.refuse is not None:
            raise self.refuse
        return backup()

    async def verify(self, name: str, actor: str) -> Backup:
        self.asked.append(("verify", name, actor))
        if self.refuse is not None:
            raise self.refuse
        return replace(backup(name), fault=self.fault)


def backup(name: str = "20270115T080000Z", **changes: Any) -> Backup:
    """A backup as the shelf tells it, with a manifest that has these changes."""
    known: dict[str, Any] = {
        "created_at": NOW,
        "reason": BackupReason.ASKED,
        "hub_id": "hub-1",
        "hub_epoch": 3,
        "schema": 2,
        "version": "0.1.0",
        "seq": 17,
        "n": 5,
        "tasks": {"done": 4, "queued": 1},
        "bytes": 4096,
        "sha256": {"hub.db": SHA, "hub.key": SHA},
        "verified_at": NOW,
    }
    return Backup(path=Path("/srv/backups") / name, manifest=Manifest(**known | changes))


PAGES = Pages(page_bytes=4096, total=1000, free=100, incremental=True)


class FakeKeeper:
    """A store whose figures are what a test sets, and errands that end when they are stopped."""

    def __init__(self) -> None:
        self.pages = PAGES
        self.space = Space(SpaceState.AMPLE, 9 * 2**30, 2**26, 2**26)
        self.growth: float | None = None
        self.found: list[Finding] = [Finding("free pages", FindingState.OK, "10 %")]
        self.rounds: dict[str, Round] = {}
        self.unfit: Exception | None = None
        self.bytes: tuple[int, int] | None = None
        self.pruned = {"tasks": 7}
        self.pruner = self

    async def look(self) -> Health:
        given = {"log_bytes": 1, "blob_bytes": 2, "oldest_reader_s": 0.0, "backlog": 0}
        return Health(pages=self.pages, space=self.space, growth_bytes_per_day=self.growth, **given)

    async def findings(self, _health: Health) -> list[Finding]:
        return self.found

    async def would_prune(self) -> dict[str, int]:
        return {"tasks": 12_345, "tasks_needed": 6, "blobs": 7, "events": 8}

    def ask(self, errand: str) -> Round:
        if self.unfit is not None:
            raise self.unfit
        return self.rounds.setdefault(errand, Round(NOW / SECOND))

    def stop(self, errand: str) -> Round | None:
        if (found := self.rounds.get(errand)) is not None:
            found.stopped, found.ended_at = True, NOW / SECOND
        return found

    def round_of(self, errand: str) -> Round | None:
        return self.rounds.get(errand)

    def file_bytes(self) -> tuple[int, int] | None:
        return self.bytes


KEY = b"k" * 32
MINTED = {scope: mint() for scope in Scope}
TOKENS = {scope: minted.text for scope, minted in MINTED.items()}
RECORDS = [
    TokenRecord(
        id=minted.id,
        digest=digest(KEY, minted.secret),
        name=scope.value,
        person=scope not in (Scope.AGENT, Scope.ENROL),
        scopes=(agent_scope(ANY_AGENT) if scope is Scope.AGENT else scope.value,),
        created_by="hub",
        created_at=NOW,
    )
    for scope, minted in MINTED.items()
]
AUTH = Authenticator(KEY, RECORDS, lambda: NOW)
UNLIMITED = Limiter(Rates(light=0, normal=0, heavy=0, denied=0, connect=0))


_BUILT: list[FastAPI] = []


def _serve(doors: Doors) -> FastAPI:
    """One application for all tests: its routes take 40 ms to build, and everything that changes lives in its state."""
    if not _BUILT:
        _BUILT.append(create_http(doors))
    app = _BUILT[0]
    app.state.doors = doors
    app.state.registrar = Registrar(doors.conductor, doors.reader)
    return app


class House:
    """Everything behind the door, and tokens for each scope."""

    def __init__(self) -> None:
        self.connection = open_memory()
        self.rows = Rows(self.connection)
        self.conductor = FakeConductor(self.connection)
        self.scheduler = self.conductor.scheduler
        self.feed = FakeFeed()
        self.gatekeeper = FakeGatekeeper()
        self.doctor = FakeDoctor()
        self.backups = FakeBackups()
        self.keeper = FakeKeeper()
        self.ready = {"store": True}
        self.degraded: list[str] = []
        self.no_room: Exception | None = None
        self.probed: list[tuple[str, str, str]] = []
        self.unfit: Exception | None = None
        self.tokens = TOKENS
        self.revoked: list[str] = []
        self._issue_tokens()
        self.doors = Doors(
            conductor=self.conductor,
            reader=MemoryReader(self.connection),
            feed=self.feed,
            gatekeeper=self.gatekeeper,
            salvage=Salvage(self.conductor, MemoryReader(self.connection), {}),
            doctor=self.doctor,
            backups=self.backups,
            keeper=self.keeper,
            auth=AUTH,
            limiter=UNLIMITED,
            keyring=Keyring(KEY, AUTH, self.conductor, lambda: NOW, self.revoked.append),
            metrics=lambda: (b"agentcom_up 1\n", "text/plain; version=0.0.4; charset=utf-8"),
            readiness=lambda: self.ready,
            degraded=lambda: self.degraded,
            admit_body=self._admit_body,
            probe=self._probe,
            now=lambda: NOW,
            hub_id="hub-1",
            version="0.1.0",
        )
        self.app = _serve(self.doors)

    def _admit_body(self, _size_bytes: int) -> None:
        if self.no_room is not None:
            raise self.no_room

    def _issue_tokens(self) -> None:
        """Every scope's token, in the table and at the door; the door outlives the house."""
        for token in list(AUTH._known):
            AUTH.forget(token)
        for record in RECORDS:
            columns = {name: getattr(record, name) for name in record.__slots__}
            self.rows.insert("token", **columns | {"scopes": json.dumps(record.scopes), "person": int(record.person)})
            AUTH.admit(record)

    async def _probe(self, name: str, url: str, base: str) -> None:
        self.probed.append((name, url, base))
        if self.unfit is not None:
            raise self.unfit

    def client(self, scope: Scope | None = Scope.ADMIN) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {self.tokens[scope]}"} if scope is not None else {}
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url="http://hub", headers=headers)

    def close(self) -> None:
        self.connection.close()
