"""Who can do what: requirement sets, classes of agents, the index of ready tasks and the index of idle agents.

A requirement set is (project, repository, capabilities); a class is (capabilities, projects) of an agent. Both are few, so a claim
looks only at the heads of the matching requirement sets, and a submit only at the heads of the matching classes: neither depends on
how many tasks or agents there are. Entries are deleted lazily.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from hub.core.agent import Agent
from hub.core.lanes import AGE_BOUND_US, LANES
from hub.core.task import Task
from hub.ids import CHECKS, AgentId, Lane, TaskState

MAX_REQUIREMENTS = 512
"""Live requirement sets; a submit that would need another is refused."""
MAX_KNOWN = 4096
"""Requirement sets whose ids are remembered, live or not."""
MAX_SKIPPED = 16
"""Heads a claim passes over (tasks that avoid this agent) before it gives up on a bucket."""


Place = tuple[tuple[int, int], int, int]
"""((rank, seq), task number, queue token): an entry of a heap of ready tasks."""


class Requirement(NamedTuple):
    """What an agent must offer."""

    project: str
    repo: str | None
    capabilities: frozenset[str]


class AgentClass(NamedTuple):
    """Agents that can do the same work."""

    capabilities: frozenset[str]
    projects: frozenset[str]

    def serves(self, need: Requirement) -> bool:
        """Whether agents of this class may be given tasks of this requirement set; those that run checks do nothing else."""
        if (CHECKS in self.capabilities) != (CHECKS in need.capabilities):
            return False
        return need.capabilities <= self.capabilities and (not self.projects or need.project in self.projects)


def class_of(agent: Agent) -> AgentClass:
    """The class an agent belongs to now."""
    return AgentClass(agent.capabilities, agent.projects)


@dataclass(slots=True)
class Bucket:
    """Ready tasks of one requirement set in one lane: by place, and by age."""

    by_place: list[Place] = field(default_factory=list)
    by_age: deque[tuple[int, int, int]] = field(default_factory=deque)


@dataclass(slots=True)
class Ready:
    """The queued, unpinned tasks; and per agent the tasks pinned to it.

    ``needs`` gives the meaning of the requirement ids of tasks in memory, ``ids`` the id of every known set, ``users`` and ``live``
    count the tasks in memory and the live ones, ``depth`` the ready tasks per lane, ``entered`` every entry so far.
    """

    tasks: dict[int, Task]
    needs: dict[int, Requirement] = field(default_factory=dict)
    ids: dict[Requirement, int] = field(default_factory=dict)
    users: dict[int, int] = field(default_factory=dict)
    live: dict[int, int] = field(default_factory=dict)
    buckets: dict[tuple[int, Lane], Bucket] = field(default_factory=dict)
    pinned: dict[AgentId, list[Place]] = field(default_factory=dict)
    depth: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))
    entered: int = 0
    _served: dict[AgentClass, list[int]] = field(default_factory=dict)

    def add_requirement(self, rid: int, need: Requirement) -> None:
        """Make a requirement set known under this id, unless it is known already."""
        if need in self.ids:
            self.needs.setdefault(self.ids[need], need)
            return
        if len(self.ids) >= MAX_KNOWN:
            # tombstones may use every one of them: then the memory they are in is the bound
            idle = next((known for known, id_ in self.ids.items() if id_ not in self.users), None)
            if idle is not None:
                del self.ids[idle]
        self.ids[need] = rid
        self.needs[rid] = need

    def remember(self, task: Task) -> None:
        """A task with this requirement set is in memory."""
        self.users[task.requirement] = self.users.get(task.requirement, 0) + 1

    def forget(self, task: Task) -> None:
        """A task left memory; the last one of a requirement set takes the set's meaning and buckets along, its id stays known."""
        rid = task.requirement
        self.users[rid] -= 1
        if not self.users[rid]:
            del self.users[rid], self.needs[rid]
            for lane in LANES:
                self.buckets.pop((rid, lane), None)

    def enliven(self, task: Task) -> None:
        """A task with this requirement set is live."""
        rid = task.requirement
        self.live[rid] = self.live.get(rid, 0) + 1
        if self.live[rid] == 1:
            self._served.clear()

    def retire(self, task: Task) -> None:
        """A live task ended."""
        rid = task.requirement
        self.live[rid] -= 1
        if not self.live[rid]:
            del self.live[rid]
            self._served.clear()

    def served_by(self, kind: AgentClass) -> list[int]:
        """Requirement sets a class of agents can do, in id order."""
        found = self._served.get(kind)
        if found is None:
            if len(self._served) > 4096:
                self._served.clear()
            found = self._served[kind] = [rid for rid in sorted(self.live) if kind.serves(self.needs[rid])]
        return found

    def put(self, task: Task) -> None:
        """Enter a queued task; its ``queue_token`` makes older entries stale, also those of an earlier life in memory."""
        self.entered += 1
        task.queue_token = self.entered
        self.depth[task.lane] += 1
        if task.assign_to is not None:
            rank = LANES.index(task.lane)
            heappush(self.pinned.setdefault(task.assign_to, []), ((rank, task.seq), task.n, task.queue_token))
            return
        bucket = self.buckets.setdefault((task.requirement, task.lane), Bucket())
        while bucket.by_age and not self._live(bucket.by_age[0][1], bucket.by_age[0][2]):
            bucket.by_age.popleft()  # most lanes are never served by age: entering is what keeps their index short
        heappush(bucket.by_place, ((0, task.seq), task.n, task.queue_token))
        bucket.by_age.append((task.queued_at or 0, task.n, task.queue_token))

    def drop(self, task: Task) -> None:
        """The task is no longer ready; its entries become stale."""
        task.queue_token = 0
        self.depth[task.lane] -= 1

    def _live(self, n: int, token: int) -> bool:
        task = self.tasks.get(n)
        return task is not None and task.state is TaskState.QUEUED and task.queue_token == token

    def first_pinned(self, agent: AgentId, passes: Callable[[Task], bool]) -> Task | None:
        """The next task pinned to this agent that ``passes``, looking past at most MAX_SKIPPED that do not."""
        found = self._first(self.pinned.get(agent, []), passes)
        if not self.pinned.get(agent):
            self.pinned.pop(agent, None)
        return found

    def first(self, rid: int, lane: Lane, passes: Callable[[Task], bool]) -> Task | None:
        """The first task of a bucket that ``passes``, looking past at most MAX_SKIPPED that do not."""
        bucket = self.buckets.get((rid, lane))
        return self._first(bucket.by_place, passes) if bucket is not None else None

    def _first(self, heap: list[Place], passes: Callable[[Task], bool]) -> Task | None:
        found = None
        skipped: list[Place] = []
        while heap and len(skipped) <= MAX_SKIPPED:
            _, n, token = heap[0]
            if not self._live(n, token):
                heappop(heap)
            elif passes(self.tasks[n]):
                found = self.tasks[n]
                break
            else:
                skipped.append(heappop(heap))
        for entry in skipped:
            heappush(heap, entry)
        return found

    def oldest(self, rid: int, lane: Lane) -> Task | None:
        """The task that has waited longest in a bucket."""
        bucket = self.buckets.get((rid, lane))
        if bucket is None:
            return None
        while bucket.by_age and not self._live(bucket.by_age[0][1], bucket.by_age[0][2]):
            bucket.by_age.popleft()
        return self.tasks[bucket.by_age[0][1]] if bucket.by_age else None

    def overdue(self, rids: list[int], wall: int, passes: Callable[[Task], bool]) -> dict[Lane, Task]:
        """Per lane the oldest task beyond the lane's age bound, among these requirement sets."""
        found: dict[Lane, Task] = {}
        for lane, bound in AGE_BOUND_US.items():
            for rid in rids:
                task = self.oldest(rid, lane)
                if task is None or (task.queued_at or 0) + bound > wall or not passes(task):
                    continue
                best = found.get(lane)
                if best is None or (task.queued_at or 0, task.n) < (best.queued_at or 0, best.n):
                    found[lane] = task
        return found


@dataclass(slots=True)
class Idle:
    """Agents believed free and eligible, per class in the order in which they became idle; and per class and warm repository."""

    by_class: dict[AgentClass, dict[AgentId, None]] = field(default_factory=dict)
    warm: dict[tuple[AgentClass, str], dict[AgentId, None]] = field(default_factory=dict)
    listed: dict[AgentId, tuple[AgentClass, str | None]] = field(default_factory=dict)

    def add(self, agent: Agent) -> None:
        """List an agent as free (no effect if it is)."""
        if agent.id in self.listed:
            return
        kind = class_of(agent)
        self.by_class.setdefault(kind, {})[agent.id] = None
        if agent.warm_repo is not None:
            self.warm.setdefault((kind, agent.warm_repo), {})[agent.id] = None
        self.listed[agent.id] = (kind, agent.warm_repo)

    def remove(self, agent: AgentId) -> None:
        """Take an agent off the list (no effect if it is not on it)."""
        entry = self.listed.pop(agent, None)
        if entry is None:
            return
        kind, repo = entry
        members = self.by_class[kind]
        del members[agent]
        if not members:
            del self.by_class[kind]
        if repo is not None:
            warm = self.warm[kind, repo]
            del warm[agent]
            if not warm:
                del self.warm[kind, repo]

    def candidates(self, need: Requirement) -> Iterator[tuple[AgentId, str]]:
        """Free agents for a requirement set with the reason, warm ones first, then the longest idle of each class.

        Lazy, so that taking the first costs the same with a thousand idle agents; do not change the index while iterating.
        """
        kinds = [kind for kind in self.by_class if kind.serves(need)]
        if need.repo is not None:
            for kind in kinds:
                yield from ((agent, "affinity") for agent in self.warm.get((kind, need.repo), ()))
        for kind in kinds:
            yield from ((agent, "least_recently_used") for agent in self.by_class[kind])
