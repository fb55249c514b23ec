"""A fleet whose processes are stopped in order and started again, perhaps by another version: what an upgrade does."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from hub.client.errors import HubProblem, HubUnreachable
from tests.support.fleet import ENDED, Fleet, states, wait_until

AS_VERSION = """
import hub, runpy, sys
hub.__version__ = sys.argv.pop(1)
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


class RollingFleet(Fleet):
    """``python`` is the interpreter of what is started next, ``version`` what it calls itself (None: what it is)."""

    def __init__(self, root: Path, agents: int) -> None:
        super().__init__(root, agents)
        self.python = sys.executable
        self.version: str | None = None
        self.submitted: list[str] = []

    async def _spawn(self, argv: list[str], name: str, env: dict[str, str]) -> asyncio.subprocess.Process:
        if self.python == sys.executable and self.version is None:
            return await super()._spawn(argv, name, env)  # with failpoints, where there are some
        start = ["-m", *argv] if self.version is None else ["-c", AS_VERSION, self.version, *argv]
        with (self.root / f"{name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                self.python,
                *start,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env if self.python == sys.executable else {key: value for key, value in env.items() if key != "PYTHONPATH"},
                cwd=self.root,  # or the working directory's code would be found first
                start_new_session=True,
            )

    async def start_sidecar(self, name: str) -> None:
        """Without ``--stop-agents``: what runs goes on while it is away."""
        argv = ["sidecar", "run", "--config", str(self.root / name / "sidecar.toml")]
        self._sidecars[name] = await self._spawn(argv, name, dict(os.environ))

    async def stop_hub(self, limit_s: float = 30, code: int = 0) -> float:
        """SIGTERM; how long it took to end, and that it ended with this code."""
        assert self._hub is not None
        return await _ended(self._hub, limit_s, code)

    async def stop_sidecar(self, name: str, limit_s: float = 60) -> float:
        """SIGTERM; how long it took to end, orderly."""
        return await _ended(self._sidecars.pop(name), limit_s)

    # ── the load ──

    async def submit(self, *seconds: float) -> None:
        """Research of so many seconds each."""
        steps = [[{"do": "slow", "s": s}, {"do": "no_commit"}] for s in seconds]
        jobs = [{"title": "Work", "type": "research", "metadata": {"mock": mock}} for mock in steps]
        async with self.client() as hub:
            batch = await hub.submit_batch(jobs, idempotency_key=f"load-{len(self.submitted)}")  # type: ignore[arg-type]
        self.submitted += [task["id"] for task in batch["tasks"]]

    async def submit_surely(self, *seconds: float) -> None:
        """Again with the same key until it is acknowledged: the hub may be away just now."""
        while True:
            try:
                return await self.submit(*seconds)
            except (HubUnreachable, HubProblem) as fault:
                assert not isinstance(fault, HubProblem) or fault.status >= 500, fault
                await asyncio.sleep(0.2)

    async def working(self, at_least: int) -> None:
        """Until so many agents are at work."""

        async def enough() -> bool:
            async with self.client() as hub:
                found = await states(hub) or {}
            return list(found.values()).count("working") >= at_least and len(self.shims()) >= at_least

        await wait_until(enough, limit_s=60, what=f"{at_least} agents at work")

    async def all_done_exactly_once(self, limit_s: float = 180) -> None:
        """Every task is done by one applied result, its agent ran once, and nothing is left running."""

        async def ended() -> dict[str, str] | None:
            async with self.client() as hub:
                found = {task: state for task, state in (await states(hub) or {}).items() if task in self.submitted}
            return found if len(found) == len(self.submitted) and ENDED.issuperset(found.values()) else None

        found = await wait_until(ended, limit_s=limit_s, what="every task has ended")
        assert set(found.values()) == {"done"}, found
        counts = self.run_counts()
        assert [counts[int(task.removeprefix("t-"))] for task in self.submitted] == [1] * len(self.submitted)
        async with self.client() as hub:
            for task in self.submitted:
                detail = await hub.task(task)
                applied = [one for one in detail["attempts"] if one["verdict"] == "applied" and one["outcome"] == "succeeded"]
                done = [event for event in detail["history"] if event["to_state"] == "done"]
                assert (len(applied), len(done), detail["lost"]) == (1, 1, 0), detail["attempts"]
        await wait_until(self._nothing_runs, limit_s=30, what="no shim and no agent process is left")

    async def _nothing_runs(self) -> bool:
        return not self.shims() and not self.agent_processes()


async def _ended(process: asyncio.subprocess.Process, limit_s: float, wanted: int = 0) -> float:
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code = await asyncio.wait_for(process.wait(), limit_s)
    assert code == wanted, f"it ended with {code}"
    return time.monotonic() - began
