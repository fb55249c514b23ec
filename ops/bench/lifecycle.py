"""How many whole lifecycles a hub does per second: submit, assign, accept, accepted, result, acknowledged; every step durable.

    .venv/bin/python ops/bench/lifecycle.py [--json] [--tiny] [--rounds N] [--seconds S]

Agents are real ``websockets`` clients in another process, which also submits over HTTP in batches of 50. Rounds are taken in turn:
the store alone (the same rows without a hub, :mod:`rows`), then a hub each with 1, 10 and 100 agents. ``ratio`` is lifecycles/s at the
largest size to the store alone in the same round, ``hub_cpu_us`` the hub's processor time per lifecycle there. Then what must not grow
with a hub: a claim with a hundred times the queue, memory per idle agent, and the rebuild of a long queue. About two minutes.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Any

from agents import running_fleet
from growth import claim, memory_per_agent, rebuild
from page import judged, machine, median, options, quiet, show
from rows import Script, fresh_store, group_of, now
from server import running_hub

SIZES, TINY_SIZES = (1, 10, 100), (1, 2, 4)
WARM_S = 1.0


async def store_alone(agents: int, count: int) -> float:
    """Lifecycles per second of the store without a hub: the same rows, committed in groups as large as these agents make them."""
    async with fresh_store() as store:
        script = Script(agents)
        await store.commit(group_of([script.opening, *script.joining]), now())
        groups = list(script.lifecycles(count))
        took = [(await store.commit(group, now())).seconds for group in groups]
    return count / sum(took)


def rates(sizes: tuple[int, ...], rounds: int, seconds: float, warm_s: float, alone: int) -> dict[str, Any]:
    """Lifecycles per second, in turn: the store alone, then each size."""
    per_s: dict[int, list[float]] = {size: [] for size in sizes}
    cpu_us: dict[int, list[float]] = {size: [] for size in sizes}
    stores: list[float] = []
    with ExitStack() as stack:
        hubs = {size: stack.enter_context(running_hub()) for size in sizes}
        fleet = stack.enter_context(running_fleet())
        for size, hub in hubs.items():
            fleet.grow(hub, size)
        for _ in range(rounds):
            stores.append(asyncio.run(store_alone(sizes[-1], alone)))
            for size, hub in hubs.items():
                fleet.order(hub, load=seconds, warm=warm_s)
                done = fleet.hear("done")
                per_s[size].append(done["done"] / done["seconds"])
                cpu_us[size].append(done["hub_cpu_us"] / max(1, done["done"]))
    return {
        "agents": {str(size): {"per_s": median(per_s[size]), "hub_cpu_us": median(cpu_us[size])} for size in sizes},
        "store_alone_per_s": median(stores),
        "ratio": median([hub / store for hub, store in zip(per_s[sizes[-1]], stores, strict=True)]),
        "hub_cpu_us": median(cpu_us[sizes[-1]]),
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    chosen = parser.parse_args()
    quiet()
    began = time.monotonic()
    if chosen.tiny:
        found = rates(TINY_SIZES, rounds=1, seconds=0.5, warm_s=0.1, alone=200)
        found |= {"claim_ratio": claim(10, 1000, 20), "kib_per_agent": memory_per_agent(20), **rebuild(1000)}
    else:
        found = rates(SIZES, chosen.rounds, chosen.seconds, WARM_S, alone=4000)
        found |= {"claim_ratio": claim(1000, 100_000, 2000), "kib_per_agent": memory_per_agent(1000), **rebuild(100_000)}
    settings = {
        "durability": "full",
        "rounds": 1 if chosen.tiny else chosen.rounds,
        "seconds": 0.5 if chosen.tiny else chosen.seconds,
        "batch": 50,
        "loop": "uvloop",
        "took_s": round(time.monotonic() - began, 1),
    }
    document = {**found, "settings": settings, "machine": machine()}
    show(document, table(found), as_json=chosen.json)


def table(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The figures in words, with their bars."""
    rows = [
        (f"lifecycles/s with {size} agents", f"{took['per_s']:,.0f} ({took['hub_cpu_us']:.0f} µs of hub CPU each)", "")
        for size, took in found["agents"].items()
    ]
    return [
        *rows,
        ("lifecycles/s of the store alone", f"{found['store_alone_per_s']:,.0f}", ""),
        ("ratio to the store alone", f"{found['ratio']:.2f}", judged(found["ratio"], 0.2, at_most=False)),
        ("hub CPU per lifecycle", f"{found['hub_cpu_us']:.0f} µs", judged(found["hub_cpu_us"], 200)),
        ("claim in a queue 100 times as long", f"{found['claim_ratio']:.2f} ×", judged(found["claim_ratio"], 1.3)),
        ("memory per idle agent", f"{found['kib_per_agent']:.1f} KiB", judged(found["kib_per_agent"], 20)),
        (
            "rebuild of 100 000 queued tasks",
            f"{found['rebuild_s_per_100k']:.2f} s, {found['rebuild_ratio']:.2f} × a bare read of these rows",
            judged(found["rebuild_ratio"], 2),
        ),
    ]


if __name__ == "__main__":
    main()
