"""What must hold after every step, by the numbers of the invariants (I1 … I17) and of liveness (L1 … L4).

The watch trusts no index and no counter of the product: it compares what a peer is told with the rows committed at that moment
(:mod:`told`), reads the events on (:mod:`story`), sees the running agents (:mod:`agents`), and counts the live scheduler anew
(:mod:`tests.property.model`). What costs a query per row (rebuild equals live, fold equals table, acknowledged is stored) is checked at
every ``often``-th step that changed the hub, at every crash of it and at the end; everything else after each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hub.core import commands as c
from hub.core.decision import AckResult, Decision
from hub.core.errors import Refused
from hub.ids import AgentId, TaskState, Verdict
from hub.store.writer import Committed
from sidecar.core.records import Key
from tests.property import model
from tests.simulation.agents import Agents
from tests.simulation.story import Story
from tests.simulation.told import Told
from tests.simulation.violation import Violation, must

if TYPE_CHECKING:
    from tests.simulation.world import World

CONTROL_US = 15_000_000
"""In a session that lives so long, and that nothing slows down, every control is noted."""


class Watch:
    """Sees everything and changes nothing."""

    def __init__(self, world: World, often: int = 25) -> None:
        self.world, self.often = world, often
        self.story, self.told, self.agents = Story(world), Told(world), Agents(world)
        self.changes = 0
        self.changed = False
        self._session = 0
        self._asked: dict[tuple[int, int], int] = {}
        self._before: tuple[int, TaskState] | None = None

    # ── the hub decides and commits ──────────────────────────────────────────────────────────────────────────────────────────

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
            self._before = (task.lease_epoch, task.state) if task is not None else None

    def decided(self, command: c.Command, decision: Decision) -> None:
        """A command was applied; nothing of it has left yet."""
        self.changed = True
        if isinstance(command, c.FromSession) and command.session_epoch != self._session:
            silent = not (decision.rows or decision.events or decision.effects)
            must(silent, "I8", f"{type(command).__name__} of an old session counts")
        if isinstance(command, c.Report):
            self._judged(command, decision)
        if isinstance(command, c.FromSession | c.Hello):
            self._renewed(command.agent)

    def _judged(self, command: c.Report, decision: Decision) -> None:
        """I4, I7: a result is applied once, under its own fence; any other changes nothing but salvage and audit."""
        [verdict] = [effect.verdict for _, _, effect in decision.effects if isinstance(effect, AckResult)]
        key = Key(command.n, command.lease_epoch)
        what = f"t-{key.task}/{key.lease_epoch}"
        self.world.timeline.note(f"verdict.{verdict}", what)
        if verdict is Verdict.APPLIED:
            must(self._before is not None and self._before[0] == key.lease_epoch, "I4", f"{what} applied under another fence")
            must(key not in self.told.applied, "I4", f"{what} applied twice")
            if self._before is not None and self._before[1] is TaskState.QUEUED:
                self.world.timeline.note("verdict.late", what)
        elif not any(event.cause in ("cancel", "complete", "assign", "deadline", "stopped") for event in decision.events):
            self._holds("I4", model.changes_nothing_but_salvage, decision, command.n)
        if self.told.applied.get(key) == command.sha256:
            must(verdict is Verdict.DUPLICATE, "I7", f"the applied result {what} said again is {verdict}")

    def _renewed(self, name: AgentId) -> None:
        hub = self.world.hub
        agent = hub.cluster.agents.get(name)
        task = hub.cluster.tasks[agent.task] if agent is not None and agent.task is not None else None
        if task is not None and task.lease_until == hub.steady.mono() + hub.terms.hold_us:
            self.agents.renewed[task.n, task.lease_epoch] = self.world.timeline.now

    def refused(self, command: c.Command, refusal: Refused) -> None:
        """A command was refused: never because a task that exists were forgotten."""
        self.world.timeline.note(f"refused.{refusal.code}")
        if isinstance(command, c.Submit):
            unknown = [fault for fault in refusal.faults if fault.type == "unknown_task"]
            must(not unknown, "I12", f"a task that exists is called unknown: {unknown}")

    def committed(self, done: Committed) -> None:
        """A group is durable; what it says is still on its way."""
        self.changed = True
        self.story.goes_on(done.events)

    def hub_crashed(self) -> None:
        """What is committed must be sound without what was not."""
        self.rows()

    @contextmanager
    def nothing_changes(self, frame: Any) -> Iterator[None]:
        """I7: the same frame is heard once more."""
        before = self._fingerprint()
        yield
        must(before is None or self._fingerprint() in (before, None), "I7", f"{frame.t} twice is not {frame.t} once")

    def _fingerprint(self) -> Any:
        """Everything but when an agent was last seen."""
        hub: Any = self.world.hub
        if not hub.is_up:
            return None
        tasks, agents, *rest = model.fingerprint(hub)
        return tasks, {name: (model._agent(row), *more) for name, (row, *more) in agents.items()}, rest

    # ── after each step ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def after_step(self) -> None:
        """Everything that can be asked at any moment; of the hub, if this step changed it."""
        self.agents.after_step()
        if self.changed and self.world.hub.is_up:
            self.changed = False
            self.changes += 1
            self.live(thoroughly=self.changes % self.often == 0)

    def live(self, *, thoroughly: bool) -> None:
        """The live scheduler, counted anew."""
        hub: Any = self.world.hub
        self._holds("I2", model.one_lease_each, hub.cluster)
        self._holds("I11", model.within_budgets, hub.cluster)
        self._holds("I12", model.dependencies_counted, hub.cluster)
        self._holds("I9", model.counters_recounted, hub.cluster)
        self._holds("L2", model.deadlines_armed, hub.cluster)
        self._controls_arrive()
        self._holds("L1", model.nobody_idles_beside_work, hub, thoroughly=thoroughly)
        if thoroughly:
            self.rows()
            if hub.settled:
                self._holds("I14", model.rebuild_equals_live, hub)

    def _controls_arrive(self) -> None:
        """L2: whatever is asked of a holder reaches it in its present session, or when it opens one."""
        hub = self.world.hub
        now, before, self._asked = hub.steady.mono(), self._asked, {}
        for cid, row in hub.cluster.controls.items():
            agent = hub.cluster.agents[row.agent]
            if agent.connected and not self.world.is_hampered(agent.id):
                since = self._asked[cid, agent.epoch] = before.get((cid, agent.epoch), now)
                must(now - since < CONTROL_US, "L2", f"control {cid} is not noted in session {agent.epoch} of {agent.id}")

    def rows(self) -> None:
        """The committed rows, against all that was ever said about them."""
        self.story.is_the_table()
        self.told.is_kept()

    def _holds(self, invariant: str, check: Callable[..., None], *args: Any, **more: Any) -> None:
        try:
            check(*args, **more)
        except AssertionError as fault:
            raise Violation(invariant, f"{check.__name__}: {fault}") from fault
