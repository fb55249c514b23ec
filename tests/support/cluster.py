"""A scheduler with its store and clock, driven by hand: every decision is committed through the real journal before it counts."""

from __future__ import annotations

from typing import Any

from hub.core import commands as c
from hub.core.commands import Command
from hub.core.decision import Decision, Effect, Session
from hub.core.lease import Terms
from hub.core.scheduler import Scheduler
from hub.core.task import Task
from hub.ids import AgentId, LeaseEpoch, Outcome, Phase, SessionEpoch, TaskId, TaskState
from tests.support.clock import Clock
from tests.support.stores import MemoryStore, finished

PROJECTS = {"default": (False, "auto"), "other": (False, "auto"), "slow": (False, "manual")}
REPOS = {"app": False, "lib": False}
SHA = "ab" * 32


class Hub:
    """``do`` applies one command as the conductor would: facts, apply, commit, publish. ``told`` is all that was published."""

    def __init__(self, terms: Terms | None = None, clock: Clock | None = None) -> None:
        self.terms = terms or Terms()
        self.clock = clock or Clock()
        self.store = MemoryStore()
        self.store.registry(PROJECTS, REPOS)
        self.told: list[tuple[AgentId, SessionEpoch, Effect]] = []
        self.group: list[Decision] = []
        self.grouping = False
        self.hub_epoch = 0
        self.restart()

    # ── driving ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def restart(self) -> None:
        """The hub dies, with everything uncommitted, and starts again."""
        self.group, self.grouping = [], False
        self.hub_epoch += 1
        self.scheduler, opening = self.rebuilt()
        self.group.append(opening)
        self.commit()

    def rebuilt(self) -> tuple[Scheduler, Decision]:
        return Scheduler.open(self.store.snapshot(), self.terms, self.clock.stamp(), hub_epoch=self.hub_epoch)

    def do(self, command: Command) -> Decision:
        wanted = self.scheduler.wanted_facts(command)
        if wanted is not None:
            command = finished(self.store.facts.add(command, wanted))
        decision = self.scheduler.apply(command, self.clock.stamp())
        self.group.append(decision)
        if not self.grouping:
            self.commit()
        return decision

    def commit(self) -> None:
        """One transaction over everything decided since the last."""
        group, self.group = self.group, []
        self.store.write(
            [row for decision in group for row in decision.rows], [event for decision in group for event in decision.events]
        )
        for decision in group:
            self.told.extend(decision.effects)

    def tick(self) -> None:
        """Fire everything that is due, and what becomes due by it."""
        for _ in range(1000):
            due = self.scheduler.next_deadline(self.clock.stamp())
            if due is None or due > self.clock.mono:
                return
            self.do(c.Tick())
        raise AssertionError("a timer fires for ever")

    def later(self, seconds: float) -> None:
        """Time passes and the timers fire."""
        self.clock.advance(seconds)
        self.tick()

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def cluster(self) -> Any:
        return self.scheduler.cluster

    def task(self, n: int) -> Task:
        return self.cluster.tasks[n]

    def state(self, n: int) -> TaskState:
        return TaskState(self.store.rows("SELECT state FROM task WHERE n = ?", n)[0]["state"])

    def events(self, n: int) -> list[str]:
        return [row["kind"] for row in self.store.rows("SELECT kind FROM event WHERE task = ? ORDER BY seq", n)]

    def effects(self, *kinds: type[Any]) -> list[Any]:
        """What was published since the last look, of these kinds (all, if none is named)."""
        told, self.told = self.told, []
        return [effect for _, _, effect in told if not kinds or isinstance(effect, kinds)]

    def explain(self, n: int) -> str | None:
        return self.scheduler.explain(TaskId(n), self.clock.stamp())

    # ── the usual ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, *tasks: c.NewTask, actor: str = "ann", **fields: Any) -> list[int]:
        answer: Any = self.do(c.Submit(actor=actor, tasks=tasks or (new(**fields),))).answer
        return [task.n for task in answer.tasks]

    def hello(self, agent: str = "w1", install: str | None = None, boot: str = "b", **fields: Any) -> SessionEpoch:
        fields.setdefault("capabilities", ("x", "y"))
        command = c.Hello(actor=agent, agent=AgentId(agent), install_id=install or f"i-{agent}", boot_id=boot, **fields)
        session = self.do(command).answer
        assert isinstance(session, Session)
        return session.epoch

    def said(self, kind: type[Any], agent: str = "w1", epoch: int | None = None, **fields: Any) -> Decision:
        """A session speaks; by default the newest one."""
        at = SessionEpoch(epoch if epoch is not None else self.cluster.agents[agent].epoch)
        return self.do(kind(actor=agent, agent=AgentId(agent), session_epoch=at, **fields))

    def about(self, kind: type[Any], n: int, agent: str | None = None, **fields: Any) -> Decision:
        """The holder speaks about its task at its present fence."""
        task = self.task(n)
        fields.setdefault("lease_epoch", task.lease_epoch)
        return self.said(kind, agent or str(task.holder), n=TaskId(n), **fields)

    def accept(self, n: int) -> None:
        self.about(c.Accept, n)

    def beat(self, agent: str = "w1", **fields: Any) -> None:
        task = self.cluster.agents[agent].task
        if "leases" not in fields and task is not None:
            fields["leases"] = (lease(task, self.task(task).lease_epoch),)
        self.said(c.Beat, agent, **fields)

    def result(self, n: int, outcome: Outcome = Outcome.SUCCEEDED, agent: str | None = None, **fields: Any) -> Any:
        """A result; its verdict."""
        fields.setdefault("sha256", SHA)
        decision = self.about(c.Report, n, agent, outcome=outcome, **fields)
        return decision.effects[0][2].verdict

    def working(self, **fields: Any) -> int:
        """A task that ``w1`` works on."""
        [n] = self.submit(**fields)
        if "w1" not in self.cluster.agents:
            self.hello()
        self.accept(n)
        assert self.task(n).state is TaskState.WORKING
        return n

    def blocked(self, **fields: Any) -> int:
        n = self.working(**fields)
        self.about(c.Ask, n, qid="q", text="which?")
        return n

    def in_review(self, **fields: Any) -> int:
        n = self.working(repo="app", **fields)
        self.result(n, has_change=True, branch="b", base_sha="a" * 40, head_sha="b" * 40)
        assert self.task(n).state is TaskState.IN_REVIEW
        return n


def new(title: str = "a task", **fields: Any) -> c.NewTask:
    fields.setdefault("spec", "{}")
    fields.setdefault("body_hash", f"hash of {title}")
    return c.NewTask(title=title, **fields)


def needs(of: int | str, policy: str = "skip") -> c.Dependency:
    return c.Dependency(needs=TaskId(of) if isinstance(of, int) else of, policy=policy)


def lease(n: int, epoch: int, phase: Phase = Phase.WOKEN) -> c.LeaseHeld:
    return c.LeaseHeld(task=TaskId(n), lease_epoch=LeaseEpoch(epoch), phase=phase)


def held(n: int, epoch: int, phase: Phase = Phase.WOKEN) -> c.HeldItem:
    return c.HeldItem(task=TaskId(n), lease_epoch=LeaseEpoch(epoch), phase=phase)


def outgoing(n: int, epoch: int, sha256: str = SHA) -> c.HeldItem:
    return c.HeldItem(task=TaskId(n), lease_epoch=LeaseEpoch(epoch), sha256=sha256)
