"""What the campaign kills: a hub, sidecars with agents of our own, a remote with merges. It finds, kills and revives every part."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import hub.cli.demo.stage as stage
from hub.client.errors import HubProblem, HubUnreachable
from hub.ids import CHECKS
from tests.crash.agent import ACCOUNT
from tests.crash.tapped import TAP
from tests.support.failpoints import points
from tests.support.fleet import LAUNCHER, ROOT, Fleet, environment_of, processes

REPO = "site"
AGENT = Path(__file__).with_name("agent.py")
START_S = 90.0
"""A hub that does not serve after this long, started again and again, never will."""


@dataclass(frozen=True, slots=True)
class Shim:
    """A living shim and the run it holds."""

    pid: int
    sidecar: str
    task: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Noted:
    """One line of the agents' own account."""

    word: str
    task: int
    epoch: int
    pid: int
    boot_us: int


class World(Fleet):
    """A fleet whose hub and sidecars run with failpoints armed; each kills or fails once, and only while there is a ``token``."""

    def __init__(self, root: Path, agents: int, *, lease_s: float = 60.0, beat_s: float = 3.0) -> None:
        super().__init__(root, agents)
        self.names = [*(f"a-{i}" for i in range(1, agents + 1)), "checks"]
        self.account_file = root / "agents.log"
        self.token: Path = root / "token"
        self.armed: frozenset[str] = frozenset()
        self.action = "kill"
        self._settings = {
            "AGENTCOM_LEASE_TERM_S": str(lease_s),
            "AGENTCOM_LEASE_BEAT_S": str(beat_s),
            "AGENTCOM_DAMPERS_STRIKES": "0",  # that runs end badly here is no fault of their agents
        }

    def arm(self, action: str, names: frozenset[str]) -> None:
        """What starts from now on has these points; what they do goes to a log of its own."""
        self.armed, self.action, self.failpoint_log = names, action, self.root / f"{action}s.log"

    async def open(self) -> None:
        """Start everything."""
        self.make_repository(None)
        await self.revive_hub()
        async with self.client() as hub:
            here = {"kind": "file_exists", "target": "README.md"}
            with suppress(HubProblem):  # it is there already: the answer was lost
                await self.insist(
                    lambda: hub.add_repo(
                        REPO, str(self.remote), base=self.base, policy={"auto_merge_tier1": True}, checks=[here]
                    )
                )
        for name in self.names:
            self.configure_sidecar(name, [CHECKS] if name == "checks" else [])
        await self.revive()

    async def insist(self, ask: Any) -> Any:
        """Ask until there is an answer, reviving a hub that died of it."""
        while True:
            try:
                return await ask()
            except HubUnreachable:
                await self.revive_hub()

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def configure_sidecar(self, name: str, capabilities: list[str]) -> None:
        if CHECKS in capabilities:
            super().configure_sidecar(name, capabilities)
            return
        home = self.root / name
        home.mkdir()
        (home / "sidecar.toml").write_text(
            f'hub_url = "ws{self.url.removeprefix("http")}/ws"\ntoken_file = "{self.agent_token_file}"\n'
            f'state_dir = "{home / "state"}"\nreconnect_first_s = 0.3\nstop_grace_s = 1.0\n'
            f'[[agents]]\nid = "{name}"\nruntime = "command"\n'
            f'env_set = {{ AGENTCOM_RUN_LOG = "{self.runs}", {ACCOUNT} = "{self.account_file}" }}\n'
            f'[agents.command]\nargv = ["{sys.executable}", "-S", "-P", "{AGENT}", "{{prompt_file}}"]\n'
            'success_when = "outcome"\nevents = "jsonl"\n',
            "utf-8",
        )

    async def _spawn(self, argv: list[str], name: str, env: dict[str, str]) -> asyncio.subprocess.Process:
        sides = ("hub.",) if name == "hub" else ("sidecar.", "shim.")
        if here := sorted(point for point in self.armed if point.startswith(sides)):
            env[points.POINTS] = ",".join(f"{point}:{self.action}" for point in here)
            if not self.action.startswith("delay"):  # a disk may be slow again and again
                env |= {points.LOG: str(self.failpoint_log), points.TOKEN: str(self.token)}
        env |= self._settings | {"PYTHONPATH": str(ROOT), TAP: str(self.tap_of(name))}
        program = argv if name != "hub" else [LAUNCHER, *argv]
        return await stage.Stage._spawn(self, ["tests.crash.tapped", *program] if name != "hub" else program, name, env)

    def tap_of(self, name: str) -> Path:
        """The frames that a sidecar sent and heard."""
        return self.root / f"{name}.tap"

    async def start_sidecar(self, name: str) -> None:
        """Without ``--stop-agents``: what runs goes on when it ends."""
        argv = ["sidecar", "run", "--config", str(self.root / name / "sidecar.toml")]
        self._sidecars[name] = await self._spawn(argv, name, dict(os.environ))

    async def _is_ready(self) -> bool:
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    async def revive_hub(self) -> None:
        """Have the hub serve, through as many deaths as its start may have."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self._hub is None or self._hub.returncode is not None:
                await self.try_hub()
            elif await self._is_ready():
                return
            else:
                await asyncio.sleep(0.1)
        raise AssertionError(f"the hub does not start; see {self.root / 'hub.log'}")

    async def try_hub(self) -> None:
        """Start the hub; it may die of it."""
        with suppress(stage.StageError, HubUnreachable, HubProblem):
            await self.start_hub()

    async def revive(self) -> None:
        """Start whatever is not there."""
        await self.revive_hub()
        for name in self.names:
            if name not in self._sidecars or self._sidecars[name].returncode is not None:
                await self.start_sidecar(name)

    async def strike(self, *names: str, signum: int = signal.SIGKILL) -> None:
        """Signal the hub or sidecars at once, and wait until they are gone."""
        struck = [self._hub if name == "hub" else self._sidecars[name] for name in names]
        for process in struck:
            assert process is not None
            with suppress(ProcessLookupError):
                process.send_signal(signum)
        for process in struck:
            assert process is not None
            await process.wait()

    def pid_of(self, name: str) -> int:
        """The hub's or a sidecar's."""
        process = self._hub if name == "hub" else self._sidecars[name]
        assert process is not None
        return process.pid

    def living_shims(self, sidecar: str | None = None) -> list[Shim]:
        """Every living shim, or those of one sidecar."""
        found = []
        for pid, argv in processes():
            if "sidecar.runs.shim" in argv and str(self.root) in argv:
                found.append(self.shim_of(pid, argv.split()[-1]))
        return [shim for shim in found if sidecar in (None, shim.sidecar)]

    def shim_of(self, pid: int, directory: str) -> Shim:
        """A shim by its last argument, the run's directory."""
        path = Path(directory)
        task, epoch, _ = path.name.split("-")
        return Shim(pid, path.relative_to(self.root).parts[0], int(task), int(epoch))

    def agent_pids(self, shims: list[Shim]) -> list[int]:
        """The living processes of these runs, their shims excepted."""
        runs = {(shim.task, shim.epoch) for shim in shims}
        marked = [pid for pid, _ in processes() if str(self.account_file) in environment_of(pid)]
        mine = {note.pid for note in self.account() if (note.task, note.epoch) in runs}
        return [pid for pid in marked if pid in mine]

    def orphans(self) -> list[int]:
        """Processes that carry the mark of a run, by whatever name."""
        mark = f"AGENTCOM_RUN={self.root}"
        return [pid for pid, _ in processes() if mark in environment_of(pid)]

    # ── what can be known from outside ───────────────────────────────────────────────────────────────────────────────────────

    def account(self) -> list[Noted]:
        """What the agents wrote down."""
        return list(self._account())

    def _account(self) -> Iterator[Noted]:
        if self.account_file.exists():
            for line in self.account_file.read_text("utf-8").splitlines():
                word, *numbers = line.split()
                yield Noted(word, *map(int, numbers))

    async def reconciled(self, hub: Any, since_us: dict[str, int]) -> bool:
        """Whether every agent has a session, and one from after the moment it has to be."""
        page = await hub.agents()
        found = {agent["id"]: agent for agent in page["agents"]}
        for name in self.names:
            agent = found.get(name)
            if agent is None or agent["state"] == "offline" or "reconnecting" in agent["flags"] or not agent["connected_at"]:
                return False
            if datetime.fromisoformat(agent["connected_at"]).timestamp() * 1e6 < since_us.get(name, 0):
                return False
        return True
