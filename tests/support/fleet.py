"""A hub and sidecars as real processes, to be killed: what the demo's stage offers, plus finding and killing shims and agents."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from hub.cli.demo.stage import BASE, Stage
from hub.client import HubClient
from hub.client.errors import HubUnreachable
from hub.ids import CHECKS
from tests.support.failpoints import points

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = "tests.support.failpoints"
CHECK = {"kind": "file_exists", "target": "README.md"}
ENDED = frozenset({"done", "dead", "cancelled"})


class Fleet(Stage):
    """A stage without a play. ``failpoints`` says for "hub" or a sidecar's name what its next start is under, and that start alone; with a
    ``token`` nothing happens before that file is there.
    """

    def __init__(self, root: Path, agents: int) -> None:
        super().__init__(root, agents)
        self.failpoints: dict[str, str] = {}
        self.failpoint_log = root / "failpoints.log"
        self.token: Path | None = None

    async def _spawn(self, argv: list[str], name: str, env: dict[str, str]) -> asyncio.subprocess.Process:
        order = self.failpoints.pop(name, None)
        if order is None:
            return await super()._spawn(argv, name, env)
        env |= {points.POINTS: order, points.LOG: str(self.failpoint_log), "PYTHONPATH": str(ROOT)}
        env |= {} if self.token is None else {points.TOKEN: str(self.token)}
        return await super()._spawn([LAUNCHER, *argv], name, env)

    async def died(self, name: str, *, limit_s: float = 60) -> int:
        """The exit code of the hub or a sidecar that ends by itself."""
        process = self._hub if name == "hub" else self._sidecars[name]
        assert process is not None
        return await asyncio.wait_for(process.wait(), limit_s)

    def points_hit(self) -> list[str]:
        """The failpoints that did something, in order."""
        if not self.failpoint_log.exists():
            return []
        return [line.split()[0] for line in self.failpoint_log.read_text("utf-8").splitlines()]

    def client(self) -> HubClient:
        return HubClient(self.url, self.admin_token)

    async def start_agents(self, *names: str) -> None:
        for name in names:
            self.configure_sidecar(name, [])
            await self.start_sidecar(name)

    def shims(self) -> list[int]:
        """Pids of living shims that belong to this fleet's directory."""
        return [pid for pid, argv in processes() if "sidecar.runs.shim" in argv and str(self.root) in argv]

    def agent_processes(self) -> list[int]:
        """Pids of living processes of runs of this fleet (they carry the run log's path in their environment)."""
        return [pid for pid, _ in processes() if str(self.runs) in environment_of(pid) and pid not in self.sidecar_pids()]

    def sidecar_pids(self) -> list[int]:
        return [process.pid for process in self._sidecars.values()]

    def sidecar_names(self) -> list[str]:
        return sorted(self._sidecars)

    def run_counts(self) -> Counter[int]:
        """How often an agent really ran, by task number."""
        return Counter(task for task, *_ in self.agent_runs())


async def states(hub: HubClient) -> dict[str, str] | None:
    """Every task's state, or None while the hub is away."""
    with suppress(HubUnreachable):
        return {task["id"]: task["state"] async for task in hub.every_task()}
    return None


async def wait_until(condition: Any, *, limit_s: float, what: str) -> Any:
    """Poll an async condition until it is truthy; an assertion error says what never came."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := await condition():
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"never within {limit_s:g} s: {what}")


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def processes() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                argv = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if argv:
                    yield int(entry.name), argv


def environment_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    return ""


@asynccontextmanager
async def merging_fleet(root: Path) -> AsyncIterator[Fleet]:
    """A hub, a repository ``site`` with a registered check that merges small changes, an agent ``a-1`` and one for checks."""
    fleet = Fleet(root, agents=1)
    try:
        fleet.make_repository(None)
        await fleet.start_hub()
        await fleet.start_agents("a-1")
        fleet.configure_sidecar("checks", [CHECKS])
        await fleet.start_sidecar("checks")
        async with fleet.client() as hub:
            policy = {"auto_merge_tier1": True}
            await hub.add_repo("site", str(fleet.remote), base=BASE, policy=policy, checks=[CHECK])  # type: ignore[list-item]
        yield fleet
    finally:
        await fleet.close()
