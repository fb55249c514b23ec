"""Starts runs under their shims, talks to living ones, and finds out what became of dead ones.

A run directory serves one run, ever. Which of three things is true is read from it alone, so a sidecar that restarted
knows: the lock is held → a shim lives, attach; the lock is free and the spool has its terminal event → it exited; the
lock is free without one → the shim is lost, and after everything that carries the run's mark has been killed, that is
written down as the terminal event, under the lock, so that a shim which was only slow to start can never run.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from sidecar import sweep
from sidecar.records import Key
from sidecar.runtimes.base import Launch

log = structlog.get_logger(__name__)

RETRY_S = 0.05
"""Between two looks at a run whose lock is held though nobody answers: its shim is starting or ending."""
READY_S = 20.0
"""How long a new shim may take until it holds its lock and listens (a loaded machine starts Python slowly)."""
BACKLOG = 64
"""Commands kept while there is no connection to the shim; it is gone for good soon after, if it is gone."""
SPOOL_BYTES = 8 * 1024 * 1024
_LINE_BYTES = 4 * 1024 * 1024
_PACKAGES = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Deadline:
    """Boot-clock microseconds: the agent is asked to end at ``soft_us``, everything is dead by ``hard_us``."""

    soft_us: int
    hard_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a run is to do. ``wall_s`` bounds it whatever the lease says."""

    launch: Launch
    cwd: Path
    prompt: str
    wall_s: float


class RunFault(Exception):
    """A run could not be started; nothing of it runs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


LOST: dict[str, Any] = {"exit": None, "signal": None, "stopped": "lost", "unrun": False, "dropped": 0}
"""Terminal event written on behalf of a shim that died before it could."""


class Run:
    """A connection to one run's shim. Commands are written at once and have no answer: the events show their effect."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._writer: asyncio.StreamWriter | None = None
        self._backlog: list[dict[str, Any]] = []

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Every event of the run from its first, then new ones as they happen; the last one is the terminal event.

        The events come from the shim's socket while it lives and from the spool afterwards; a shim that dies on the way
        is noticed by its lock, its processes are swept, and the terminal event says ``stopped: lost``.
        """
        told = 0
        while True:
            seen = 0
            try:
                async for event in self._streamed():
                    seen += 1
                    if seen > told:
                        told = seen
                        yield event
                        if is_terminal(event):
                            return
            finally:
                self.close()
            # No shim answers. Whoever gets the lock may settle the run; a shim that is just starting or ending has it.
            with _try_lock(self.directory) as locked:
                if locked:
                    for event in (await self._settled())[told:]:
                        yield event
                    return
            await asyncio.sleep(RETRY_S)

    async def _settled(self) -> list[dict[str, Any]]:
        recorded = read_spool(self.directory)
        if not recorded or not is_terminal(recorded[-1]):
            await asyncio.to_thread(sweep.kill_run, mark(self.directory))
            _append_lost(self.directory)
            recorded.append(LOST)
        return recorded

    def extend(self, deadline: Deadline) -> None:
        """Move the deadline; the shim never moves it backwards."""
        self._command({"cmd": "extend", "soft_boot_us": deadline.soft_us, "hard_boot_us": deadline.hard_us})

    def stop(self, grace_ms: int) -> None:
        """Ask the agent to end, and kill everything after the grace."""
        self._command({"cmd": "stop", "grace_ms": grace_ms})

    def send(self, key: str, text: str) -> None:
        """Write to the agent's stdin; a second call with the same key does nothing."""
        self._command({"cmd": "send", "key": key, "text": text})

    async def connect(self) -> bool:
        """Open the control connection; False when no shim listens."""
        if self._writer is not None:
            return True
        try:
            with _reachable(self.directory / "sock") as path:
                self._reader, self._writer = await asyncio.open_unix_connection(path, limit=_LINE_BYTES)
        except OSError:
            return False
        backlog, self._backlog = self._backlog, []
        for command in backlog:
            self._command(command)
        return True

    def close(self) -> None:
        """Let go of the shim; it goes on."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _streamed(self) -> AsyncGenerator[dict[str, Any], None]:
        if not await self.connect():
            return
        self._command({"cmd": "events"})
        with contextlib.suppress(OSError, ValueError):
            while (line := await self._reader.readline()).endswith(b"\n"):
                yield orjson.loads(line)

    def _command(self, command: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(orjson.dumps(command) + b"\n")
        elif len(self._backlog) < BACKLOG:
            self._backlog.append(command)


def run_id_of(key: Key, round_number: int) -> str:
    """A run's id, which is also the name of its directory."""
    return f"{key.task}-{key.lease_epoch}-{round_number}"


class Runner:
    """The runs of one agent, each in a directory of its own below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._reapers: set[asyncio.Task[None]] = set()

    def directory(self, run_id: str) -> Path:
        """Where a run lives."""
        return self.root / run_id

    def prompt_file(self, run_id: str) -> Path:
        """Where the run's prompt is written before the agent starts."""
        return self.directory(run_id) / "prompt.md"

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
            "wall_s": order.wall_s,
            "spool_bytes": SPOOL_BYTES,
        }
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.mkdir(mode=0o700)
            self.prompt_file(run_id).write_text(order.prompt)
            (directory / "run.json").write_bytes(orjson.dumps(content))
            await self._spawn(directory)
        except FileExistsError as fault:
            raise RunFault("run_exists", f"run {run_id} was started before") from fault
        except OSError as fault:
            raise RunFault("no_shim", str(fault)) from fault
        return self.attach(run_id)

    def attach(self, run_id: str) -> Run:
        """The run as it is, living or dead; its :meth:`Run.events` tell which."""
        return Run(self.directory(run_id))

    async def stop_strangers(self, mine: set[str]) -> list[str]:
        """Stop and forget every run not in ``mine``; returns their ids. Called before ``hello``."""
        strangers = []
        if self.root.is_dir():
            for directory in sorted(self.root.iterdir()):
                if directory.name not in mine:
                    await self._end(directory)
                    strangers.append(directory.name)
        return strangers

    async def forget(self, key: Key) -> None:
        """Delete the run directories of a settled assignment; a run that somehow still lives is stopped first."""
        for directory in sorted(self.root.glob(f"{key.task}-{key.lease_epoch}-*")):
            await self._end(directory)

    async def close(self) -> None:
        """Stop waiting for shims. They live on."""
        for reaper in self._reapers:
            reaper.cancel()
        await asyncio.gather(*self._reapers, return_exceptions=True)

    async def _end(self, directory: Path) -> None:
        run = self.attach(directory.name)
        if await run.connect():
            run.stop(0)
        async for _ in run.events():
            pass
        run.close()
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def _spawn(self, directory: Path) -> None:
        """``posix_spawn`` rather than a subprocess object: nothing here may kill the shim when this process ends."""
        ready, its_end = os.pipe()
        log_file = os.open(directory / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            pid = os.posix_spawn(  # noqa: ASYNC221  it returns at once
                sys.executable,
                [sys.executable, "-S", "-P", "-m", "sidecar.shim", str(directory)],
                # Its own environment holds nothing but what finds the code: no token can leak from here to an agent.
                {"PYTHONPATH": str(_PACKAGES), "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"},
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in ((null, 0), (its_end, 1), (log_file, 2))],
                setsid=True,
            )
        finally:
            for fd in (its_end, log_file, null):
                os.close(fd)
        reaper = asyncio.create_task(_reap(pid), name=f"reap-shim-{directory.name}")
        self._reapers.add(reaper)
        reaper.add_done_callback(self._reapers.discard)
        if not await _says_ready(ready):
            raise RunFault("no_shim", f"the shim did not start; see {directory.name}/shim.log")


def mark(directory: Path) -> str:
    """What the processes of a run carry in their environment: unique on the machine, unlike a task's number."""
    return str(directory.resolve())


def is_terminal(event: dict[str, Any]) -> bool:
    """Whether an event ends its run."""
    return "stopped" in event and "exit" in event


def read_spool(directory: Path) -> list[dict[str, Any]]:
    """The events of a run without a shim; a torn last line is ignored."""
    try:
        lines = (directory / "events.jsonl").read_bytes().split(b"\n")
    except OSError:
        return []
    events = []
    for line in lines[:-1]:
        with contextlib.suppress(ValueError):
            events.append(orjson.loads(line))
    return events


def _append_lost(directory: Path) -> None:
    """Write the terminal event for a dead shim. The leading newline ends a line it may have left torn."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "events.jsonl").open("ab") as spool:
        spool.write(b"\n" + orjson.dumps(LOST) + b"\n")
        spool.flush()
        os.fsync(spool.fileno())


@contextlib.contextmanager
def _try_lock(directory: Path) -> Iterator[bool]:
    """Hold a run's lock if no shim does; says whether."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(lock)


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A name for a socket that fits the 108 bytes of a socket address however deep the state directory is."""
    if not Path("/proc/self/fd").is_dir():
        yield str(path)
        return
    parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{parent}/{path.name}"
    finally:
        os.close(parent)


async def _says_ready(fd: int) -> bool:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb"))
    try:
        return await asyncio.wait_for(reader.readline(), READY_S) == b"ready\n"
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
    finally:
        loop.remove_reader(handle)
        os.close(handle)
