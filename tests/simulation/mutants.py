"""Faults planted in the product, one at a time, to see that the simulation sees them: ``python -m tests.simulation.mutants``.

A simulation that finds nothing proves only as much as it would find. Each mutant takes away one rule that the reliability rests on,
for the length of a run; the table says which invariant noticed and after how many seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

from hub.core import assignments, dependencies, ending, results, retry, scheduler, sessions
from hub.core.decision import Okay
from hub.core.lease import Terms
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
from sidecar.journal import Journal
from tests.simulation import hub as hub_side
from tests.simulation.conduct import HubClock
from tests.simulation.machine import Machine
from tests.simulation.shim import Shim
from tests.simulation.world import STEPS, run

Plant = tuple[Any, str, Any]
"""Where a name is, and what it is instead."""

# ── the hub's rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _held_by(step: Any, agent: Any, n: Any, _lease_epoch: Any) -> Any:
    task = step.cluster.tasks.get(n)
    return task if task is not None and task.holder == agent.id and task.leased else None


def _session_of(step: Any, command: Any) -> Any:
    agent = step.cluster.agents.get(command.agent)
    return _session_of_the_product(step, command if agent is None else replace(command, session_epoch=agent.epoch))


_session_of_the_product = assignments.session_of


def _arm_all(cluster: Any, mono: int) -> None:
    _arm_all_of_the_product(cluster, mono)
    for task in cluster.tasks.values():
        if task.leased and task.state is not TaskState.ASSIGNED:
            task.lease_until = mono
            cluster.volatile.timers.arm(Timer.LEASE, task.n, mono)


_arm_all_of_the_product = scheduler.arm_all


def _accept(step: Any, command: Any) -> None:
    agent = assignments.session_of(step, command)
    task = assignments.held_by(step, agent, command.n, command.lease_epoch)
    if task is not None and task.state is not TaskState.ASSIGNED:
        step.tell(agent, assignments.GrantLease(n=task.n, lease_epoch=task.lease_epoch, re=command.re))
    else:
        _accept_of_the_product(step, command)


_accept_of_the_product = assignments.accept


def _is_late(task: Any, command: Any) -> bool:
    fact = command.facts.attempt
    lost = fact is not None and fact["outcome"] == "lost"
    return task.state in (TaskState.QUEUED, TaskState.WORKING) and lost and command.outcome is Outcome.SUCCEEDED


def _thrown_away(_step: Any, _task: Any, _command: Any, _why: Any) -> Verdict:
    return Verdict.STALE


def _settle_edge(step: Any, task: Any, edge: Any, _state: Any) -> None:
    edge.satisfied = True
    step.cluster.leave(task, edge)
    step.decision.rows.append(DepRow(task.n, edge.needs, edge.policy, 1))
    step.decision.tasks.add(task.n)


def _after_loss(_lost: int, cause: str) -> retry.Next:
    return retry.Next(TaskState.QUEUED, cause, refund=True, lost=True)


# ── the hub's order ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _push_first(self: Any, waiting: Any, refusal: Any = None) -> None:
    if refusal is None and waiting.decision.effects:
        self.publisher.effects(waiting.decision.effects, waiting.at)
        waiting.decision.effects = []
    _settle_of_the_product(self, waiting, refusal)


def _answer_first(self: Any, waiting: Any, refusal: Any = None) -> None:
    if refusal is None and waiting.future is not None:
        waiting.future.set_result(waiting.decision.answer)
    _settle_of_the_product(self, waiting, refusal)


_settle_of_the_product = Conductor._settle


def _write_backwards(connection: Any, group: Any) -> None:
    _write_rows_of_the_product(connection, list(group)[::-1])


_write_rows_of_the_product = writer.write_rows


async def _no_keys(self: Any, command: Any, wanted: Any) -> Any:
    known = await _facts_of_the_product(self, command, wanted)
    return replace(known, facts=replace(known.facts, idempotent={})) if hasattr(known, "facts") else known


_facts_of_the_product = FactReader.add


# ── the sidecar ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _put_and_remove(self: Any, held: Any) -> None:
    _put_result_of_the_product(self, held)
    self._emit(fx.Write(records.Removed(**held.ids)))


_put_result_of_the_product = Holder._put_result


def _wake_at_once(self: Any, frame: Any) -> None:
    _assign_of_the_product(self, frame)
    held = self._holdings.get(Key(frame.task, frame.lease_epoch))
    if held is not None and held.phase is Phase.ASSIGNED:
        spec = Spec(task=frame.task, lease_epoch=frame.lease_epoch, title="t")
        self._write(held, records.Accepted(**held.ids, spec=spec))
        self._renew(held, self._session.hello_us, self._session.lease_ms, self._session.hello_us)
        self._begin(held)


_assign_of_the_product = Holder._assign


def _counted_from_receipt(self: Any, held: Any, _anchor_us: int, lease_ms: int, now_us: int) -> None:
    _renew_of_the_product(self, held, now_us, lease_ms, now_us)


_renew_of_the_product = Holder._renew


def _append_without_sync(self: Any, record: Any) -> None:
    self._bytes += self._write(self._file, record)
    self._remember(record)


def _start_again(self: Any, work: Any, run_id: str) -> Any:
    shim = self.shims.get(f"{work.sidecar.name}/{run_id}")
    if shim is not None and shim.locked and work.woken is None:  # another life of the sidecar started it
        again = Shim(self, shim.agent, shim.key, run_id, shim.soft_us, shim.hard_us, shim.temper, 60_000_000)
        self.shims[f"{work.sidecar.name}/{run_id}"] = again
        return again
    return shim


def _keep_wall_only(self: Any) -> None:
    if self.running and self.machine.boot_us() >= self.wall_us and self.stopped is None:
        self.stop(10_000_000, "wall")


class Mutant(NamedTuple):
    """A planted fault. ``seed``: one that is known to show it."""

    what: str
    plants: tuple[Plant, ...]
    seed: int = 0


MUTANTS: Mapping[str, Mutant] = {
    "fence_dropped": Mutant(
        "a message counts under any fence of its task",
        tuple((module, "held_by", _held_by) for module in (assignments, results, sessions)),
    ),
    "session_check_dropped": Mutant(
        "an old session's word counts",
        tuple((module, "session_of", _session_of) for module in (assignments, results, sessions)),
    ),
    "push_before_commit": Mutant("frames leave before their commit", ((Conductor, "_settle", _push_first),)),
    "answer_before_commit": Mutant("a submit is answered before its commit", ((Conductor, "_settle", _answer_first),)),
    "leases_not_extended_on_restart": Mutant("a hub's outage counts against leases", ((scheduler, "arm_all", _arm_all),)),
    "given_away_at_the_lease": Mutant(
        "the hub waits for the lease, not for four thirds of it", ((Terms, "hold_us", property(lambda terms: terms.lease_us)),)
    ),
    "lease_on_the_wall_clock": Mutant(
        "leases run on the wall clock",
        ((HubClock, "mono", lambda clock: clock.world.timeline.now + clock.world.wall_shift_us),),
    ),
    "second_accept_renews_nothing": Mutant(
        "an accept said twice is granted twice and renewed once",
        ((scheduler, "HANDLERS", {**scheduler.HANDLERS, scheduler.commands.Accept: _accept}),),
    ),
    "old_hello_believed": Mutant(
        "a hello that was overtaken is taken for the present", ((sessions, "_overtaken", lambda _agent, _command: False),)
    ),
    "claims_unbounded": Mutant("refunds let a task loop", ((ending, "MAX_CLAIMS", 10**6), (retry, "MAX_CLAIMS", 10**6))),
    "losses_unbounded": Mutant(
        "a task may be lost for ever", tuple((module, "after_loss", _after_loss) for module in (assignments, retry))
    ),
    "late_under_another_fence": Mutant("a late result is applied after another claim", ((results, "_is_late", _is_late),)),
    "digest_forgotten": Mutant(
        "a result said again is taken for another", ((results, "_ended_with", lambda _task, _command: None),)
    ),
    "success_thrown_away": Mutant("what cannot be applied is thrown away", ((results, "_salvage", _thrown_away),)),
    "released_too_early": Mutant("a failed dependency counts as done", ((dependencies, "_settle", _settle_edge),)),
    "tombstone_dropped": Mutant(
        "a finished task is forgotten at once", ((hub_side, "TERMS", replace(hub_side.TERMS, tombstone_us=1)),)
    ),
    "rows_backwards": Mutant("of two versions of a row the older is written", ((writer, "write_rows", _write_backwards),)),
    "keys_not_looked_up": Mutant("idempotency keys of finished tasks are forgotten", ((FactReader, "add", _no_keys),)),
    "cancel_lost_on_reconnect": Mutant(
        "open controls are not repeated", ((sessions, "control_effect", lambda _row: Okay(re=0)),)
    ),
    "removed_before_ack": Mutant("a result leaves the journal before its verdict", ((Holder, "_put_result", _put_and_remove),)),
    "wake_before_accepted": Mutant("the agent is woken on the offer", ((Holder, "_assign", _wake_at_once),)),
    "lease_from_receipt": Mutant("a lease is counted from the answer's receipt", ((Holder, "_renew", _counted_from_receipt),)),
    "journal_not_synced": Mutant("records are written, not synced", ((Journal, "append", _append_without_sync),)),
    "lock_not_checked": Mutant("a restarted sidecar starts a run that still runs", ((Machine, "attach", _start_again),)),
    "deadline_not_enforced": Mutant("a shim ignores its deadline", ((Shim, "keep_deadline", _keep_wall_only),)),
}


def planted(mutant: Mutant) -> Callable[[], Any]:
    """The context in which the fault is there."""

    @contextmanager
    def context() -> Iterator[None]:
        with ExitStack() as stack:
            for where, name, instead in mutant.plants:
                stack.enter_context(patch.object(where, name, instead))
            yield

    return context


class Caught(NamedTuple):
    """How a mutant was found; ``invariant`` is empty if it was not."""

    invariant: str
    seed: int
    seeds: int
    steps: int
    what: str


def hunt(mutant: Mutant, first: int, most: int) -> Caught:
    """Play seeds with the fault until an invariant breaks."""
    steps = 0
    for seeds, seed in enumerate(range(first, first + most), 1):
        done = run(seed, planted=planted(mutant))
        steps += done.steps
        if done.invariant:
            return Caught(done.invariant, seed, seeds, steps, done.what)
    return Caught("", first, most, steps, "")


def main() -> int:
    """Print the table; exit code 1 when a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    parser.add_argument("--most", type=int, default=200, help="seeds to try")
    args = parser.parse_args()
    survived = 0
    print(f"runs of {STEPS} steps with faults, from seed {args.first} on")
    for name in args.names or MUTANTS:
        caught = hunt(MUTANTS[name], args.first, args.most)
        survived += not caught.invariant
        how = f"{caught.invariant:>5}  seed {caught.seed:<4} {caught.seeds:>4} seeds {caught.steps:>8} steps"
        print(f"{name:<32} {how if caught.invariant else 'SURVIVED'}  {caught.what[:90]}", flush=True)
    print(f"{len(args.names or MUTANTS)} planted faults, {survived} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
