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
from hub.services.conductor import Conductor
from hub.services.facts import FactReader
from hub.store import writer
from sidecar.core.holder import Holder
from sidecar.journal import Journal
from tests.simulation import hub as hub_side
from tests.simulation import standins
from tests.simulation.conduct import HubClock
from tests.simulation.machine import Machine
from tests.simulation.shim import Shim
from tests.simulation.world import STEPS, run

Plant = tuple[Any, str, Any]
"""Where a name is, and what it is instead."""


class Mutant(NamedTuple):
    """A planted fault. ``seed``: one that is known to show it."""

    what: str
    plants: tuple[Plant, ...]
    seed: int = 0


MUTANTS: Mapping[str, Mutant] = {
    "fence_dropped": Mutant(
        "a message counts under any fence of its task",
        tuple((module, "held_by", standins.held_by) for module in (assignments, results, sessions)),
        seed=5,
    ),
    "session_check_dropped": Mutant(
        "an old session's word counts",
        tuple((module, "session_of", standins.session_of) for module in (assignments, results, sessions)),
        seed=73,
    ),
    "push_before_commit": Mutant("frames leave before their commit", ((Conductor, "_settle", standins.push_first),)),
    "answer_before_commit": Mutant("a submit is answered before its commit", ((Conductor, "_settle", standins.answer_first),)),
    "leases_not_extended_on_restart": Mutant(
        "a hub's outage counts against leases", ((scheduler, "arm_all", standins.arm_all),)
    ),
    "given_away_at_the_lease": Mutant(
        "the hub waits for the lease, not for four thirds of it",
        ((Terms, "hold_us", property(lambda terms: terms.lease_us)),),
        seed=4,
    ),
    "lease_on_the_wall_clock": Mutant(
        "leases run on the wall clock",
        ((HubClock, "mono", lambda clock: clock.world.timeline.now + clock.world.wall_shift_us),),
    ),
    "second_accept_renews_nothing": Mutant(
        "an accept said twice is granted twice and renewed once",
        ((scheduler, "HANDLERS", {**scheduler.HANDLERS, scheduler.commands.Accept: standins.accept}),),
        seed=5,
    ),
    "old_hello_believed": Mutant(
        "a hello that was overtaken is taken for the present",
        ((sessions, "_overtaken", lambda _agent, _command: False),),
        seed=13,
    ),
    "claims_unbounded": Mutant(
        "refunds let a task loop", ((ending, "MAX_CLAIMS", 10**6), (retry, "MAX_CLAIMS", 10**6)), seed=6
    ),
    "losses_unbounded": Mutant(
        "a task may be lost for ever", tuple((module, "after_loss", standins.after_loss) for module in (assignments, retry))
    ),
    "late_under_another_fence": Mutant(
        "a late result is applied after another claim", ((results, "standins.is_late", standins.is_late),), seed=23
    ),
    "digest_forgotten": Mutant(
        "a result said again is taken for another", ((results, "_ended_with", lambda _task, _command: None),)
    ),
    "success_thrown_away": Mutant("what cannot be applied is thrown away", ((results, "_salvage", standins.thrown_away),)),
    "released_too_early": Mutant("a failed dependency counts as done", ((dependencies, "_settle", standins.settle_edge),)),
    "tombstone_dropped": Mutant(
        "a finished task is forgotten at once", ((hub_side, "TERMS", replace(hub_side.TERMS, tombstone_us=1)),)
    ),
    "rows_backwards": Mutant(
        "of two versions of a row the older is written", ((writer, "write_rows", standins.write_backwards),)
    ),
    "keys_not_looked_up": Mutant("idempotency keys of finished tasks are forgotten", ((FactReader, "add", standins.no_keys),)),
    "cancel_lost_on_reconnect": Mutant(
        "open controls are not repeated",
        ((sessions, "control_effect", lambda _row: Okay(re=0)),),
        seed=11,
    ),
    "removed_before_ack": Mutant(
        "a result leaves the journal before its verdict", ((Holder, "_put_result", standins.put_and_remove),)
    ),
    "wake_before_accepted": Mutant("the agent is woken on the offer", ((Holder, "_assign", standins.wake_at_once),)),
    "lease_from_receipt": Mutant(
        "a lease is counted from the answer's receipt", ((Holder, "_renew", standins.counted_from_receipt),)
    ),
    "journal_not_synced": Mutant("records are written, not synced", ((Journal, "append", standins.append_without_sync),)),
    "lock_not_checked": Mutant(
        "a restarted sidecar starts a run that still runs", ((Machine, "attach", standins.start_again),)
    ),
    "deadline_not_enforced": Mutant("a shim ignores its deadline", ((Shim, "keep_deadline", standins.keep_wall_only),), seed=4),
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
