"""Factories for the gate: a store with tasks in review, a conductor that obeys like the real one, agents' branches on a real remote.

The store is the real one. The conductor applies the gatekeeper's commands to the task rows by the rules of ``hub.core.reviewing`` and
can be told to fail at a named point, as a crash would.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from hub.core import commands as c
from hub.core.decision import Reply, Submitted, SubmittedTask, TaskAnswer
from hub.core.errors import Refused
from hub.core.rows import AttemptRow, EventRow, RequirementRow, ResultRow, TaskNew, TaskRow
from hub.forge.git import Git
from hub.forge.local import LocalForge
from hub.ids import ChangeState, Micros, TaskId, TaskState
from hub.services.gatekeeper import Gatekeeper, concerns
from hub.store.base import Operation
from hub.store.changes import ChangeRecord, get_change
from hub.store.repositories import RepositoryEdit, register
from hub.store.sqlite import SqliteStore
from hub.store.writer import Group
from tests.support import repos
from tests.support.repos import Remote

REPO = "demo"
LIVE_STATES = {"queued", "assigned", "working"}


class Crash(BaseException):
    """The hub is gone: nothing catches this."""


def local_forge(root: Path) -> LocalForge:
    return LocalForge(root=root, git=Git(environ={"PATH": repos._ENV["PATH"]}))


def passed(*targets: str) -> str:
    checks = [{"kind": "command_succeeds", "target": target, "status": "pass"} for target in targets or ("true",)]
    return orjson.dumps({"passed": True, "checks": checks}).decode()


CHECKS = [{"kind": "command_succeeds", "argv": ["make", "test"]}]
PASSED_REGISTERED = passed("make test")


@dataclass
class FakeConductor:
    """Applies commands to rows. ``crash_at``: a command's or recorded state's name, prefixed ``before:`` or ``after:``."""

    store: SqliteStore
    did: list[c.Command] = field(default_factory=list)
    crash_at: str | None = None
    on_event: Callable[[EventRow], None] = lambda _event: None

    async def do(self, command: c.Command, /) -> Reply:
        self._point(f"before:{type(command).__name__}")
        reply = await self._do(command)
        self._point(f"after:{type(command).__name__}")
        return reply

    async def record(self, operation: Operation[Any], /) -> Any:
        seen: list[str] = []

        def watched(tx: Any) -> Any:
            value = operation(tx)
            seen.extend(event.kind for event in tx.events)
            return value

        done = await self._commit(Group(operations=[watched]))
        outcome = done.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        for kind in seen:
            self._point(f"after:{kind}")
        return outcome

    def _point(self, name: str) -> None:
        if self.crash_at == name:
            self.crash_at = None
            raise Crash(name)

    async def _commit(self, group: Group) -> Any:
        done = await self.store.commit(group, Micros(time.time_ns() // 1000))
        for _, event in done.events:
            self.on_event(event)
        return done

    async def _do(self, command: c.Command) -> Reply:
        self.did.append(command)
        if isinstance(command, c.Submit):
            return await self._submit(command)
        assert isinstance(command, c.OnTask)
        row = await self.task(command.n)
        if isinstance(command, c.Cancel):
            if row.state not in LIVE_STATES:
                raise Refused(409, "over", "it has ended")
            await self.move(command.n, TaskState.CANCELLED)
            return None
        wanted = command.lease_epoch  # type: ignore[attr-defined]
        if isinstance(command, c.Merged) and row.state == "done" and row.lease_epoch == wanted:
            return TaskAnswer(n=command.n, state=TaskState.DONE, lease_epoch=wanted)
        if row.state != "in_review" or row.lease_epoch != wanted:
            raise Refused(409, "not_in_review", f"{row.state} at {row.lease_epoch}")
        match command:
            case c.IntendMerge():
                await self.move(command.n, TaskState.IN_REVIEW, merging=1)
            case c.AbandonMerge():
                await self.move(command.n, TaskState.IN_REVIEW, merging=0)
            case c.Merged():
                await self.move(command.n, TaskState.DONE)
            case c.Bury():
                await self.move(command.n, TaskState.DEAD)
            case c.Rework():
                if row.rework >= 3:
                    raise Refused(409, "rework_limit", "three reworks")
                await self.move(command.n, TaskState.QUEUED, rework=row.rework + 1, lease_epoch=row.lease_epoch + 1)
        return None

    async def _submit(self, command: c.Submit) -> Submitted:
        (new,) = command.tasks
        known = await self.store.reader.run(
            lambda db: db.execute("SELECT n FROM task WHERE idem_key = ?", (new.idempotency_key,)).fetchone()
        )
        if known is not None:
            return Submitted(tasks=(SubmittedTask(n=known["n"], state=TaskState.QUEUED, created=False),))
        last = await self.store.reader.run(lambda db: db.execute("SELECT MAX(n) AS n FROM task").fetchone())
        n = (last["n"] or 0) + 1
        fixed = _task_new(n, new.title, repo=new.repo, type=new.type, spec=new.spec, idem_key=new.idempotency_key)
        await self._commit(Group(rows=[fixed, _task_row(n, state="queued", lease_epoch=0)]))
        return Submitted(tasks=(SubmittedTask(n=TaskId(n), state=TaskState.QUEUED, created=True),))

    async def task(self, n: int) -> TaskRow:
        row = await self.store.reader.run(lambda db: db.execute("SELECT * FROM task WHERE n = ?", (n,)).fetchone())
        return TaskRow(**{name: row[name] for name in TaskRow._fields})

    async def move(self, n: int, to: TaskState, **fields: Any) -> None:
        row = await self.task(n)
        over = to in {TaskState.DONE, TaskState.DEAD, TaskState.CANCELLED}
        holder = ("bob", 1) if to in {TaskState.ASSIGNED, TaskState.WORKING} else (None, None)
        if to is not TaskState.IN_REVIEW:
            fields.setdefault("merging", 0)
        new = row._replace(
            state=to, finished_at=1 if over else None, holder_agent=holder[0], holder_session_epoch=holder[1], **fields
        )
        event = EventRow(1, f"task.{to}", "test", task=n, from_state=row.state, to_state=to)
        await self._commit(Group(rows=[new], events=[event]))


def _task_new(n: int, title: str, **fields: Any) -> TaskNew:
    key = fields.pop("idem_key", None)
    blank: dict[str, Any] = dict.fromkeys(TaskNew._fields)
    blank |= {
        "n": n, "project": "default", "repo": REPO, "title": title, "type": "task", "lane": "normal", "access": "write",
        "needs_change": 1, "requirement_id": 1, "max_tries": 3, "created_by": "operator", "created_at": 1, "spec": "{}",
        "idem_key": key, "idem_scope": "s" if key else None, "idem_hash": "h" if key else None,
    }  # fmt: skip
    return TaskNew(**(blank | fields))


def _task_row(n: int, **fields: Any) -> TaskRow:
    blank: dict[str, Any] = dict.fromkeys(TaskRow._fields)
    zeros = ("seq", "tries", "lost", "rework", "claims", "held", "parked", "merging")
    blank |= dict.fromkeys(zeros, 0) | {"n": n, "generation": 1, "state": "in_review", "lease_epoch": 1, "updated_at": 1}
    return TaskRow(**(blank | fields))


@dataclass
class Gate:
    """A hub's gate around one real remote."""

    root: Path
    remote: Remote
    store: SqliteStore
    conductor: FakeConductor
    forge: Any
    keeper: Gatekeeper = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new gatekeeper over the same rows and remote, as after a crash."""
        self.keeper = Gatekeeper(
            self.conductor, self.store.reader, {"local": self.forge}, now_s=lambda: int(time.time()), retry_s=0.01
        )
        self.conductor.on_event = lambda event: self.keeper.poke() if concerns(event) else None

    @asynccontextmanager
    async def running(self) -> Any:
        task = asyncio.create_task(self.keeper.run(), name="gatekeeper")
        try:
            yield self.keeper
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def settle(self) -> None:
        """Run until nothing is left to do."""
        run = asyncio.create_task(self.keeper.run(), name="gatekeeper")
        quiet = asyncio.create_task(self.keeper.quiet(), name="quiet")
        done, _ = await asyncio.wait({run, quiet}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        for task in (run, quiet):
            task.cancel()
        ended = await asyncio.gather(run, quiet, return_exceptions=True)
        if quiet not in done:
            raise AssertionError("the gatekeeper never came to rest") from ended[0]

    async def crash(self, at: str) -> None:
        """Run until the named point, then be gone."""
        self.conductor.crash_at = at
        await self.until_crash()

    async def until_crash(self) -> None:
        with pytest.raises(BaseExceptionGroup) as gone:
            await asyncio.wait_for(self.keeper.run(), 20)
        assert gone.value.subgroup(Crash) is not None, gone.value
        self.restart()

    async def change(self, change: int = 1) -> ChangeRecord:
        found = await get_change(self.store.reader, change)
        assert found is not None
        return found

    async def approve(self, change: int = 1, by: str = "mia", *, person: bool = True) -> None:
        found = await self.change(change)
        await self.keeper.approve(change, by=by, person=person, head_sha=found.head_sha)

    async def review(
        self,
        n: int,
        files: dict[str, str | None] | Sequence[dict[str, str | None]],
        *,
        title: str = "do it",
        verification: str | None = None,
        epoch: int = 1,
        start: str | None = None,
        spec: dict[str, Any] | None = None,
        agent: str = "bob",
        **task: Any,
    ) -> str:
        """A task in review whose agent pushed ``files`` on top of ``start`` (by default the present base); the head."""
        base_sha = self.remote.sha(f"refs/heads/{self.remote.base}")
        assert base_sha is not None
        branch = f"agentcom/t-{n}/{epoch}"
        tree = self.root / f"agent-{n}-{epoch}"
        repos.git("clone", "-q", str(self.remote.path), str(tree), cwd=self.root)
        repos.git("checkout", "-q", "-B", branch, start or base_sha, cwd=tree)
        head = start or base_sha
        for number, step in enumerate([files] if isinstance(files, dict) else files):
            head = repos.commit(tree, step, f"step {number}")
        repos.git("push", "-q", "origin", f"+HEAD:refs/heads/{branch}", cwd=tree)
        await self.put(
            n, branch, base_sha, head, title=title, verification=verification, epoch=epoch, spec=spec, agent=agent, **task
        )
        return head

    async def put(
        self,
        n: int,
        branch: str,
        base_sha: str,
        head: str,
        *,
        title: str = "do it",
        verification: str | None = None,
        epoch: int = 1,
        spec: dict[str, Any] | None = None,
        agent: str = "bob",
        repo: str | None = REPO,
        **task: Any,
    ) -> None:
        rows = [
            _task_new(n, title, spec=orjson.dumps(spec or {}).decode(), repo=repo, access=task.pop("access", "write")),
            _task_row(n, lease_epoch=epoch, **task),
            AttemptRow(n, epoch, agent, None, 1, 1, 1, 1, "succeeded", None, None, "applied", None, None),
            ResultRow(n, epoch, "", None, branch, base_sha, head, "[]", verification),
        ]
        known = await self.store.reader.run(lambda db: db.execute("SELECT 1 FROM task WHERE n = ?", (n,)).fetchone())
        await self.conductor._commit(Group(rows=rows[1:] if known else rows))

    async def running_task(self, n: int, spec: dict[str, Any]) -> None:
        rows = [
            _task_new(n, "running", spec=orjson.dumps(spec).decode()),
            _task_row(n, state="working", holder_agent="eve", holder_session_epoch=1),
        ]
        await self.conductor._commit(Group(rows=rows))

    async def checks(self) -> list[dict[str, Any]]:
        """The check tasks that exist."""
        query = "SELECT n, state, spec, title FROM task WHERE type = 'check' ORDER BY n"
        return await self.store.reader.run(lambda db: db.execute(query).fetchall())

    async def check_failed(self, n: int, output: str) -> None:
        report = {
            "passed": False,
            "checks": [{"kind": "command_succeeds", "target": "make test", "status": "fail", "output": output}],
        }
        rows = [
            AttemptRow(n, 1, "checker", None, 1, 1, 1, 1, "failed", None, None, "applied", None, None),
            ResultRow(n, 1, "", None, None, None, None, "[]", orjson.dumps(report).decode()),
        ]
        await self.conductor._commit(Group(rows=rows))
        await self.conductor.move(n, TaskState.DEAD, cause="checks_failed")

    def merges(self) -> list[str]:
        """Subjects of the base's first-parent line, newest first."""
        return repos.git("log", "--first-parent", "--format=%s", self.remote.base, cwd=self.remote.path).splitlines()

    async def states(self) -> tuple[ChangeState, TaskState]:
        change = await self.change()
        return change.state, TaskState((await self.conductor.task(change.task)).state)


@asynccontextmanager
async def open_gate(
    root: Path,
    *,
    policy: dict[str, Any] | None = None,
    checks: Sequence[dict[str, Any]] = CHECKS,
    files: dict[str, str | None] | None = None,
    forge: Any = None,
) -> Any:
    remote = repos.make_remote(root, files or {"a.txt": "1\n2\n3\n", "b.txt": "b\n"})
    store = await SqliteStore.open(root / "hub.db", durability="normal", readers=1)
    try:
        conductor = FakeConductor(store)
        edit = RepositoryEdit(url=remote.url, base=remote.base, policy=policy or {}, checks=list(checks))
        await conductor.record(register("admin", REPO, edit))
        await conductor._commit(Group(rows=[RequirementRow(1, "default", REPO, "[]")]))
        yield Gate(root, remote, store, conductor, forge or local_forge(root / "clones"))
    finally:
        await store.close()
