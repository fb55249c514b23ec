"""People and programs beside the agents: submitters that remember what they were told, operators, those who answer, a gatekeeper.

All of them speak to the hub as its HTTP door would let them; a request or its answer may be lost, and a submitter that heard nothing
says the same again under its idempotency key.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hub.core import commands as c
from hub.core.decision import Submitted
from hub.core.errors import HubError, Refused
from hub.ids import SECOND, Access, AgentId, Lane, LeaseEpoch, TaskId, TaskState, TaskType
from tests.simulation.timeline import Either, Pause, Signal
from tests.support.cluster import PROJECTS, REPOS, new

if TYPE_CHECKING:
    from tests.simulation.world import World

UNHEARD = "unheard"
"""What a request came to when nobody knows: it or its answer was lost."""
FIXED = ("rate_limited", "ask", "vanish")
"""Tempers of tasks that go on being a nuisance until a budget ends them."""


class People:
    """Everybody who is no agent."""

    def __init__(self, world: World) -> None:
        self.world, self.timeline, self.dice = world, world.timeline, world.timeline.dice
        self.submitting = True
        self.numbers: list[int] = []
        self.keys = 0
        for life in (self._submits, self._submits, self._operates, self._answers, self._keeps_the_gate):
            self.timeline.spawn(None, life)

    async def call(self, command: c.Command, patience_us: int = 20 * SECOND) -> Any:
        """One request: the reply, the refusal, or :data:`UNHEARD`."""
        heard: list[Any] = []
        done = Signal()
        timeline, network = self.timeline, self.world.network

        def answered(answer: Any) -> None:
            self.world.watch.told.answers(answer)
            if timeline.chance(0.03):
                timeline.note("people.answer_lost")
                return
            timeline.after(network.latency_us(), lambda: (heard.append(answer), done.fire()))

        hub = self.world.hub
        timeline.after(network.latency_us(), lambda: hub.ask(command, answered), hub.host)
        await Either(done, patience_us)
        if heard and isinstance(heard[0], BaseException) and not isinstance(heard[0], HubError):
            raise heard[0]
        return heard[0] if heard else UNHEARD

    # ── submitting ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _submits(self) -> None:
        earlier: list[c.Submit] = []
        while True:
            await Pause(self.timeline.span(0.5, 25))
            hub = self.world.hub
            if not self.submitting or (hub.is_up and hub.cluster.live >= self.world.live_tasks):
                continue
            if earlier and self.timeline.chance(0.15):
                self.timeline.note("people.repeat")
                await self._insist(self.dice.choice(earlier))  # long after it was answered
                continue
            command = self._batch()
            earlier.append(command)
            await self._insist(command)
            del earlier[:-20]

    async def _insist(self, command: c.Submit) -> None:
        """Until there is an answer, if the keys make that safe."""
        keyed = all(task.idempotency_key is not None for task in command.tasks)
        for _ in range(12 if keyed else 1):
            answer = await self.call(command)
            if isinstance(answer, Submitted):
                self.world.watch.told.is_heard(command, answer)
                self.numbers += [task.n for task in answer.tasks if task.created]
                return
            if isinstance(answer, Refused) and answer.status != 503:
                self.timeline.note(f"people.refused.{answer.code}")
                return
            self.timeline.note("people.try_again")
            await Pause(self.timeline.span(0.1, 5.0))

    def _batch(self) -> c.Submit:
        dice = self.dice
        actor = dice.choice(("ann", "bob"))
        size = dice.choice((1, 1, 1, 2, 3))
        keyed = self.timeline.chance(0.6)
        tasks: list[c.NewTask] = []
        for i in range(size):
            fields: dict[str, Any] = {"ref": f"r{i}", "lane": dice.choice(list(Lane)), "max_tries": dice.choice((1, 2, 3))}
            if keyed:
                self.keys += 1
                fields["idempotency_key"] = f"k{self.keys}"
            for name, probability, value in self._options():
                if self.timeline.chance(probability):
                    fields[name] = value
            refs = [f"r{j}" for j in range(i)] + [TaskId(n) for n in self.numbers[-6:]]
            if refs and self.timeline.chance(0.45):
                wanted = dice.choice(refs)
                fields["depends_on"] = (c.Dependency(needs=wanted, policy=dice.choice(("skip", "skip", "run", "fail"))),)
            tasks.append(new(f"task {self.keys}.{i}", spec=self._spec(), **fields))
        if keyed and self.keys > 3 and self.timeline.chance(0.05):  # a key that was used for something else
            tasks[0] = replace(tasks[0], idempotency_key=f"k{dice.randrange(1, self.keys - 2)}")
        return c.Submit(actor=actor, tasks=tuple(tasks))

    def _options(self) -> tuple[tuple[str, float, Any], ...]:
        dice, wall = self.dice, self.world.hub.steady.wall()
        return (
            ("repo", 0.7, dice.choice(list(REPOS))),
            ("project", 0.3, dice.choice(list(PROJECTS))),
            ("capabilities", 0.2, dice.choice((("x",), ("y",), ("x", "y")))),
            ("assign_to", 0.06, AgentId(dice.choice(self.world.agents))),
            ("not_before", 0.12, wall + dice.randrange(-50, 120) * SECOND),
            ("deadline", 0.1, wall + dice.randrange(5, 300) * SECOND),
            ("queue_ttl_us", 0.05, dice.randrange(5, 200) * SECOND),
            ("hold", 0.08, True),
            ("unique_key", 0.08, f"u{dice.randrange(3)}"),
            ("type", 0.15, dice.choice((TaskType.TASK, TaskType.RESEARCH))),
            ("access", 0.1, Access.READ_ONLY),
        )

    def _spec(self) -> str:
        temper = f', "metadata": {{"temper": "{self.dice.choice(FIXED)}"}}' if self.timeline.chance(0.08) else ""
        checks = ', "verification": [{"kind": "git_clean"}]' if self.timeline.chance(0.3) else ""
        return f'{{"budget": {{"wall_s": {self.dice.choice((60, 300))}}}, "max_fix_rounds": 1{temper}{checks}}}'

    # ── steering ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _operates(self) -> None:
        while True:
            await Pause(self.timeline.span(1.0, 20))
            if not self.numbers or not self.submitting:
                continue
            n = self._somebodys()
            agent = AgentId(self.dice.choice(self.world.agents))
            force = self.timeline.chance(0.5)
            choices: tuple[tuple[int, c.Command], ...] = (
                (5, c.Cancel(n=n)),
                (5, c.Requeue(n=n)),
                (3, c.Requeue(n=TaskId(self.dice.choice(self.numbers)))),
                (3, c.Hold(n=n)),
                (4, c.Release(n=n)),
                (4, c.Assign(n=n, agent=self.dice.choice((None, agent)), force=force)),
                (4, c.Complete(n=n, force=force)),
                (2, c.Dispatch()),
                (1, c.PauseAgent(agent=agent)),
                (2, c.ResumeAgent(agent=agent)),
            )
            command = self.dice.choices([item for _, item in choices], [weight for weight, _ in choices])[0]
            answer = await self.call(command)
            ok = UNHEARD if answer is UNHEARD else "refused" if isinstance(answer, HubError) else "done"
            self.timeline.note(f"people.{type(command).__name__.lower()}.{ok}", f"t-{getattr(command, 'n', '')}")

    def _somebodys(self) -> TaskId:
        """A task to do something to: mostly a recent one, often one that an agent has."""
        leased = self._look("SELECT n FROM task WHERE holder_agent IS NOT NULL ORDER BY n") if self.timeline.chance(0.4) else []
        return TaskId(self.dice.choice([row["n"] for row in leased] or self.numbers[-12:]))

    async def set_everything_going(self) -> None:
        """After the faults: whatever a person stopped a person starts again."""
        self.submitting = False
        for agent in self.world.agents:
            while await self.call(c.ResumeAgent(agent=AgentId(agent)), 5 * SECOND) is UNHEARD:
                await Pause(SECOND)
        while not self.world.hub.settled:
            await Pause(SECOND)
        self.world.hub.registry(PROJECTS, REPOS)
        while True:
            answer = await self.call(c.Dispatch(), 5 * SECOND)
            if answer is not UNHEARD and not isinstance(answer, HubError):
                break
            await Pause(SECOND)

    async def keep_agents_going(self) -> None:
        """Nobody stays in quarantine for ever."""
        while True:
            await Pause(60 * SECOND)
            for agent in self.world.agents:
                await self.call(c.ResumeAgent(agent=AgentId(agent)), 5 * SECOND)

    async def _answers(self) -> None:
        """Reads committed questions and answers them, some too late."""
        while True:
            await Pause(self.timeline.span(1.0, 50) if self.submitting else 5 * SECOND)
            asked = self._look("SELECT DISTINCT task FROM question WHERE answered_at IS NULL ORDER BY task")
            if asked:
                n = self.dice.choice(asked)["task"]
                answer = await self.call(c.Answer(n=TaskId(n), text="yes"))
                self.timeline.note(f"people.answer.{'refused' if isinstance(answer, HubError) else 'done'}", f"t-{n}")

    # ── the gatekeeper ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _keeps_the_gate(self) -> None:
        """Looks at what is in review, intends, merges, returns or buries; forgets everything now and then and does it again."""
        while True:
            await Pause(self.timeline.span(0.5, 15))
            found = self._look(
                "SELECT n, lease_epoch, merging, rework FROM task WHERE state = ? ORDER BY n", TaskState.IN_REVIEW.value
            )
            if not found:
                continue
            row = self.dice.choice(found)
            at = {"n": TaskId(row["n"]), "lease_epoch": LeaseEpoch(row["lease_epoch"])}
            if self.timeline.chance(0.2) and not row["merging"] and self.submitting:
                await self.call(c.Rework(**at, feedback="once more", branch="b", head_sha="b" * 40))
            elif self.timeline.chance(0.08):
                await self._repeatedly(c.Bury(**at, cause="rejected"))
            else:
                await self._repeatedly(c.IntendMerge(**at))
                await Pause(self.timeline.span(0.05, 5))
                if self.timeline.chance(0.15):
                    self.timeline.note("gatekeeper.forgets")
                elif self.timeline.chance(0.1):
                    await self._repeatedly(c.AbandonMerge(**at))
                else:
                    await self._repeatedly(c.Merged(**at, sha="c" * 40))

    async def _repeatedly(self, command: c.Command) -> None:
        """Every command of the gatekeeper may be said again."""
        for _ in range(1 + self.timeline.chance(0.3)):
            answer = await self.call(command)
            ok = UNHEARD if answer is UNHEARD else "refused" if isinstance(answer, HubError) else "done"
            self.timeline.note(f"gatekeeper.{type(command).__name__.lower()}.{ok}", f"t-{command.n}")  # type: ignore[attr-defined]

    def _look(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        """Committed rows, as any reader sees them."""
        return self.world.hub.store.rows(sql, *params) if self.world.hub.is_up else []
