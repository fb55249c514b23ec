"""Starts runs under their shims and finds them again. A run directory serves one run, ever; see :mod:`sidecar.runs.run`."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import orjson
import structlog

from sidecar.core.records import Key
from sidecar.runs import sweep
from sidecar.runs.account import Account
from sidecar.runs.children import CHILDREN
from sidecar.runs.clock import boot_us
from sidecar.runs.run import LOST, Deadline, Run, is_terminal, mark
from sidecar.runtimes.base import Launch

__all__ = ["LOST", "Deadline", "Order", "Run", "RunFault", "Runner", "is_terminal", "mark", "run_id_of"]

log = structlog.get_logger(__name__)

READY_S = 20.0
"""How long a new shim may take until it holds its lock and listens (a loaded machine starts Python slowly)."""
ERASE_S = 20.0
"""How long a run may take to be stopped and deleted: longer than it takes to give up on its shim and to sweep."""
SPOOL_BYTES = 8 * 1024 * 1024
_PACKAGES = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a run is to do. ``prompt_file`` is where the prompt is written; ``wall_s`` bounds the run whatever the lease says."""

    launch: Launch
    cwd: Path
    prompt: str
    prompt_file: Path
    wall_s: float


class RunFault(Exception):
    """A run could not be started; nothing of it runs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def run_id_of(key: Key, round_number: int) -> str:
    """A run's id, which is also the name of its directory."""
    return f"{key.task}-{key.lease_epoch}-{round_number}"


class Runner:
    """The runs of one agent, each in a directory of its own below ``root``. With an ``account`` agents run as that user."""

    def __init__(self, root: Path, account: Account | None = None) -> None:
        self.root = root
        self._account = account
        self._reapers: set[asyncio.Task[None]] = set()

    def directory(self, run_id: str) -> Path:
        """Where a run lives."""
        return self.root / run_id

    async def start(self, run_id: str, order: Order, deadline: Deadline) -> Run:
        """Spawn the shim and wait until it holds its lock. The journal must already know the run.

        Raises :class:`RunFault` when there is no shim afterwards, also when the directory was used before; the run's
        :meth:`Run.events` tell what is true then.
        """
        directory = self.directory(run_id)
        launch = order.launch
        content = {
            "mark": mark(directory),
            "argv": launch.argv,
            "cwd": str(order.cwd),
            "env": dict(launch.env),
            "stdin": launch.stdin,
            "keep_stdin": launch.keep_stdin,
            "soft_boot_us": deadline.soft_us,
            "hard_boot_us": deadline.hard_us,
            "wall_boot_us": boot_us() + int(order.wall_s * 1e6),
            "spool_bytes": SPOOL_BYTES,
            "become": None if self._account is None else [self._account.uid, self._account.gid],
        }
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.mkdir(mode=0o700)
            order.prompt_file.write_text(order.prompt, encoding="utf-8", errors="replace")
            (directory / "run.json").write_bytes(orjson.dumps(content))
            await self._spawn(directory)
        except FileExistsError as fault:
            raise RunFault("run_exists", f"run {run_id} was started before") from fault
        except (OSError, ValueError, TypeError) as fault:  # the last two: what cannot be written as JSON
            raise RunFault("no_shim", str(fault)) from fault
        return self.attach(run_id)

    def attach(self, run_id: str) -> Run:
        """The run as it is, living or dead; its :meth:`Run.events` tell which."""
        return Run(self.directory(run_id))

    async def stop_strangers(self, mine: set[str]) -> list[str]:
        """Stop and forget every run not in ``mine``; returns their ids. Called before ``hello``."""
        if not self.root.is_dir():
            return []
        strangers = sorted(directory for directory in self.root.iterdir() if directory.name not in mine)
        await self._erase_all(strangers)
        return [directory.name for directory in strangers]

    async def forget(self, key: Key) -> None:
        """Delete the run directories of a settled assignment; a run that somehow still lives is stopped first."""
        await self._erase_all(sorted(self.root.glob(f"{key.task}-{key.lease_epoch}-*")))

    async def close(self) -> None:
        """Stop waiting for shims. They live on."""
        for reaper in self._reapers:
            reaper.cancel()
        await asyncio.gather(*self._reapers, return_exceptions=True)

    async def _erase_all(self, directories: list[Path]) -> None:
        async with asyncio.TaskGroup() as group:
            for directory in directories:
                group.create_task(self._erase(directory), name=f"erase-{directory.name}")

    async def _erase(self, directory: Path) -> None:
        try:
            async with asyncio.timeout(ERASE_S):
                await self.attach(directory.name).erase()
        except (TimeoutError, OSError) as fault:  # the next start tries again
            log.warning("run_stays", run=directory.name, reason=str(fault) or "it does not end")

    async def _spawn(self, directory: Path) -> None:
        """``posix_spawn`` rather than a subprocess object: nothing here may kill the shim when this process ends."""
        ready, its_end = map(_above_standard, os.pipe())
        log_file = _above_standard(os.open(directory / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        null = _above_standard(os.open(os.devnull, os.O_RDONLY))
        try:
            with CHILDREN.starting():
                pid = self._posix_spawn(directory, null, its_end, log_file)
                CHILDREN.register(pid)
        finally:
            for fd in (its_end, log_file, null):
                os.close(fd)
        reaper = asyncio.create_task(_reap(pid), name=f"reap-shim-{directory.name}")
        self._reapers.add(reaper)
        reaper.add_done_callback(self._reapers.discard)
        if not await _says_ready(ready):
            raise RunFault("no_shim", f"the shim did not start; see {directory.name}/shim.log")

    @staticmethod
    def _posix_spawn(directory: Path, stdin: int, stdout: int, stderr: int) -> int:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-S", "-P", "-m", "sidecar.runs.shim", str(directory)],
            # Its own environment holds nothing but what finds the code: no token can leak from here to an agent.
            {"PYTHONPATH": str(_PACKAGES), "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"},
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in ((stdin, 0), (stdout, 1), (stderr, 2))],
            setsid=True,
        )


def _above_standard(fd: int) -> int:
    """The same file under a number that is none of a child's standard ones (a service may be started without those)."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


async def _says_ready(fd: int) -> bool:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb"))
    try:
        async with asyncio.timeout(READY_S):
            return await reader.readline() == b"ready\n"
    except TimeoutError:
        return False
    finally:
        transport.close()


async def _reap(pid: int) -> None:
    """Collect a shim when it ends, so that no zombie stays while this sidecar lives."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
        sweep.reap(pid)
        CHILDREN.forget(pid)
    finally:
        loop.remove_reader(handle)
        os.close(handle)
