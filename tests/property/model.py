"""What must hold of the hub after every step, counted anew from the tasks, the rows and the events.

Each check is named for its invariant (docs: invariants). They read the live scheduler, the committed rows and the history of events;
none of them trusts an index or a counter of the scheduler.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

from hub.core import commands as c
from hub.core.cluster import Cluster
from hub.core.decision import AckResult, Decision
from hub.core.matching import class_of
from hub.core.rows import AgentRow, AttemptRow, EventRow, SalvageRow, TaskRow
from hub.core.task import MAX_CLAIMS, MAX_LOST, MAX_REWORK, TRANSITIONS, Task
from hub.core.timers import Timer
from hub.ids import LEASED, TERMINAL, AgentState, TaskState, Verdict
from tests.support.cluster import Hub

WRITTEN_IN_PASSING = ("note", "last_seen_at")
"""Columns of an agent that a beat changes in memory and the next row of that agent writes."""


# ── the live scheduler ───────────────────────────────────────────────────────────────────────────────────────────────────────


def one_lease_each(cluster: Cluster) -> None:
    """I2, I9: one holder per task, one lease per agent, and both sides agree."""
    held = Counter(task.holder for task in cluster.tasks.values() if task.holder is not None)
    assert all(number == 1 for number in held.values()), held
    for task in cluster.tasks.values():
        assert (task.holder is not None) == (task.state in LEASED and not task.parked), task
        assert (task.attempt is not None) == (task.holder is not None)
        if task.holder is not None and task.attempt is not None:
            assert cluster.agents[task.holder].task == task.n
            assert task.attempt.lease_epoch == task.lease_epoch and task.attempt.agent == task.holder
    for agent in cluster.agents.values():
        assert agent.task is None or cluster.tasks[agent.task].holder == agent.id, agent
        if agent.task is None:
            assert agent.state in (AgentState.IDLE, AgentState.OFFLINE), agent


def within_budgets(cluster: Cluster) -> None:
    """I11."""
    for task in cluster.tasks.values():
        assert 0 <= task.tries <= task.max_tries, task
        assert task.lost <= MAX_LOST and task.rework <= MAX_REWORK and task.claims <= MAX_CLAIMS, task


def dependencies_counted(cluster: Cluster) -> None:
    """I12: whoever is beyond waiting has no open dependency, whoever waits has a reason; the reverse index is exact."""
    expected: dict[int, set[int]] = {}
    for task in cluster.tasks.values():
        if task.terminal:
            continue
        if task.state is not TaskState.WAITING:
            assert task.open_deps == 0, task
        else:
            assert task.open_deps or task.held, f"t-{task.n} waits for nothing"
        for edge in task.edges:
            if not edge.satisfied:
                expected.setdefault(edge.needs, set()).add(task.n)
                assert edge.needs in cluster.tasks and not cluster.tasks[edge.needs].terminal, (task, edge)
    assert {needs: set(waiting) for needs, waiting in cluster.dependants.items()} == expected


def counters_recounted(cluster: Cluster) -> None:
    """Every counter and index equals a recount."""
    live = [task for task in cluster.tasks.values() if not task.terminal]
    queued = [task for task in live if task.state is TaskState.QUEUED]
    ready = cluster.ready
    assert cluster.live == len(live)
    assert +Counter(cluster.counts) == Counter(task.state for task in live)
    assert {lane: n for lane, n in ready.depth.items() if n} == Counter(task.lane for task in queued)
    assert ready.users == Counter(task.requirement for task in cluster.tasks.values())
    assert ready.live == Counter(task.requirement for task in live)
    assert cluster.unique == {task.unique_key: task.n for task in live if task.unique_key is not None}
    assert cluster.idempotent == {task.idem[:2]: task.n for task in cluster.tasks.values() if task.idem is not None}
    buckets = [bucket for shelf in ready.shelves.values() for bucket in shelf.values()]
    entries = Counter(entry[1] for bucket in buckets for entry in bucket.by_place if ready._living(entry))
    assert all(bucket.living == sum(map(ready._living, bucket.by_place)) > 0 for bucket in buckets)
    assert ready.crowd == Counter((task.lane, task.project) for task in queued)
    assert entries == Counter(task.n for task in queued), "each ready task has one live entry"
    for n, row in cluster.controls.items():
        assert cluster.tasks[row.task].holder == row.agent and row.noted_at is None, (n, row)


def deadlines_armed(cluster: Cluster) -> None:
    """L2: whatever must end by itself has a timer."""
    armed = cluster.volatile.timers.armed
    for task in cluster.tasks.values():
        wanted = set()
        if task.terminal:
            wanted.add(Timer.TOMBSTONE)
        elif task.deadline is not None and task.state is not TaskState.IN_REVIEW and task.stopping is None:
            wanted.add(Timer.DEADLINE)
        if task.state is TaskState.SCHEDULED:
            wanted.add(Timer.NOT_BEFORE)
        if task.state is TaskState.QUEUED and task.queue_ttl_us is not None:
            wanted.add(Timer.QUEUE_TTL)
        if task.state is TaskState.ASSIGNED:
            wanted.add(Timer.ACCEPT)
        elif task.leased:
            wanted.add(Timer.LEASE)
        assert all((kind, task.n) in armed for kind in wanted), (task, wanted)


def nobody_idles_beside_work(hub: Hub, *, thoroughly: bool = True) -> None:
    """L1 as a state: no ready task that a free and eligible agent could do now. By hand, and ``thoroughly`` by the safety pass."""
    cluster, stamp = hub.cluster, hub.clock.stamp()
    if cluster.volatile.draining:
        return
    free = [
        agent
        for agent in cluster.agents.values()
        if agent.state is AgentState.IDLE and agent.barred(stamp.mono, stamp.wall, hub.terms.fresh_us) is None
    ]
    ready = [task for task in cluster.tasks.values() if task.state is TaskState.QUEUED]
    for task in ready:
        need = cluster.ready.needs[task.requirement]
        if cluster.projects[task.project][0] or (task.repo is not None and cluster.repos[task.repo]):
            continue
        for agent in free:
            if not class_of(agent).serves(need) or task.assign_to not in (None, agent.id):
                continue
            others = any(
                other.id != agent.id
                and other.connected
                and not other.paused
                and not other.quarantined_until
                and class_of(other).serves(need)
                for other in cluster.agents.values()
            )
            avoided = task.avoid == agent.id and stamp.mono < task.avoid_until and others
            waits = task.assign_to is None and (avoided or stamp.mono < task.rests_until)
            assert waits, f"{agent.id} idles beside t-{task.n}"
    if thoroughly and free and ready:
        copied = copy.deepcopy(hub.scheduler)
        assert copied.apply(c.SafetyPass(), stamp).claims == 0


# ── the committed rows ───────────────────────────────────────────────────────────────────────────────────────────────────────


def rebuild_equals_live(hub: Hub) -> None:
    """I14: the rows give back the scheduler, but for what is declared volatile."""
    live, again = hub.cluster, hub.rebuilt()[0].cluster
    here = {n: task for n, task in live.tasks.items() if not task.terminal}
    assert here.keys() == again.tasks.keys()
    for n, task in here.items():
        other = again.tasks[n]
        assert task.row() == other.row(), (task, other)
        assert _durable(task) == _durable(other), (task, other)
        assert live.ready.needs[task.requirement] == again.ready.needs[other.requirement]
    assert live.agents.keys() == again.agents.keys()
    for name, agent in live.agents.items():
        assert _agent(agent.row()) == _agent(again.agents[name].row())
        other = again.agents[name]
        assert (agent.epoch, agent.install_id, agent.boot_id, agent.task) == (
            other.epoch,
            other.install_id,
            other.boot_id,
            other.task,
        )
    assert {n: set(waiting) for n, waiting in live.dependants.items()} == {n: set(w) for n, w in again.dependants.items()}
    assert (live.next_n, live.next_cid, live.controls, live.unique) == (
        again.next_n,
        again.next_cid,
        again.controls,
        again.unique,
    )
    counters_recounted(again)


def _durable(task: Task) -> tuple[Any, ...]:
    edges = sorted((edge.needs, edge.policy, edge.satisfied) for edge in task.edges)
    fixed = (task.project, task.repo, task.type, task.lane, task.access, task.needs_change, task.max_tries, task.created_at)
    rest = (task.deadline, task.queue_ttl_us, task.idem, task.unique_key, task.attempt, task.question)
    return fixed, rest, edges, sorted(task.answered)


def _agent(row: AgentRow) -> dict[str, Any]:
    found = row._asdict()
    for column in WRITTEN_IN_PASSING:
        del found[column]
    found["state"] = "offline"  # until it says hello
    return found


class History:
    """What was committed, in order: events, fences, verdicts."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.seen = 0
        self.states: dict[int, str] = {}
        self.claimed: dict[int, int] = {}
        self.fence: dict[int, int] = {}
        self.applied: Counter[tuple[int, int]] = Counter()
        self.done: Counter[tuple[int, int]] = Counter()
        self.told = 0

    def follow(self) -> None:
        """Read on, checking I3, I4 and I5, and that the fold of the events is the table (I14)."""
        for row in self.hub.store.rows("SELECT * FROM event WHERE seq > ? ORDER BY seq", self.seen):
            self.seen += 1
            assert row["seq"] == self.seen, "event numbers are contiguous"
            if row["task"] is not None:
                self._event(row)
        table = self.hub.store.rows("SELECT n, state, lease_epoch, generation FROM task")
        assert self.states == {row["n"]: row["state"] for row in table}
        for row in table:
            assert row["lease_epoch"] >= self.fence.get(row["n"], 0), "I3: a fence went back"
            self.fence[row["n"]] = row["lease_epoch"]
        for _, _, effect in self.hub.told[self.told :]:
            if isinstance(effect, AckResult) and effect.verdict is Verdict.APPLIED:
                self.applied[effect.n, effect.lease_epoch] += 1
                assert self.applied[effect.n, effect.lease_epoch] == 1, "I4: applied twice"
        self.told = len(self.hub.told)

    def _event(self, row: dict[str, Any]) -> None:
        n, before, to = row["task"], row["from_state"], row["to_state"]
        if to is not None:
            assert self.states.get(n) == before, "I5: the chain has a gap"
            if before is None:
                assert to == TaskState.WAITING
            else:
                assert TaskState(to) in TRANSITIONS[TaskState(before)], (before, to)
                assert before not in TERMINAL or row["kind"] == "task.requeued"
            self.states[n] = to
            if to == TaskState.DONE:
                self.done[n, self.done_generation(n)] += 1
                assert self.done[n, self.done_generation(n)] == 1, "I4: done twice in one generation"
        if row["kind"] == "task.requeued":
            self.done[n, 0] -= self.done[n, 0]  # a new generation begins
        if row["kind"] == "task.assigned":
            assert row["lease_epoch"] > self.claimed.get(n, 0), "I3: a fence was used twice"
            self.claimed[n] = row["lease_epoch"]

    def done_generation(self, _n: int) -> int:
        """The present generation is counted under 0; a requeue starts it again."""
        return 0


# ── single decisions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def fingerprint(hub: Hub) -> Any:
    """Everything a refused command must leave as it was."""
    cluster = hub.cluster
    return (
        {task.n: (task.row(), _durable(task)) for task in cluster.tasks.values() if not task.terminal},
        {name: (agent.row(), agent.epoch, agent.connected, agent.task) for name, agent in cluster.agents.items()},
        (cluster.next_n, cluster.next_cid, cluster.next_requirement, cluster.live, dict(cluster.ready.depth)),
        dict(cluster.controls),
    )


def changes_nothing_but_salvage(decision: Decision, n: int) -> None:
    """I4: a result that is not applied leaves its task alone."""
    for row in decision.rows:
        assert not (isinstance(row, TaskRow) and row.n == n and decision.claims == 0), row
        if getattr(row, "task", None) == n and decision.claims == 0:
            assert isinstance(row, SalvageRow | AttemptRow), row
    for event in decision.events:
        if isinstance(event, EventRow) and event.task == n and decision.claims == 0:
            assert event.kind.startswith(("result.", "salvage.")), event
