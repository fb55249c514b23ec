"""What must hold after every step, by the numbers of the invariants (I1 … I17) and of liveness (L1 … L4).

The watch trusts no index and no counter of the product: it compares what a peer is told with the rows committed at that moment, folds
the events, counts the live scheduler anew (:mod:`tests.property.model`), and looks at the world's running agents. The checks that cost
a query per row (rebuild equals live, fold equals table) are made after every ``often``-th step that changed the hub, at every crash
and at the end; all others after each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hub.core import commands as c
from hub.core.decision import AckResult, Decision
from hub.core.errors import Refused
from hub.core.task import TRANSITIONS
from hub.ids import TERMINAL, Outcome, TaskState, Verdict
from hub.store.writer import Committed, Group
from hub.wire import frames
from sidecar.core import effects as fx
from sidecar.core import records
from sidecar.core.records import Key
from tests.property import model

if TYPE_CHECKING:
    from tests.simulation.door import HubLink
    from tests.simulation.shim import Shim
    from tests.simulation.sidecar import Sidecar
    from tests.simulation.world import World

SLACK_US = 2_000
"""Rounding of the boot clocks."""


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant, self.what = invariant, what


def must(holds: object, invariant: str, what: object = "") -> None:
    """Raise :class:`Violation` unless it holds."""
    if not holds:
        raise Violation(invariant, str(what))


class Watch:
    """Sees everything and changes nothing."""

    def __init__(self, world: World, often: int = 25) -> None:
        self.world, self.often = world, often
        self.changed = 0
        self.dirty = False
        self.seq = 0
        self.states: dict[int, str] = {}
        self.claimed: dict[int, int] = {}
        self.generations: dict[int, int] = {}
        self.accepted: dict[tuple[int, int], int] = {}
        self.done: set[tuple[int, int]] = set()
        self.ended_ever: dict[int, set[str]] = {}
        self.fences: dict[int, int] = {}
        self.applied: dict[tuple[int, int], str] = {}
        self.results: dict[tuple[str, Key], frames.Result] = {}
        self.renewed: dict[tuple[int, int], int] = {}
        self.granted: set[tuple[str, Key]] = set()
        self.released: set[tuple[str, Key]] = set()
        self.concluded: set[tuple[str, Key]] = set()
        self.running: dict[int, list[Shim]] = {}
        self.acked: dict[int, tuple[str, str | None, str]] = {}
        self.keys: dict[tuple[str, str], tuple[int, str]] = {}
        self._session = 0
        self._fence: tuple[int, str | None] | None = None

    # ── the hub decides ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def before(self, command: c.Command) -> None:
        """A command is about to be applied."""
        if not self.world.hub.is_up:
            return
        cluster = self.world.hub.cluster
        if isinstance(command, c.FromSession):
            agent = cluster.agents.get(command.agent)
            self._session = agent.epoch if agent is not None else 0
        if isinstance(command, c.Report):
            task = cluster.tasks.get(command.n)
            self._fence = (task.lease_epoch, task.state) if task is not None else None

    def _lease_of(self, agent: Any) -> tuple[tuple[int, int] | None, int]:
        cluster = self.world.hub.cluster
        known = cluster.agents.get(agent)
        task = cluster.tasks[known.task] if known is not None and known.task is not None else None
        return (None, 0) if task is None else ((task.n, task.lease_epoch), task.lease_until)

    def decided(self, command: c.Command, decision: Decision) -> None:
        """A command was applied; nothing of it has left yet."""
        self.dirty = True
        if isinstance(command, c.FromSession) and command.session_epoch != self._session:
            must(
                not decision.rows and not decision.events, "I8", f"{type(command).__name__} of an old session changed something"
            )
        if isinstance(command, c.Report):
            self._judged(command, decision)
        if isinstance(command, c.FromSession | c.Hello):
            lease, until = self._lease_of(command.agent)
            if lease is not None and until == self.world.hub.steady.mono() + self.world.hub.terms.hold_us:
                self.renewed[lease] = self.world.timeline.now

    def _judged(self, command: c.Report, decision: Decision) -> None:
        [verdict] = [effect.verdict for _, _, effect in decision.effects if isinstance(effect, AckResult)]
        self.world.timeline.note(f"verdict.{verdict}", f"t-{command.n}/{command.lease_epoch}")
        first = self.applied.get((command.n, command.lease_epoch))
        if verdict is Verdict.APPLIED:
            must(self._fence is not None and self._fence[0] == command.lease_epoch, "I4", "applied under another fence")
            must(first is None, "I4", f"t-{command.n}/{command.lease_epoch} was applied twice")
            if self._fence is not None and self._fence[1] == TaskState.QUEUED:
                self.world.timeline.note("verdict.late")
        elif not any(event.cause in ("cancel", "complete", "assign", "deadline", "stopped") for event in decision.events):
            try:
                model.changes_nothing_but_salvage(decision, command.n)
            except AssertionError as fault:
                raise Violation("I4", f"a result that was {verdict} changed something: {fault}") from fault
        if first is not None and first == command.sha256:
            must(
                verdict is Verdict.DUPLICATE,
                "I7",
                f"the applied result of t-{command.n}/{command.lease_epoch}, again: {verdict}",
            )

    def refused(self, command: c.Command, refusal: Refused) -> None:
        """A command was refused."""
        if isinstance(command, c.Submit):
            unknown = [fault for fault in refusal.faults if fault.type == "unknown_task"]
            must(not unknown, "I12", f"a task that exists is called unknown: {unknown}")

    @contextmanager
    def nothing_changes(self, frame: Any) -> Iterator[None]:
        """I7: the same frame once more."""
        hub = self.world.hub
        if not hub.is_up:
            yield
            return
        before = self._fingerprint()
        yield
        if hub.is_up:
            must(self._fingerprint() == before, "I7", f"{frame.t} twice is not {frame.t} once")

    def _fingerprint(self) -> Any:
        """Everything but when an agent was last seen."""
        hub: Any = self.world.hub
        tasks, agents, *rest = model.fingerprint(hub)
        return tasks, {name: (model._agent(row), *more) for name, (row, *more) in agents.items()}, rest

    # ── the hub commits ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def committed(self, _group: Group, done: Committed) -> None:
        """A group is durable; what it says is still on its way."""
        self.dirty = True
        for seq, event in done.events:
            must(seq == self.seq + 1, "I14", f"event {seq} follows {self.seq}")
            self.seq = seq
            if event.task is not None:
                self._event(event)

    def _event(self, event: Any) -> None:
        n, before, to = event.task, event.from_state, event.to_state
        if event.kind == "task.requeued":
            self.generations[n] = self.generations.get(n, 1) + 1
        generation = self.generations.get(n, 1)
        if to is not None:
            must(self.states.get(n) == before, "I14", f"t-{n}: {before} → {to} after {self.states.get(n)}")
            if before is None:
                must(to == TaskState.WAITING, "I5", f"t-{n} began as {to}")
            else:
                must(TaskState(to) in TRANSITIONS[TaskState(before)], "I5", f"t-{n}: {before} → {to}")
                must(before not in TERMINAL or event.kind == "task.requeued", "I5", f"t-{n} left {before} by {event.kind}")
                self.world.timeline.note(f"task.{before}.{to}", f"t-{n}/{event.lease_epoch} {event.cause or ''}")
            self.states[n] = to
            if to in TERMINAL:
                self.ended_ever.setdefault(n, set()).add(to)
            if to == TaskState.DONE:
                must((n, generation) not in self.done, "I4", f"t-{n} is done twice in generation {generation}")
                self.done.add((n, generation))
        if event.kind == "task.assigned":
            must(event.lease_epoch > self.claimed.get(n, 0), "I3", f"t-{n}: fence {event.lease_epoch} was used before")
            self.claimed[n] = event.lease_epoch
            for edge in self._rows("SELECT needs, policy FROM task_dep WHERE task = ?", n):
                ended = self.ended_ever.get(edge["needs"], set())
                ok = TaskState.DONE in ended or (edge["policy"] == "run" and ended)
                must(ok, "I12", f"t-{n} is given out before t-{edge['needs']} has ended")
        elif event.kind == "task.accepted":
            self.accepted[n, generation] = self.accepted.get((n, generation), 0) + 1
            must(self.accepted[n, generation] <= self.world.max_claims, "I11", f"t-{n} is accepted without end")

    # ── the hub speaks ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def leaves(self, link: HubLink, frame: Any) -> None:
        """I6: a frame leaves the hub: what it rests on is committed."""
        match frame:
            case frames.Welcome(session_epoch=epoch):
                row = self._rows("SELECT epoch FROM agent_session WHERE agent = ?", link.agent)
                must(row and row[0]["epoch"] >= epoch, "I6", f"welcome to session {epoch}, which is not committed")
            case frames.Assign() | frames.Accepted():
                row = self._attempt(frame)
                must(row and row["agent"] == link.agent, "I6", f"{frame.t} t-{frame.task}/{frame.lease_epoch}: no such claim")
                must(
                    frame.t != "accepted" or row["accepted_at"] is not None, "I6", f"t-{frame.task} accepted before its commit"
                )
                if isinstance(frame, frames.Accepted) and link.agent is not None:
                    self.granted.add((link.agent, Key(frame.task, frame.lease_epoch)))
            case frames.Revoke():
                row = self._attempt(frame)
                open_ = row and row["agent"] == link.agent and row["ended_at"] is None
                must(not open_, "I6", f"t-{frame.task}/{frame.lease_epoch} revoked before its end is committed")
            case frames.Beaten(leases=leases):
                for item in leases:
                    row = self._attempt(item)
                    mine = row and row["agent"] == link.agent
                    must(mine or not item.ok, "I6", f"t-{item.task}/{item.lease_epoch} renewed without a claim")
                    must(item.ok or not (mine and row["ended_at"] is None), "I6", f"t-{item.task} is called lost before it is")
            case frames.ResultAck():
                self._acknowledged(link, frame)
            case frames.Control(cid=cid):
                must(self._rows("SELECT 1 FROM control WHERE cid = ?", cid), "I6", f"control {cid} is not committed")
            case _:
                pass

    def _acknowledged(self, link: HubLink, frame: frames.ResultAck) -> None:
        key, row = Key(frame.task, frame.lease_epoch), self._attempt(frame)
        kept = self._rows("SELECT sha256 FROM salvage WHERE task = ? AND lease_epoch = ?", *key)
        said = self.results.get((str(link.agent), key))
        match frame.verdict:
            case Verdict.APPLIED:
                must(
                    row and row["sha256"] is not None and row["ended_at"], "I6", f"t-{key.task} acknowledged before its commit"
                )
                must(key not in self.applied, "I4", f"t-{key.task}/{key.lease_epoch} was applied twice")
                self.applied[key] = row["sha256"]
            case Verdict.SALVAGED:
                must(kept, "I6", f"t-{key.task}/{key.lease_epoch} is salvaged nowhere")
            case Verdict.DUPLICATE:
                must(kept or (row and row["sha256"]), "I6", f"t-{key.task}/{key.lease_epoch} repeats nothing that is committed")
            case Verdict.STALE:
                mine = row is not None and row["agent"] == link.agent
                thrown = mine and said is not None and said.outcome is Outcome.SUCCEEDED
                must(not thrown, "L3", f"the success of t-{key.task}/{key.lease_epoch} was thrown away")
        self.released.add((str(link.agent), key))

    def answers(self, answer: Any) -> None:
        """I6: an answer leaves the hub for a person."""
        for task in getattr(answer, "tasks", ()):
            must(self._rows("SELECT 1 FROM task WHERE n = ?", task.n), "I6", f"t-{task.n} is acknowledged before its commit")

    def acknowledged_submit(self, command: c.Submit, answer: Any) -> None:
        """I1, I10: a person has the word of the hub."""
        for new, task in zip(command.tasks, answer.tasks, strict=True):
            self.acked[task.n] = (command.actor, new.idempotency_key, new.body_hash)
            if new.idempotency_key is not None:
                key = (command.actor, new.idempotency_key)
                known = self.keys.setdefault(key, (task.n, new.body_hash))
                must(known == (task.n, new.body_hash), "I10", f"key {key} stands for t-{known[0]} and for t-{task.n}")

    # ── sidecars and agents ──────────────────────────────────────────────────────────────────────────────────────────────────

    def writes(self, sidecar: Sidecar, record: records.JournalRecord) -> None:
        """I15: an entry with a result is removed only when the hub has acknowledged it."""
        if isinstance(record, records.Concluded):
            self.concluded.add((sidecar.name, record.key))
        elif isinstance(record, records.Removed):
            at = (sidecar.name, record.key)
            must(
                at not in self.concluded or at in self.released,
                "I15",
                f"the result of t-{record.task} was removed unacknowledged",
            )

    def says(self, sidecar: Sidecar, effect: fx.Send | fx.SendNow) -> None:
        """I15: what a frame rests on is on the disk."""
        frame = effect.frame
        if isinstance(frame, frames.Result):
            self.results[sidecar.name, Key(frame.task, frame.lease_epoch)] = frame
        if isinstance(effect, fx.Send):
            node = sidecar.machine.disk.nodes.get(sidecar.path)
            must(node is None or len(node.durable) == len(node.written), "I15", f"{frame.t} left before its record was durable")

    def arrives(self, sidecar: Sidecar, frame: Any) -> None:
        """The hub's frame reached the holder."""

    def wakes(self, sidecar: Sidecar, wake: fx.Wake) -> None:
        """I15: an agent is woken under an accepted lease only, and for no longer than that."""
        at = (sidecar.name, wake.key)
        must(at in self.granted, "I15", f"t-{wake.key.task}/{wake.key.lease_epoch} is woken without an accepted lease")
        self._bounded(sidecar, wake)

    def extends(self, sidecar: Sidecar, extend: fx.Extend) -> None:
        """I15: a deadline moves no further than the hub's answer allows."""
        self._bounded(sidecar, extend)

    def _bounded(self, sidecar: Sidecar, effect: fx.Wake | fx.Extend) -> None:
        heard = self.renewed.get(tuple(effect.key))
        if heard is not None:
            latest = sidecar.machine.boot_us(heard) + self.world.hub.terms.lease_us * 35 // 36
            over = effect.hard_us - latest
            must(over <= SLACK_US, "I15", f"t-{effect.key.task} may run {over / 1e6:.3f} s longer than its lease")

    def starts(self, shim: Shim) -> None:
        """I16: nobody else works on this task."""
        others = [other for other in self.running.get(shim.key.task, []) if not other.asleep]
        must(not others, "I16", f"{shim.agent} {shim.run_id} starts beside {[f'{o.agent} {o.run_id}' for o in others]}")
        self.running.setdefault(shim.key.task, []).append(shim)

    def ends(self, shim: Shim) -> None:
        """Its last process is dead."""
        self.running[shim.key.task].remove(shim)
        if not self.running[shim.key.task]:
            del self.running[shim.key.task]

    # ── after each step ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def after_step(self) -> None:
        """Everything that can be asked at any moment."""
        for shims in self.running.values():
            awake = [shim for shim in shims if not shim.asleep]
            must(len(awake) <= 1, "I16", f"{len(awake)} agents work on t-{shims[0].key.task}")
            for shim in awake:
                over = shim.machine.boot_us() - shim.hard_us
                must(over <= SLACK_US, "I15", f"{shim.agent} {shim.run_id} lives {over / 1e6:.3f} s beyond its deadline")
        if not self.dirty or not self.world.hub.is_up:
            return
        self.dirty = False
        self.changed += 1
        self.live(thoroughly=self.changed % self.often == 0)

    def live(self, *, thoroughly: bool) -> None:
        """The live scheduler, counted anew."""
        hub: Any = self.world.hub
        cluster = hub.cluster
        self._holds("I2", model.one_lease_each, cluster)
        self._holds("I11", model.within_budgets, cluster)
        self._holds("I12", model.dependencies_counted, cluster)
        self._holds("I9", model.counters_recounted, cluster)
        self._holds("L2", model.deadlines_armed, cluster)
        self._holds("L1", model.nobody_idles_beside_work, hub, thoroughly=thoroughly)
        if thoroughly and hub.settled:
            self._holds("I14", model.rebuild_equals_live, hub)
        if thoroughly:
            self.rows()

    def rows(self) -> None:
        """I1, I3, I14: the committed rows against the fold of the events and against what people were told."""
        table = {row["n"]: row for row in self._rows("SELECT n, state, lease_epoch, idem_key FROM task")}
        must(self.states == {n: row["state"] for n, row in table.items()}, "I14", "the fold of the events is not the table")
        for n, row in table.items():
            must(row["lease_epoch"] >= self.fences.get(n, 0), "I3", f"the fence of t-{n} went back")
            self.fences[n] = row["lease_epoch"]
        for n, (_, key, _) in self.acked.items():
            must(n in table and table[n]["idem_key"] == key, "I1", f"t-{n} was acknowledged and is gone")

    def hub_crashed(self) -> None:
        """What is committed must be sound without what was not."""
        self.rows()

    def _holds(self, invariant: str, check: Callable[..., None], *args: Any, **more: Any) -> None:
        try:
            check(*args, **more)
        except AssertionError as fault:
            raise Violation(invariant, f"{check.__name__}: {fault}") from fault

    def _rows(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        return self.world.hub.store.connection.execute(sql, params).fetchall()

    def _attempt(self, item: Any) -> dict[str, Any] | None:
        found = self._rows(
            "SELECT agent, accepted_at, ended_at, sha256 FROM attempt WHERE task = ? AND lease_epoch = ?",
            item.task,
            item.lease_epoch,
        )
        return found[0] if found else None
