"""The committed events, read in order as they are committed: what they tell must be legal, and the table must be their sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hub.core.rows import EventRow
from hub.core.task import TRANSITIONS
from hub.ids import TERMINAL, TaskState
from tests.simulation.violation import must

if TYPE_CHECKING:
    from tests.simulation.world import World


class Story:
    """I3, I4, I5, I11, I12 and I14, from the events alone."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seq = 0
        self.states: dict[int, str] = {}
        self.generations: Counter[int] = Counter()
        self.claimed: dict[int, int] = {}
        self.accepted: Counter[tuple[int, int]] = Counter()
        self.done: set[tuple[int, int]] = set()
        self.ends: dict[int, set[str]] = {}
        self.fences: dict[int, int] = {}

    def goes_on(self, events: Sequence[tuple[int, EventRow]]) -> None:
        """A group was committed."""
        for seq, event in events:
            must(seq == self.seq + 1, "I14", f"event {seq} follows {self.seq}")
            self.seq = seq
            if event.task is not None:
                self._of_task(event.task, event)

    def _of_task(self, n: int, event: EventRow) -> None:
        if event.cause == "agent_restarted":
            running = [shim.run_id for shim in self.world.watch.agents.running.get(n, []) if shim.key == (n, event.lease_epoch)]
            must(not running, "I16", f"t-{n} is given up as if its agent were gone, and it runs: {running}")
        self.generations[n] += event.kind == "task.requeued"
        generation = self.generations[n]
        if event.to_state is not None:
            self._moves(n, generation, event)
        if event.kind == "task.assigned":
            assert event.lease_epoch is not None
            must(event.lease_epoch > self.claimed.get(n, 0), "I3", f"t-{n}: fence {event.lease_epoch} was used before")
            self.claimed[n] = event.lease_epoch
            self._may_run(n)
        elif event.kind == "task.accepted":
            self.accepted[n, generation] += 1
            must(self.accepted[n, generation] <= self.world.max_claims, "I11", f"t-{n} is accepted without end")

    def _moves(self, n: int, generation: int, event: EventRow) -> None:
        before, to = event.from_state, event.to_state
        must(self.states.get(n) == before, "I14", f"t-{n}: {before} → {to} after {self.states.get(n)}")
        if before is None:
            must(to == TaskState.WAITING, "I5", f"t-{n} began as {to}")
        else:
            must(TaskState(to) in TRANSITIONS[TaskState(before)], "I5", f"t-{n}: {before} → {to}")
            must(before not in TERMINAL or event.kind == "task.requeued", "I5", f"t-{n} left {before} by {event.kind}")
            self.world.timeline.note(f"task.{before}.{to}", f"t-{n}/{event.lease_epoch} {event.cause or ''}")
        self.states[n] = str(to)
        if to in TERMINAL:
            self.ends.setdefault(n, set()).add(str(to))
        if to == TaskState.DONE:
            must((n, generation) not in self.done, "I4", f"t-{n} is done twice in generation {generation}")
            self.done.add((n, generation))

    def _may_run(self, n: int) -> None:
        """I12: whatever it needs has been done, or has ended where that is enough."""
        for edge in self.world.hub.store.rows("SELECT needs, policy FROM task_dep WHERE task = ?", n):
            ends = self.ends.get(edge["needs"], set())
            must(
                TaskState.DONE in ends or (edge["policy"] == "run" and ends),
                "I12",
                f"t-{n} runs before t-{edge['needs']} ended",
            )

    def is_the_table(self) -> None:
        """I3 and I14, row by row."""
        table = {row["n"]: row for row in self.world.hub.store.rows("SELECT n, state, lease_epoch FROM task")}
        must(self.states == {n: row["state"] for n, row in table.items()}, "I14", "the fold of the events is not the table")
        for n, row in table.items():
            must(row["lease_epoch"] >= self.fences.get(n, 0), "I3", f"the fence of t-{n} went back")
            self.fences[n] = row["lease_epoch"]
