"""``python -m tests.simulation``: play seeds, print what happened, and for one that fails how to play it again."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice

from tests.simulation.world import STEPS, Run, run


def show(done: Run, steps: int) -> None:
    """A failed run: what, where, the end of its trace, and the command that plays it again."""
    print("\n".join(done.trace))
    print(done.caused_by)
    print(f"seed {done.seed}, step {done.steps}: {done.invariant}: {done.what}")
    print(f"again: python -m tests.simulation --seed {done.seed} --steps {steps} --trace")


def main() -> int:
    """Exit code 1 when an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="play this seed (with --runs: from this seed on)")
    parser.add_argument("--runs", type=int, default=None, help="play so many seeds")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps with faults of each run; then it comes to rest")
    parser.add_argument("--steps-total", type=int, default=None, help="play seeds until so many steps are taken")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--trace", action="store_true", help="print every step")
    args = parser.parse_args()
    if args.runs is None and args.steps_total is None:
        done = run(args.seed or 0, args.steps, echo=print if args.trace else None)
        if done.invariant:
            show(done, args.steps)
            return 1
        print(f"seed {done.seed}: {done.steps} steps, digest {done.digest}")
        return 0
    return many(args)


def many(args: argparse.Namespace) -> int:
    """Play seeds until there are enough; all failures are shown."""
    began, steps, failed, played = time.monotonic(), 0, 0, 0
    seen: Counter[str] = Counter()
    seeds = count(args.seed or 0)
    with ProcessPoolExecutor(args.jobs) as pool:
        while (args.runs is None or played < args.runs) and (args.steps_total is None or steps < args.steps_total):
            batch = 8 * args.jobs if args.runs is None else min(8 * args.jobs, args.runs - played)
            for done in pool.map(run, islice(seeds, batch), [args.steps] * batch):
                played, steps = played + 1, steps + done.steps
                seen += done.seen
                if done.invariant:
                    failed += 1
                    show(done, args.steps)
    seconds = time.monotonic() - began
    print("what happened:")
    for kind, number in sorted(seen.items()):
        print(f"  {number:>9}  {kind}")
    print(
        f"{played} runs, {steps} steps, {failed} violations; {seconds:.0f} s, {steps / seconds:.0f} steps/s with {args.jobs} jobs"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
