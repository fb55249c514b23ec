"""A released version and this one side by side, as real processes: both mixtures, both orders of a rolling upgrade, and the way back.

    python -m tests.compat.upgrade OLD_PYTHON

``OLD_PYTHON`` is the interpreter of an environment in which the release is installed. Prints a line for each scenario; ends with 1 at the
first that loses or repeats anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from hub.cli.demo.stage import StageError
from hub.store.sqlite import STORE_FILE
from tests.support.rolling import RollingFleet

AGENTS = ("a-1", "a-2", "a-3")
LOAD_EVERY_S = 0.5
Scenario = Callable[[RollingFleet, str], Awaitable[None]]


async def old_sidecars_new_hub(fleet: RollingFleet, old: str) -> None:
    """N−1 sidecars on a hub of today; each is restarted while its agent works."""
    await fleet.start_hub()
    await _sidecars(fleet, old)
    await _work_and_restart(fleet)


async def new_sidecars_old_hub(fleet: RollingFleet, old: str) -> None:
    """Sidecars of today on a hub of N−1, which is restarted meanwhile."""
    fleet.python = old
    await fleet.start_hub()
    await _sidecars(fleet, sys.executable)
    await _work_and_restart(fleet)
    fleet.python = old
    await fleet.stop_hub()
    await fleet.start_hub()


async def hub_first(fleet: RollingFleet, old: str) -> None:
    """The order of ops/docs/upgrade.md, under load: the hub, then the sidecars one by one."""
    fleet.python = old
    await fleet.start_hub()
    await _sidecars(fleet, old)
    async with _load(fleet):
        await fleet.working(2)
        await fleet.stop_hub()
        fleet.python = sys.executable
        await fleet.start_hub()
        await _replace_sidecars(fleet)


async def sidecars_first(fleet: RollingFleet, old: str) -> None:
    """The other order, under load."""
    fleet.python = old
    await fleet.start_hub()
    await _sidecars(fleet, old)
    async with _load(fleet):
        await fleet.working(2)
        fleet.python = sys.executable
        await _replace_sidecars(fleet)
        await fleet.stop_hub()
        await fleet.start_hub()


async def and_back(fleet: RollingFleet, old: str) -> None:
    """A hub of N−1 refuses a migrated store and serves what was kept before the migration; what was submitted since is not in it."""
    fleet.python = old
    await fleet.start_hub()
    await _sidecars(fleet, old)
    await fleet.submit(0.2, 0.2)
    await fleet.all_done_exactly_once()
    await fleet.stop_hub()
    shutil.copytree(fleet.data_dir, fleet.root / "kept")
    fleet.python = sys.executable
    await fleet.start_hub()
    await fleet.stop_hub()
    fleet.python = old
    try:
        await fleet.start_hub()
    except StageError:
        said = (fleet.root / "hub.log").read_text("utf-8", "replace")
        assert "run the newer version, or restore a backup" in said, said[-2000:]
    else:
        raise AssertionError("an older hub took a newer store")
    for file in fleet.data_dir.glob(f"{STORE_FILE}*"):
        file.unlink()
    for file in (fleet.root / "kept").glob(f"{STORE_FILE}*"):
        shutil.copy2(file, fleet.data_dir / file.name)
    await fleet.start_hub()
    await fleet.submit(0.2)


async def _sidecars(fleet: RollingFleet, python: str) -> None:
    fleet.python = python
    await fleet.start_agents(*AGENTS)


async def _work_and_restart(fleet: RollingFleet) -> None:
    await fleet.submit(*[2.0, 0.2, 0.6] * 4)
    await fleet.working(2)
    for name in AGENTS:
        await fleet.stop_sidecar(name)
        await fleet.start_sidecar(name)


async def _replace_sidecars(fleet: RollingFleet) -> None:
    for name in AGENTS:
        await fleet.working(1)
        await fleet.stop_sidecar(name)
        await fleet.start_sidecar(name)


@contextlib.asynccontextmanager
async def _load(fleet: RollingFleet) -> AsyncIterator[None]:
    """Somebody submits all the while, and submits again what was not acknowledged."""
    over = asyncio.Event()

    async def submit() -> None:
        while not over.is_set():
            await fleet.submit_surely(1.0, 0.3)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), LOAD_EVERY_S)

    loading = asyncio.create_task(submit(), name="load")
    try:
        yield
    finally:
        over.set()
        await loading


SCENARIOS: tuple[Scenario, ...] = (old_sidecars_new_hub, new_sidecars_old_hub, hub_first, sidecars_first, and_back)


async def _play(scenario: Scenario, old: str) -> str:
    root = Path(tempfile.mkdtemp(prefix="agentcom-upgrade-"))
    fleet, began = RollingFleet(root, agents=len(AGENTS)), time.monotonic()
    try:
        await scenario(fleet, old)
        await fleet.all_done_exactly_once()
        return f"{len(fleet.submitted):3} tasks, each done once and run once, in {time.monotonic() - began:.0f} s"
    finally:
        await fleet.close()
        shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    """Play every scenario in turn."""
    old = sys.argv[1]
    for scenario in SCENARIOS:
        print(f"  {scenario.__name__.replace('_', ' '):24} {asyncio.run(_play(scenario, old))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
