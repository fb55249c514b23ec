"""What a backup costs: its time and size, what it does to commits meanwhile, and how long checks and the way back take.

A store with so many finished tasks, written by the real scheduler and journal. A writer then commits a submission every few
milliseconds; its latencies before and during the backup are of one run, and only their ratio is judged.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from page import judged, machine, options, percentile, quiet, show
from rows import Script, group_of, now

from hub.ids import BackupReason
from hub.store import blobs, projects
from hub.store.backups import shelf_beside, verify
from hub.store.integrity import judge
from hub.store.restore import restore
from hub.store.sqlite import SqliteStore
from hub.store.wal import wal_of
from hub.store.writer import Group

AGENTS = 250
"""Lifecycles written together while the store is filled."""
PAUSE_S = 0.005
SAMPLES = 400
BLOB_BYTES = 256 * 1024
P99_BAR = 3.0


async def measure(tasks: int, blob_mb: int, samples: int) -> dict[str, Any]:
    """Fill a store, back it up under writes, check it, go back to it."""
    with TemporaryDirectory(prefix="agentcom-bench-") as root:
        path = Path(root) / "hub.db"
        path.with_name("hub.key").write_text("0f" * 32)
        store = await SqliteStore.open(path, durability="normal")  # only to be filled
        try:
            script = await _fill(store, tasks, blob_mb)
        finally:
            await store.close()
        store = await SqliteStore.open(path)
        try:
            before = [await _submit(store, script) for _ in range(samples)]
            during, took, longest_log, made = await _back_up(store, script)
        finally:
            await store.close()
        quick_s, whole_s, verify_s = _timed(judge, path, full=False), _timed(judge, path, full=True), _timed(verify, made)
        restore_s = _timed(restore, path, made, now())
        bytes_ = made.manifest.bytes
    return {
        "backup_s": took,
        "bytes": bytes_,
        "before_ms": {"p50": 1e3 * percentile(before, 0.5), "p99": 1e3 * percentile(before, 0.99)},
        "during_ms": {"p50": 1e3 * percentile(during, 0.5), "p99": 1e3 * percentile(during, 0.99), "max": 1e3 * max(during)},
        "commits_during": len(during),
        "p99_ratio": percentile(during, 0.99) / percentile(before, 0.99),
        "log_mb": longest_log / 2**20,
        "quick_check_s_per_100k": quick_s * 100_000 / tasks,
        "full_check_s_per_100k": whole_s * 100_000 / tasks,
        "verify_s": verify_s,
        "restore_s": restore_s,
    }


async def _fill(store: SqliteStore, tasks: int, blob_mb: int) -> Script:
    await store.commit(Group(operations=[projects.create("bench", "default", projects.ProjectEdit())]), now())
    await store.begin_epoch()
    script = Script(AGENTS)
    await store.commit(group_of([script.opening, *script.joining]), now())
    for group in script.lifecycles(tasks):
        await store.commit(group, now())
    for i in range(0, blob_mb * 2**20 // BLOB_BYTES, 16):
        bodies = [blobs.put(f"{n:064x}", n.to_bytes(4) * (BLOB_BYTES // 4)) for n in range(i, i + 16)]
        await store.commit(Group(operations=bodies), now())
    await store.checkpoint(truncate=True)
    return script


async def _submit(store: SqliteStore, script: Script) -> float:
    group = group_of([script.submit(1)])
    began = time.perf_counter()
    await store.commit(group, now())
    took = time.perf_counter() - began
    await asyncio.sleep(PAUSE_S)
    return took


async def _back_up(store: SqliteStore, script: Script) -> tuple[list[float], float, int, Any]:
    shelf = shelf_beside(store.path)
    began = time.perf_counter()
    work = asyncio.create_task(asyncio.to_thread(shelf.create, BackupReason.ASKED, now()))
    during, longest = [], 0
    while not work.done():
        during.append(await _submit(store, script))
        longest = max(longest, wal_of(store.path).stat().st_size)
    return during, time.perf_counter() - began, longest, await work


def _timed(fn: Any, *args: Any, **options: Any) -> float:
    began = time.perf_counter()
    fn(*args, **options)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--blob-mb", type=int, default=200, help="MiB of large bodies beside the rows")
    asked = parser.parse_args()
    tasks, blob_mb, samples = (200, 1, 20) if asked.tiny else (asked.tasks, asked.blob_mb, SAMPLES)
    quiet()
    found = asyncio.run(measure(tasks, blob_mb, samples))
    document = {
        **found,
        "settings": {"durability": "full", "tasks": tasks, "blob_mb": blob_mb, "pause_ms": 1e3 * PAUSE_S},
        "machine": machine(),
    }
    show(
        document,
        [
            ("backup, verified", f"{found['backup_s']:.1f} s, {found['bytes'] / 2**20:.0f} MiB", ""),
            ("commit before: p50, p99", f"{found['before_ms']['p50']:.1f}, {found['before_ms']['p99']:.1f} ms", ""),
            ("commit during: p50, p99, max", ", ".join(f"{value:.1f}" for value in found["during_ms"].values()) + " ms", ""),
            ("p99 during / before", f"{found['p99_ratio']:.2f}", judged(found["p99_ratio"], P99_BAR)),
            ("longest log meanwhile", f"{found['log_mb']:.1f} MiB", ""),
            ("quick check per 100 000 tasks", f"{found['quick_check_s_per_100k']:.2f} s", ""),
            ("full check per 100 000 tasks", f"{found['full_check_s_per_100k']:.2f} s", ""),
            ("verify the backup", f"{found['verify_s']:.1f} s", ""),
            ("restore", f"{found['restore_s']:.1f} s", ""),
        ],
        as_json=asked.json,
    )


if __name__ == "__main__":
    main()
