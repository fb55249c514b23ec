"""A run in the world: its shim, and the agent's processes under it. It survives its sidecar and ends by its own deadline.

As :mod:`sidecar.runs.shim` it counts on the machine's boot clock, is only ever given more time, runs nothing when it is started too
late, and is over, with its last event durable, when every process is dead. The agent's temper says what it does meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.core.records import Key
from sidecar.runtimes.base import RunEnd
from tests.simulation.timeline import Host, Pause, Signal

if TYPE_CHECKING:
    from tests.simulation.machine import Machine

TEMPERS = {
    "change": 40,
    "long": 20,
    "nothing": 5,
    "dirty": 5,
    "fail": 8,
    "permanent": 2,
    "ask": 12,
    "impatient": 4,
    "hang": 8,
    "rate_limited": 4,
    "vanish": 3,
}
"""What an agent may turn out to do, by weight."""

FAILING = ("fail", "permanent", "rate_limited")


@dataclass
class Tree:
    """What is in a workspace, as :func:`sidecar.core.rounds.next_step` asks."""

    advanced: bool = False
    dirty_count: int = 0

    @property
    def dirty(self) -> tuple[str, ...]:
        return ("left.txt",) * self.dirty_count


class Shim:
    """One run of one assignment."""

    def __init__(
        self, machine: Machine, agent: str, key: Key, run_id: str, soft_us: int, hard_us: int, temper: str, wall_us: int
    ) -> None:
        self.machine, self.agent, self.key, self.run_id = machine, agent, key, run_id
        self.timeline = machine.world.timeline
        self.host = Host(f"shim {run_id}")
        self.soft_us, self.hard_us, self.wall_us = soft_us, hard_us, machine.boot_us() + wall_us
        self.kill_us: int | None = None
        self.temper = temper
        self.tree = machine.tree(agent, key)
        self.running = self.locked = False
        self.stopped: str | None = None
        self.ended: tuple[str | None, RunEnd] | None = None
        self.questions: list[str] = []
        self.sent: dict[str, str] = {}
        self.changed, self.answered = Signal(), Signal()
        if machine.boot_us() >= soft_us:  # the lease it was started under is over: another may hold the task
            self.timeline.note("shim.too_late", run_id)
            self.ended = ("deadline", RunEnd(ok=False, code="unrun"))
            return
        self.running = self.locked = True
        machine.world.watch.agents.starts(self)
        self.timeline.note("shim.starts", f"{agent} {run_id} {temper}")
        self.timeline.spawn(self.host, self._agent)
        self._arm()

    @property
    def asleep(self) -> bool:
        """Its machine is suspended: nothing of it runs."""
        return self.host.paused

    # ── the agent ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _agent(self) -> None:
        """What the agent does."""
        dice, span = self.timeline.dice, self.timeline.span
        await Pause(span(0.5, 40))
        for _ in range(dice.randrange(3, 40) if self.temper == "long" else 0):
            if self.machine.world.faults.raging:  # in the calm nobody dawdles
                await Pause(10_000_000)
        if self.temper in ("ask", "impatient"):
            qid = f"q{self.run_id}"
            self.questions.append(qid)
            self.changed.fire()
            while self.temper == "ask" and qid not in self.sent.values():
                await self.answered
            await Pause(span(0.5, 20))
        elif self.temper == "hang":
            await Signal()
        elif self.temper == "vanish":
            self.vanish()
            return
        ok = self.temper not in FAILING and not (self.temper == "impatient" and dice.random() < 0.4)
        self.tree.advanced |= ok and (self.temper != "nothing" or dice.random() < 0.2)
        self.tree.dirty_count = int(self.temper == "dirty" and dice.random() < 0.7)
        self._end(None, RunEnd(ok=ok, code="" if ok else self.temper, retryable=self.temper != "permanent"))

    # ── its shim ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def extend(self, soft_us: int, hard_us: int) -> None:
        """The lease goes on; never shortens."""
        self.soft_us, self.hard_us = max(self.soft_us, soft_us), max(self.hard_us, hard_us)
        self._arm()

    def stop(self, grace_us: int, why: str = "stop") -> None:
        """Ask the agent to end; by force after the grace, and never later than the hard deadline."""
        if not self.running:
            return
        now = self.machine.boot_us()
        kill_us = min(now + grace_us, self.hard_us)
        self.kill_us = kill_us if self.kill_us is None else min(self.kill_us, kill_us)
        self.stopped = self.stopped or why
        ends_us = now + int((self.kill_us - now) * min(1.0, self.timeline.dice.random() * 1.5))
        self.timeline.at(self.machine.when(ends_us), self._stopped, self.host)

    def answer(self, key: str, qid: str) -> None:
        """Write to the agent's stdin, once per key."""
        if key not in self.sent:
            self.sent[key] = qid
            self.answered.fire()

    def _arm(self) -> None:
        for at_us in (self.soft_us, self.hard_us, self.wall_us):
            self.timeline.at(self.machine.when(at_us), self.keep_deadline, self.host)

    def keep_deadline(self) -> None:
        """Look at the boot clock: ask the agent to end, or make it."""
        now = self.machine.boot_us()
        if self.running and now >= self.hard_us:
            self.timeline.note("shim.deadline", self.run_id)
            self.stopped = self.stopped or "deadline"
            self._stopped()
        elif self.running and now >= self.soft_us and self.stopped is None:
            self.stop(max(0, self.hard_us - now) // 2, "deadline")
        elif self.running and now >= self.wall_us and self.stopped is None:
            self.stop(10_000_000, "wall")

    def _stopped(self) -> None:
        if self.running:
            self._end(self.stopped, RunEnd(ok=False, code="stopped"))

    def _end(self, stopped: str | None, end: RunEnd) -> None:
        """Every process is dead; the terminal event is durable."""
        self.timeline.note("shim.ends", f"{self.agent} {self.run_id} {stopped or end.code or 'ok'}")
        self.running = self.locked = False
        self.ended = (stopped, end)
        self.machine.world.watch.agents.ends(self)
        self.host.die()
        self.changed.fire()

    # ── its end by others ────────────────────────────────────────────────────────────────────────────────────────────────────

    def kill(self, why: str) -> None:
        """Somebody ends whatever is left of it."""
        if self.running:
            self.timeline.note(f"shim.{why}", self.run_id)
            self._end("stop", RunEnd(ok=False, code=why))

    def vanish(self) -> None:
        """It is gone without a last word: the machine lost power, or somebody killed shim and agent."""
        if self.running:
            self.timeline.note("shim.lost", self.run_id)
            self.running = self.locked = False
            self.machine.world.watch.agents.ends(self)
            self.host.die()
            self.changed.fire()
