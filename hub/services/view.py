"""Looking at the scheduler without touching it: what doors and metrics may see between two commands."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hub.core.agent import Agent
from hub.core.scheduler import Scheduler
from hub.ids import Lane, TaskId, TaskState
from hub.services.clock import SteadyClock


class View:
    """Read-only, immediate; reflects decisions that may still be waiting for their commit, so it is for people, not for promises."""

    def __init__(self, scheduler: Scheduler, clock: SteadyClock) -> None:
        self._scheduler = scheduler
        self._clock = clock

    def explain(self, n: TaskId) -> str | None:
        """One line: why this task is not running now. None when it is not in memory."""
        return self._scheduler.explain(n, self._clock.stamp())

    def agents(self) -> Collection[Agent]:
        """Every known agent."""
        return list(self._scheduler.cluster.agents.values())

    def quarantined(self) -> list[Agent]:
        """Agents that are given nothing because of what speaks against them."""
        wall = self._clock.stamp().wall
        return [agent for agent in self.agents() if agent.quarantined_until is not None and wall < agent.quarantined_until]

    def progress(self, n: TaskId) -> tuple[int | None, str] | None:
        """Latest (percent, note) of a running task."""
        task = self._scheduler.cluster.tasks.get(n)
        return (task.progress[1], task.progress[2]) if task is not None and task.progress is not None else None

    def queue(self) -> Mapping[Lane, int]:
        """Ready tasks by lane."""
        return self._scheduler.cluster.ready.depth

    def states(self) -> Mapping[TaskState, int]:
        """Live tasks by state."""
        return self._scheduler.cluster.counts
