"""What the planted faults put in the place of the product's own: each lacks the one rule it is named for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hub.core import assignments, retry, scheduler
from hub.core.rows import DepRow
from hub.core.timers import Timer
from hub.ids import Outcome, Phase, TaskState, Verdict
from hub.services.conductor import Conductor
from hub.services.facts import FactReader
from hub.store import writer
from hub.wire.spec import Spec
from sidecar.core import effects as fx
from sidecar.core import records
from sidecar.core.holder import Holder
from sidecar.core.records import Key
from tests.simulation.shim import Shim

# ── the hub's rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def held_by(step: Any, agent: Any, n: Any, _lease_epoch: Any) -> Any:
    task = step.cluster.tasks.get(n)
    return task if task is not None and task.holder == agent.id and task.leased else None


def session_of(step: Any, command: Any) -> Any:
    agent = step.cluster.agents.get(command.agent)
    return _session_of_the_product(step, command if agent is None else replace(command, session_epoch=agent.epoch))


_session_of_the_product = assignments.session_of


def arm_all(cluster: Any, mono: int) -> None:
    _arm_all_of_the_product(cluster, mono)
    for task in cluster.tasks.values():
        if task.leased and task.state is not TaskState.ASSIGNED:
            task.lease_until = mono
            cluster.volatile.timers.arm(Timer.LEASE, task.n, mono)


_arm_all_of_the_product = scheduler.arm_all


def accept(step: Any, command: Any) -> None:
    agent = assignments.session_of(step, command)
    task = assignments.held_by(step, agent, command.n, command.lease_epoch)
    if task is not None and task.state is not TaskState.ASSIGNED:
        step.tell(agent, assignments.GrantLease(n=task.n, lease_epoch=task.lease_epoch, re=command.re))
    else:
        _accept_of_the_product(step, command)


_accept_of_the_product = assignments.accept


def is_late(task: Any, command: Any) -> bool:
    fact = command.facts.attempt
    lost = fact is not None and fact["outcome"] == "lost"
    return task.state in (TaskState.QUEUED, TaskState.WORKING) and lost and command.outcome is Outcome.SUCCEEDED


def thrown_away(_step: Any, _task: Any, _command: Any, _why: Any) -> Verdict:
    return Verdict.STALE


def settle_edge(step: Any, task: Any, edge: Any, _state: Any) -> None:
    edge.satisfied = True
    step.cluster.leave(task, edge)
    step.decision.rows.append(DepRow(task.n, edge.needs, edge.policy, 1))
    step.decision.tasks.add(task.n)


def after_loss(_lost: int, cause: str) -> retry.Next:
    return retry.Next(TaskState.QUEUED, cause, refund=True, lost=True)


# ── the hub's order ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def push_first(self: Any, waiting: Any, refusal: Any = None) -> None:
    if refusal is None and waiting.decision.effects:
        self.publisher.effects(waiting.decision.effects, waiting.at)
        waiting.decision.effects = []
    _settle_of_the_product(self, waiting, refusal)


def answer_first(self: Any, waiting: Any, refusal: Any = None) -> None:
    if refusal is None and waiting.future is not None:
        waiting.future.set_result(waiting.decision.answer)
    _settle_of_the_product(self, waiting, refusal)


_settle_of_the_product = Conductor._settle


def write_backwards(connection: Any, group: Any) -> None:
    _write_rows_of_the_product(connection, list(group)[::-1])


_write_rows_of_the_product = writer.write_rows


async def no_keys(self: Any, command: Any, wanted: Any) -> Any:
    known = await _facts_of_the_product(self, command, wanted)
    return replace(known, facts=replace(known.facts, idempotent={})) if hasattr(known, "facts") else known


_facts_of_the_product = FactReader.add


# ── the sidecar ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def put_and_remove(self: Any, held: Any) -> None:
    _put_result_of_the_product(self, held)
    self._emit(fx.Write(records.Removed(**held.ids)))


_put_result_of_the_product = Holder._put_result


def wake_at_once(self: Any, frame: Any) -> None:
    _assign_of_the_product(self, frame)
    held = self._holdings.get(Key(frame.task, frame.lease_epoch))
    if held is not None and held.phase is Phase.ASSIGNED:
        spec = Spec(task=frame.task, lease_epoch=frame.lease_epoch, title="t")
        self._write(held, records.Accepted(**held.ids, spec=spec))
        self._renew(held, self._session.hello_us, self._session.lease_ms, self._session.hello_us)
        self._begin(held)


_assign_of_the_product = Holder._assign


def counted_from_receipt(self: Any, held: Any, _anchor_us: int, lease_ms: int, now_us: int) -> None:
    _renew_of_the_product(self, held, now_us, lease_ms, now_us)


_renew_of_the_product = Holder._renew


def append_without_sync(self: Any, record: Any) -> None:
    self._bytes += self._write(self._file, record)
    self._remember(record)


def start_again(self: Any, work: Any, run_id: str) -> Any:
    shim = self.shims.get(f"{work.sidecar.name}/{run_id}")
    if shim is not None and shim.locked and work.woken is None:  # another life of the sidecar started it
        again = Shim(self, shim.agent, shim.key, run_id, shim.soft_us, shim.hard_us, shim.temper, 60_000_000)
        self.shims[f"{work.sidecar.name}/{run_id}"] = again
        return again
    return shim


def keep_wall_only(self: Any) -> None:
    if self.running and self.machine.boot_us() >= self.wall_us and self.stopped is None:
        self.stop(10_000_000, "wall")
