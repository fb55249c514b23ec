"""What people notice while a hub prunes and compacts its store: how long a step holds the writer, and what submits take meanwhile.

A store full of tasks that ended 91 days ago, in a real hub; a few clients submit over HTTP all the time: first beside nothing, then
while the hub prunes, then while it gives the room back. *Hold* is the longest time that one step held the writer; a group is what the
hub commits at once for these clients.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from page import judged, machine, median, options, percentile, quiet, show
from server import Hub, running_hub

from hub.client import HubClient
from hub.client.db import ErrandRound
from hub.ids import DAY
from hub.store.sqlite import STORE_FILE, SqliteStore

SIZES = {"tasks": 40_000, "clients": 4, "seconds": 8.0}
TINY = {"tasks": 400, "clients": 2, "seconds": 0.5}
RATIO_BAR = 3.0
SPEC = '{"description": "' + "what an agent was asked to do, " * 40 + '"}'
LOOK_S = 0.05
_STEPS = 'errand_step_seconds_bucket\\{errand="%s"'


def fill(root: Path, tasks: int) -> None:
    """A store as it is after three months: each task with an attempt, a result and its events."""

    async def make() -> None:
        await (await SqliteStore.open(root / STORE_FILE)).close()

    asyncio.run(make())
    with closing(sqlite3.connect(root / STORE_FILE, isolation_level=None)) as connection:
        _insert(connection, tasks)


def _insert(connection: sqlite3.Connection, tasks: int) -> None:
    ended = time.time_ns() // 1000 - 91 * DAY
    connection.execute("BEGIN")
    connection.execute("INSERT INTO requirement VALUES (1, 'default', NULL, '[]')")
    connection.executemany(
        "INSERT INTO task (n, project, title, type, lane, access, needs_change, requirement_id, max_tries, created_by, created_at,"
        " spec, generation, state, seq, tries, lost, rework, claims, lease_epoch, held, parked, merging, updated_at, finished_at)"
        " VALUES (?, 'default', 'an old idea', 'task', 'normal', 'write', 0, 1, 3, 'ann', ?, ?, 1, 'done', 1, 1, 0, 0, 1, 1, 0, 0, 0,"
        " ?, ?)",
        ((n, ended, SPEC, ended, ended + n) for n in range(1, tasks + 1)),
    )
    connection.executemany(
        "INSERT INTO attempt (task, lease_epoch, agent, session_epoch, assigned_at, outcome) VALUES (?, 1, 'bob', 1, ?, 'succeeded')",
        ((n, ended) for n in range(1, tasks + 1)),
    )
    connection.executemany(
        "INSERT INTO result (task, lease_epoch, output, commits) VALUES (?, 1, ?, '[]')",
        ((n, "done " * 100) for n in range(1, tasks + 1)),
    )
    connection.executemany(
        "INSERT INTO event (at, kind, actor, task, from_state, to_state) VALUES (?, 'task.done', 'bob', ?, NULL, 'done')",
        ((ended, n) for n in range(1, tasks + 1)),
    )
    connection.execute("COMMIT")


async def submits(hub: HubClient, clients: int, until: Callable[[], bool]) -> list[float]:
    """Seconds of each submission, by clients that do nothing else."""
    took: list[float] = []

    async def one() -> None:
        while not until():
            began = time.perf_counter()
            await hub.submit({"title": "a new idea", "hold": True})
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(one() for _ in range(clients)))
    return took


async def beside(
    hub: HubClient, clients: int, start: Callable[[], Awaitable[Any]], look: Callable[[], Awaitable[Any]]
) -> tuple[list[float], ErrandRound]:
    """Submissions while an errand runs, and what it says of itself."""
    await start()
    over = asyncio.Event()

    async def watch() -> ErrandRound:
        while (now := (await look())["round"])["running"]:  # noqa: ASYNC110  it is another process that ends
            await asyncio.sleep(LOOK_S)  # the hub has nothing to wake us with
        over.set()
        return now

    took, now = await asyncio.gather(submits(hub, clients, over.is_set), watch())
    return took, now


async def held_ms(hub: HubClient, metric: str, share: float) -> float:
    """For how long this share of what ``metric`` counts held the writer at most, from the hub's own histogram."""
    text = (await hub.http.get("/metrics")).text
    found = re.findall(rf'^agentcom_{metric}.*le="([^"]+)".*\}} (\S+)', text, re.MULTILINE)
    wanted = float(found[-1][1]) * share
    below, low = 0.0, 0.0
    for bound, count in ((float(bound), float(count)) for bound, count in found):
        if count >= wanted:
            inside = (wanted - below) / (count - below)
            return 1000 * (bound if share == 1 else low + (bound - low) * inside)
        below, low = count, bound
    raise AssertionError("the last bucket holds all")


async def measure(hub: Hub, sizes: dict[str, Any]) -> dict[str, Any]:
    """All three phases on one hub."""
    async with (
        HubClient(hub.url, hub.token, timeout_s=60) as people,
        HubClient(hub.url, hub.admin_token, timeout_s=60) as admin,
    ):
        until = time.monotonic() + sizes["seconds"]
        alone = await submits(people, sizes["clients"], lambda: time.monotonic() > until)
        group, longest = await held_ms(people, "commit_seconds_bucket", 0.5), await held_ms(people, "commit_seconds_bucket", 1)
        pruning, pruned = await beside(people, sizes["clients"], admin.prune, admin.pruning)
        compacting, compacted = await beside(people, sizes["clients"], admin.compact, admin.compaction)
        size = await admin.compaction()
        steps = {name: [await held_ms(people, _STEPS % name, share) for share in (0.5, 0.99)] for name in ("prune", "compact")}
        gone = (await admin.pruning())["pruned"]["tasks"]
    return {
        "group_ms": group,
        "longest_group_ms": longest,
        "alone": _figures(alone),
        "prune": _figures(pruning) | _errand(pruned, group, steps["prune"]) | {"tasks": gone},
        "compact": _figures(compacting)
        | _errand(compacted, group, steps["compact"])
        | {"bytes_before": size["bytes_before"], "bytes_after": size["bytes_after"]},
    }


def _figures(took: list[float]) -> dict[str, float]:
    return {"submits": len(took), "p50_ms": 1000 * median(took), "p99_ms": 1000 * percentile(took, 0.99)}


def _errand(found: ErrandRound, group: float, step_ms: list[float]) -> dict[str, Any]:
    assert found["error"] is None, found["error"]
    return {"step_ms": step_ms[0], "step_p99_ms": step_ms[1], "step_ratio": step_ms[0] / group} | {
        "steps": found["steps"],
        "hold_ms": found["longest_hold_ms"],
        "hold_ratio": found["longest_hold_ms"] / group,
    }


def main() -> int:
    """Run, and say what came of it."""
    given = options(__doc__).parse_args()
    quiet()
    sizes = TINY if given.tiny else SIZES
    with running_hub(prepare=lambda root: fill(root, int(sizes["tasks"]))) as hub:
        found = asyncio.run(measure(hub, sizes))
    document = {**found, "settings": {"durability": "full", **sizes}, "machine": machine()}
    alone = found["alone"]["p99_ms"]
    group = f"{found['group_ms']:.2f} ms, the longest {found['longest_group_ms']:.0f} at most"
    rows = [("a group, median", group, ""), ("submit p99, beside nothing", f"{alone:.1f} ms", "")]
    for name, word in (("prune", "pruning"), ("compact", "compaction")):
        one = found[name]
        ratio = one["p99_ms"] / alone
        rows += [
            (f"{word}: steps", f"{one['steps']:,}", ""),
            (
                f"{word}: a step, median",
                f"{one['step_ms']:.2f} ms, p99 {one['step_p99_ms']:.1f}",
                f"{one['step_ratio']:.1f} × a median group",
            ),
            (f"{word}: longest hold of the writer", f"{one['hold_ms']:.1f} ms", f"{one['hold_ratio']:.1f} × a median group"),
            (f"{word}: submit p99", f"{one['p99_ms']:.1f} ms, {ratio:.2f} × beside nothing", judged(ratio, RATIO_BAR)),
        ]
    size = found["compact"]
    rows.append(("file", f"{size['bytes_before'] / 2**20:.1f} → {size['bytes_after'] / 2**20:.1f} MiB", ""))
    show(document, rows, as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
