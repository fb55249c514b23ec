"""The ready tasks: where a claim finds the next one without looking at the rest.

Tasks stand in buckets by (requirement set, lane), on one shelf for everybody and one for each agent that tasks are pinned to. Entries
are deleted lazily: a task that left the queue, or entered it anew, has another token. Every bucket counts its living entries, so the dead
ones never outnumber them for long, and a bucket or shelf with nothing left is gone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from hub.core.lanes import AGE_BOUND_US, LANES
from hub.core.matching import AgentClass, Requirement
from hub.core.task import Task
from hub.ids import AgentId, Lane, TaskState

MAX_REQUIREMENTS = 512
"""Live requirement sets; a submit that would need another is refused."""
MAX_KNOWN = 4096
"""Requirement sets whose ids are remembered, live or not."""
MAX_SKIPPED = 16
"""Heads a claim passes over (tasks that avoid this agent) before it gives up on a bucket."""
SLACK = 64
"""Dead entries a bucket may hold beyond as many as the living ones."""

Entry = tuple[int, int, int]
"""(place or time of entry, task, token)."""


@dataclass(slots=True)
class Bucket:
    """Ready tasks of one requirement set in one lane: by place, and by age. ``living`` counts the tasks that are really here."""

    by_place: list[Entry] = field(default_factory=list)
    by_age: deque[Entry] = field(default_factory=deque)
    living: int = 0


Shelf = dict[tuple[int, Lane], Bucket]


@dataclass(slots=True)
class Ready:
    """The queued tasks. ``shelves[None]`` is everybody's, the others hold what is pinned to one agent.

    ``needs`` gives the meaning of the requirement ids of tasks in memory, ``ids`` the id of every known set, ``users`` and ``live``
    count the tasks in memory and the live ones, ``depth`` counts the ready tasks per lane and ``crowd`` per lane and project,
    ``entered`` every entry so far.
    """

    tasks: dict[int, Task]
    needs: dict[int, Requirement] = field(default_factory=dict)
    ids: dict[Requirement, int] = field(default_factory=dict)
    users: dict[int, int] = field(default_factory=dict)
    live: dict[int, int] = field(default_factory=dict)
    shelves: dict[AgentId | None, Shelf] = field(default_factory=lambda: {None: {}})
    depth: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))
    crowd: Counter[tuple[Lane, str]] = field(default_factory=Counter)
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
        """A task left memory; the last one of a requirement set takes the set's meaning along, its id stays known."""
        rid = task.requirement
        self.users[rid] -= 1
        if not self.users[rid]:
            del self.users[rid], self.needs[rid]

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
        task.queue_token, task.shelf = self.entered, task.assign_to
        self.depth[task.lane] += 1
        self.crowd[task.lane, task.project] += 1
        bucket = self.shelves.setdefault(task.shelf, {}).setdefault((task.requirement, task.lane), Bucket())
        bucket.living += 1
        heappush(bucket.by_place, (task.seq, task.n, task.queue_token))
        bucket.by_age.append((task.queued_at or 0, task.n, task.queue_token))

    def drop(self, task: Task) -> None:
        """The task is no longer ready; its entries become stale."""
        task.queue_token = 0
        self.depth[task.lane] -= 1
        self.crowd[task.lane, task.project] -= 1
        if not self.crowd[task.lane, task.project]:
            del self.crowd[task.lane, task.project]
        shelf, key = self.shelves[task.shelf], (task.requirement, task.lane)
        bucket = shelf[key]
        bucket.living -= 1
        if not bucket.living:
            del shelf[key]
            if not shelf and task.shelf is not None:
                del self.shelves[task.shelf]
        elif len(bucket.by_age) > 2 * bucket.living + SLACK:
            bucket.by_age = deque(entry for entry in bucket.by_age if self._living(entry))
            bucket.by_place = [entry for entry in bucket.by_place if self._living(entry)]
            heapify(bucket.by_place)

    def _living(self, entry: Entry) -> bool:
        task = self.tasks.get(entry[1])
        return task is not None and task.state is TaskState.QUEUED and task.queue_token == entry[2]

    def pinned_to(self, agent: AgentId) -> int:
        """How many ready tasks wait for this agent alone."""
        return sum(bucket.living for bucket in self.shelves.get(agent, {}).values())

    def first_pinned(self, agent: AgentId, rids: Iterable[int]) -> Task | None:
        """The next task pinned to this agent, of these requirement sets: the most urgent lane first."""
        shelf = self.shelves.get(agent)
        if shelf is None:
            return None
        allowed = set(rids)
        found = [self._first(bucket, _any) for (rid, _), bucket in shelf.items() if rid in allowed]
        heads = [task for task in found if task is not None]
        return min(heads, key=lambda task: (LANES.index(task.lane), task.seq, task.n), default=None)

    def first(self, rid: int, lane: Lane, passes: Callable[[Task], bool]) -> Task | None:
        """The first task of a bucket that ``passes``, looking past at most MAX_SKIPPED that do not."""
        bucket = self.shelves[None].get((rid, lane))
        return self._first(bucket, passes) if bucket is not None else None

    def _first(self, bucket: Bucket, passes: Callable[[Task], bool]) -> Task | None:
        heap, found = bucket.by_place, None
        skipped: list[Entry] = []
        while heap and len(skipped) <= MAX_SKIPPED:
            if not self._living(heap[0]):
                heappop(heap)
            elif passes(self.tasks[heap[0][1]]):
                found = self.tasks[heap[0][1]]
                break
            else:
                skipped.append(heappop(heap))
        for entry in skipped:
            heappush(heap, entry)
        return found

    def oldest(self, rid: int, lane: Lane) -> Task | None:
        """The unpinned task that has waited longest in a bucket."""
        bucket = self.shelves[None].get((rid, lane))
        if bucket is None:
            return None
        while not self._living(bucket.by_age[0]):
            bucket.by_age.popleft()
        return self.tasks[bucket.by_age[0][1]]

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


def _any(_: Task) -> bool:
    return True
