"""The demo's stage: a throw-away repository, a hub and its sidecars, all of them real processes in one directory."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx2

from hub.cli.demo.script import RARE_CAPABILITY
from hub.client import HubClient
from hub.ids import CHECKS, Scope
from hub.wire.git import git_argv, git_env, identity_env

BASE = "main"
READY_S = 30.0
STOP_S = 15.0
LEASE_S, BEAT_S = 18.0, 2.0
SEED = {
    "README.md": "# A project\n\nThat agents work on.\n",
    "Makefile": "all:\n\t@echo nothing to do yet\n",
}


class StageError(Exception):
    """The stage cannot be set up; the message says what to do."""


class Stage:
    """Owns every process it starts and ends them all, by pid."""

    def __init__(self, root: Path, agents: int) -> None:
        self.root = root
        self.agents = agents
        self.remote = root / "remote.git"
        self.runs = root / "runs.log"
        self.data_dir = root / "hub"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.hub_restarts = 0
        self._hub: asyncio.subprocess.Process | None = None
        self._sidecars: dict[str, asyncio.subprocess.Process] = {}
        self.base = BASE
        self.agent_token_file = self.data_dir / "agent.token"
        self.admin_token = ""
        self.approver_token = ""
        """In this process's memory only: no agent can read it from a disk."""

    # ── the repository ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def make_repository(self, source: Path | None) -> None:
        """A bare remote with one commit, or a bare clone of ``source``, which itself is only read."""
        if source is not None:
            self._clone(source)
            return
        work = self.root / "seed"
        self._git("init", "--quiet", f"--initial-branch={BASE}", str(work), cwd=self.root)
        for name, text in SEED.items():
            (work / name).write_text(text, "utf-8")
        self._git("add", "--all", cwd=work)
        self._git("commit", "--quiet", "--message", "Begin", cwd=work)
        self._git("clone", "--quiet", "--bare", "--no-hardlinks", "--", str(work), str(self.remote), cwd=self.root)

    def _clone(self, source: Path) -> None:
        try:
            self._git(
                "clone", "--quiet", "--bare", "--no-hardlinks", "--", str(source.resolve()), str(self.remote), cwd=self.root
            )
            self.base = self._git("symbolic-ref", "--short", "HEAD", cwd=self.remote).strip()
        except StageError as fault:
            raise StageError(f"{source} is not a git repository that can be cloned ({fault})") from fault
        try:
            self._git("rev-parse", "--quiet", "--verify", f"refs/heads/{self.base}", cwd=self.remote)
        except StageError as fault:
            raise StageError(f"{source} has no commit on {self.base}; make a first one") from fault

    def some_file(self) -> str:
        """A file that the base branch has, for the registered check to look for."""
        return self._git("ls-tree", "-r", "-z", "--name-only", f"refs/heads/{self.base}", cwd=self.remote).split("\0")[0]

    def base_log(self, limit: int = 40) -> list[str]:
        """The base branch, newest first, one line a commit."""
        text = self._git("log", "--oneline", f"--max-count={limit}", f"refs/heads/{self.base}", cwd=self.remote)
        return text.splitlines()

    def _git(self, *argv: str, cwd: Path) -> str:
        env = {**git_env(os.environ, allow_file=True), **identity_env("Demo", "demo@agentcom.invalid")}
        done = subprocess.run(git_argv(*argv), cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise StageError(f"git {argv[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        return done.stdout

    # ── the processes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start_hub(self) -> None:
        """Start the hub (again) and wait until it is ready."""
        env = {
            **os.environ,
            "AGENTCOM_LEASE_TERM_S": str(LEASE_S),
            "AGENTCOM_LEASE_BEAT_S": str(BEAT_S),
        }
        self._hub = await self._spawn(["hub.cli", "server", *self.hub_arguments()], "hub", env)
        async with asyncio.timeout(READY_S):
            while not await self._is_ready():
                if self._hub.returncode is not None:
                    raise StageError(f"the hub ended with {self._hub.returncode}; see {self.root / 'hub.log'}")
                await asyncio.sleep(0.05)
        if not self.admin_token:
            await self._fetch_tokens()

    async def _fetch_tokens(self) -> None:
        """The administrator's, which the hub left in its data directory, and with it one for the person who approves."""
        self.admin_token = (self.data_dir / "admin.token").read_text("utf-8").strip()
        async with HubClient(self.url, self.admin_token) as hub:
            self.approver_token = (await hub.issue_token("demo-person", [Scope.APPROVER]))["token"]

    def hub_arguments(self) -> list[str]:
        """How the hub is started."""
        return ["start-dev", "--port", str(self.port), "--data-dir", str(self.data_dir), "--json-logs"]

    async def _is_ready(self) -> bool:
        async with httpx2.AsyncClient() as http:
            with suppress(httpx2.TransportError):
                return (await http.get(f"{self.url}/readyz", timeout=1)).status_code == 200
        return False

    async def kill_hub(self) -> None:
        """SIGKILL, as a power cord would."""
        assert self._hub is not None
        self._hub.kill()
        await self._hub.wait()
        self.hub_restarts += 1

    async def start_sidecars(self) -> None:
        """One sidecar process per agent, and one whose agent runs the registered checks."""
        for i in range(1, self.agents + 1):
            capabilities = [RARE_CAPABILITY] if i == min(2, self.agents) else []
            self.configure_sidecar(f"agent-{i}", capabilities)
            await self.start_sidecar(f"agent-{i}")
        self.configure_sidecar("checks", [CHECKS])
        await self.start_sidecar("checks")

    def configure_sidecar(self, name: str, capabilities: list[str]) -> None:
        """Write the configuration of a sidecar with one scripted agent."""
        home = self.root / name
        home.mkdir()
        words = ", ".join(f'"{word}"' for word in capabilities)
        (home / "sidecar.toml").write_text(
            f'hub_url = "ws{self.url.removeprefix("http")}/ws"\n'
            f'token_file = "{self.agent_token_file}"\n'
            f'state_dir = "{home / "state"}"\n'
            "reconnect_first_s = 0.3\n"
            "[[agents]]\n"
            f'id = "{name}"\n'
            f'runtime = "{"none" if CHECKS in capabilities else "mock"}"\n'
            f"capabilities = [{words}]\n"
            f'env_set = {{ AGENTCOM_RUN_LOG = "{self.runs}" }}\n',
            "utf-8",
        )

    async def start_sidecar(self, name: str) -> None:
        """Start a configured sidecar (again)."""
        argv = ["sidecar", "run", "--config", str(self.root / name / "sidecar.toml"), "--stop-agents"]
        self._sidecars[name] = await self._spawn(argv, name, dict(os.environ))

    async def kill_sidecar(self, name: str) -> None:
        """SIGKILL; what its shims do goes on."""
        process = self._sidecars.pop(name)
        process.kill()
        await process.wait()

    async def _spawn(self, argv: list[str], name: str, env: dict[str, str]) -> asyncio.subprocess.Process:
        with (self.root / f"{name}.log").open("ab") as log:
            # a session of its own: Ctrl-C in the terminal is for the demo alone, which then ends them in order
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                start_new_session=True,
            )

    def agent_runs(self) -> list[tuple[int, int, int, int]]:
        """What the agents themselves wrote down: (task, lease epoch, round, pid) for each time one really ran."""
        if not self.runs.exists():
            return []
        lines = self.runs.read_text("utf-8").splitlines()
        return [(int(task), int(epoch), int(turn), int(pid)) for task, epoch, turn, pid in (line.split() for line in lines)]

    async def close(self) -> None:
        """End everything that was started, sidecars first, together; what does not go is killed, also what they left behind."""
        await asyncio.gather(*(_end(process) for process in self._sidecars.values()))
        if self._hub is not None:
            await _end(self._hub)
        for pid in processes_of(self.root):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes_of(root: Path) -> list[int]:
    """Living processes that name this directory in their arguments or environment: shims and agents of sidecars that were killed."""
    mark, found = os.fsencode(root), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if mark in (entry / "cmdline").read_bytes() or mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
