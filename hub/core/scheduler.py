"""The scheduler: a pure, deterministic state machine. Commands in, decisions out; no await, no I/O, no clock, no randomness.

The same commands with the same stamps give the same decisions, so one seed replays a whole cluster. A refused command changes
nothing. Whoever applies a command must commit the decision's rows before anything of the decision leaves the process; if that commit
fails, this object is discarded and rebuilt from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hub.core import (
    adopting,
    assignments,
    commands,
    departures,
    dispatch,
    results,
    reviewing,
    sessions,
    steering,
    submitting,
    ticking,
)
from hub.core.cluster import Cluster, Step
from hub.core.commands import Command, Stamp
from hub.core.decision import Decision, Reply
from hub.core.explain import explain
from hub.core.lease import Terms
from hub.core.recall import Snapshot, arm_all, rebuild
from hub.core.task import Task
from hub.core.timers import Timer
from hub.ids import SECOND, AgentState, TaskId


def _safety_pass(step: Step, _: commands.SafetyPass) -> None:
    step.anybody = True


def _drain(step: Step, _: commands.Drain) -> None:
    step.cluster.volatile.draining = True


HANDLERS: Mapping[type[Command], Callable[[Step, Any], Reply]] = {
    commands.Submit: submitting.submit,
    commands.Hold: steering.hold,
    commands.Release: steering.release,
    commands.Dispatch: steering.dispatch,
    commands.Assign: steering.assign,
    commands.Cancel: steering.cancel,
    commands.Complete: steering.complete,
    commands.Requeue: steering.requeue,
    commands.Answer: steering.answer,
    commands.AdoptSalvage: adopting.adopt,
    commands.DropSalvage: adopting.drop,
    commands.IntendMerge: reviewing.intend_merge,
    commands.AbandonMerge: reviewing.abandon_merge,
    commands.Merged: reviewing.merged,
    commands.Rework: reviewing.rework,
    commands.Bury: reviewing.bury,
    commands.PauseAgent: sessions.pause,
    commands.ResumeAgent: sessions.resume,
    commands.ReleaseAgent: departures.release,
    commands.RemoveAgent: departures.remove,
    commands.Registry: sessions.registry,
    commands.Hello: sessions.hello,
    commands.Disconnected: sessions.disconnected,
    commands.Beat: sessions.beat,
    commands.Accept: assignments.accept,
    commands.Decline: assignments.decline,
    commands.Progress: assignments.progress,
    commands.Ask: assignments.ask,
    commands.Report: results.report,
    commands.GiveBack: assignments.give_back,
    commands.ControlNoted: assignments.control_noted,
    commands.Tick: ticking.tick,
    commands.SafetyPass: _safety_pass,
    commands.Drain: _drain,
}
"""Every command and its handler."""


class Scheduler:
    """The aggregate over all live tasks and agents."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @classmethod
    def open(cls, snapshot: Snapshot, terms: Terms, stamp: Stamp, *, hub_epoch: int) -> tuple[Scheduler, Decision]:
        """Rebuild from committed rows. The opening decision (agents are offline until they say hello) is to be committed first."""
        cluster = rebuild(snapshot, terms)
        cluster.hub_epoch = hub_epoch
        arm_all(cluster, stamp.mono)
        if snapshot.restored_at is not None:
            _settle_down(cluster, stamp, snapshot.restored_at)
        step = Step(cluster, stamp, "hub")
        for agent in cluster.agents.values():
            step.move_agent(agent, AgentState.OFFLINE, "hub started")
        return cls(cluster), step.finish()

    def apply(self, command: Command, stamp: Stamp) -> Decision:
        """Decide one command; raises Refused and changes nothing when it cannot be obeyed."""
        step = Step(self.cluster, stamp, command.actor)
        step.decision.answer = HANDLERS[type(command)](step, command)
        claims = dispatch.settle(step)
        decision = step.finish()
        decision.claims = claims
        if decision.rows or decision.events:
            decision.early = None
        return decision

    def next_deadline(self, stamp: Stamp) -> int | None:
        """Monotonic microseconds at which a Tick is due, or None."""
        return self.cluster.volatile.timers.next_mono(stamp)

    def explain(self, n: TaskId, stamp: Stamp) -> str | None:
        """One line about a task in memory, or None."""
        task = self.cluster.tasks.get(n)
        return explain(self.cluster, task, stamp) if task is not None else None

    def wanted_facts(self, command: Command) -> Wanted | None:
        """Which committed rows this command needs beside it (terminal tasks, idempotency keys, attempts), or None.

        Tombstones are asked for like what is not in memory: they may be forgotten before the command is applied.
        """
        tasks = self.cluster.tasks
        if isinstance(command, commands.Submit):
            named = {dep.needs for new in command.tasks for dep in new.depends_on if isinstance(dep.needs, int)}
            named |= {new.parent for new in command.tasks if new.parent is not None}
            keys = {new.idempotency_key for new in command.tasks if new.idempotency_key is not None}
            unknown = frozenset(n for n in named if not _live(tasks.get(n)))
            at = self.cluster.idempotent
            fresh = frozenset(key for key in keys if not _live(tasks.get(at.get((command.actor, key), 0))))
            return Wanted(states=unknown, keys=fresh, scope=command.actor) if unknown or fresh else None
        if isinstance(command, commands.Requeue):
            return None if _live(tasks.get(command.n)) else Wanted(task=command.n)
        if isinstance(command, commands.AdoptSalvage):
            asked = None if _live(tasks.get(command.n)) else command.n
            return Wanted(task=asked, salvage=(command.n, command.lease_epoch))
        if isinstance(command, commands.DropSalvage):
            return Wanted(salvage=(command.n, command.lease_epoch))
        if isinstance(command, commands.Report):
            return None if _holds(tasks.get(command.n), command) else Wanted(attempt=(command.n, command.lease_epoch))
        return None


RESTORED_US = 3600 * SECOND
"""So long after a restore, at the least, agents may be at work whose leases it forgot."""


def _settle_down(cluster: Cluster, stamp: Stamp, restored_at: int) -> None:
    """After a restore nothing is given out until every agent has told what it holds, or its lease has ended for sure: the task it works on
    may look free here. Long after, what sidecars bring is awaited for a moment.
    """
    recent = stamp.wall < restored_at + max(RESTORED_US, 2 * cluster.terms.hold_us)
    until = stamp.mono + (cluster.terms.hold_us if recent else cluster.terms.accept_us)
    cluster.volatile.settling_until = until
    cluster.volatile.timers.arm(Timer.SETTLED, "hub", until)


def _live(task: Task | None) -> bool:
    return task is not None and not task.terminal


def _holds(task: Task | None, command: commands.Report) -> bool:
    return task is not None and (
        command.lease_epoch in task.ended or (task.holder == command.agent and task.lease_epoch == command.lease_epoch)
    )


class Wanted:
    """Committed rows to be read before a command is applied."""

    __slots__ = ("attempt", "keys", "salvage", "scope", "states", "task")

    def __init__(
        self,
        *,
        states: frozenset[int] = frozenset(),
        keys: frozenset[str] = frozenset(),
        scope: str = "",
        task: int | None = None,
        attempt: tuple[int, int] | None = None,
        salvage: tuple[int, int] | None = None,
    ) -> None:
        self.states = states
        self.keys = keys
        self.scope = scope
        self.task = task
        self.attempt = attempt
        self.salvage = salvage
