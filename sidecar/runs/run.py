"""One run as its directory shows it: the connection to its shim, what it printed, and its end, whichever dies first.

Which of three things is true is read from the directory alone, so a sidecar that restarted knows: the lock is held → a
shim lives, attach; the lock is free and the spool has its terminal event → it exited; the lock is free without one → the
shim is lost, and after everything of the run has been killed, that is written down as the terminal event, under the lock,
so that a shim which was only slow to start can never run.

A shim that holds its lock but no bound (its own agent may have stopped it) is killed some seconds after the bound, which
makes it the third case.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from sidecar.runs import sweep
from sidecar.runs.children import CHILDREN
from sidecar.runs.clock import boot_name, boot_us
from sidecar.runs.shim import WALL_GRACE_US

log = structlog.get_logger(__name__)

RETRY_S = 0.05
"""Between two looks at a run whose lock is held though nobody answers: its shim is starting or ending."""
BACKLOG = 64
"""Commands kept while there is no connection to the shim; it is gone for good soon after, if it is gone."""
OVERDUE_S = 5.0
"""How long after its bound a run must be over; then its shim counts as dead and is made so."""
UNKNOWN_US = 30_000_000
"""What a shim found alive may have at least: another process may have moved its deadline, and it has yet to say so."""
_LINE_BYTES = 8 * 1024 * 1024
_TERMINAL_BYTES = 16 * 1024
_LOOK_S = 1.0  # asyncio sleeps on a clock that stops with the machine
_BATCH = 64
_FAR_US = 1 << 62


@dataclass(frozen=True, slots=True)
class Deadline:
    """Boot-clock microseconds: the agent is asked to end at ``soft_us``, everything is dead by ``hard_us``."""

    soft_us: int
    hard_us: int


LOST: dict[str, Any] = {"exit": None, "signal": None, "stopped": "lost", "unrun": False, "dropped": 0}
"""Terminal event written on behalf of a shim that died before it could."""


class Run:
    """A connection to one run's shim. Commands are written at once and have no answer: the events show their effect."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._writer: asyncio.StreamWriter | None = None
        self._backlog: list[dict[str, Any]] = []
        self._hard_us = self._wall_us = self._stop_us = _FAR_US
        self._extended_us = 0

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Every event of the run from its first, then new ones as they happen; the last one is the terminal event.

        The events come from the shim's socket while it lives and from the spool afterwards; a shim that dies on the way,
        or has to be killed because it lets a bound pass, is noticed by its lock, its processes are swept, and the terminal
        event says ``stopped: lost``.
        """
        told = 0
        async with self._watched():
            while True:
                try:
                    async for n, event in self._streamed():
                        if n > told or is_terminal(event):
                            told = n
                            yield event
                            if is_terminal(event):
                                return
                finally:
                    self.close()
                # No shim answers. Whoever gets the lock may settle the run; a shim that just starts or ends has it.
                with _try_lock(self.directory) as locked:
                    if locked:
                        recorded = await asyncio.to_thread(_settle, self.directory)
                        for at, (n, event) in enumerate(recorded):
                            if n > told or is_terminal(event):
                                yield event
                            if at % _BATCH == 0:  # a long spool must not hold up the beat
                                await asyncio.sleep(0)
                        return
                await asyncio.sleep(RETRY_S)

    async def erase(self) -> None:
        """Stop the run if it lives, and delete its directory once nothing of it does."""
        async with self._watched():
            while True:
                if await self.connect():
                    self.stop(0)
                    with contextlib.suppress(OSError):
                        while await self._reader.read(1 << 16):
                            pass
                    self.close()
                with _try_lock(self.directory) as locked:
                    if locked:
                        await asyncio.to_thread(_erase, self.directory)
                        return
                await asyncio.sleep(RETRY_S)

    def extend(self, deadline: Deadline) -> None:
        """Move the deadline; the shim never moves it backwards."""
        self._extended_us = max(self._extended_us, deadline.hard_us)
        self._command({"cmd": "extend", "soft_boot_us": deadline.soft_us, "hard_boot_us": deadline.hard_us})

    def stop(self, grace_ms: int) -> None:
        """Ask the agent to end, and kill everything after the grace."""
        self._stop_us = min(self._stop_us, boot_us() + grace_ms * 1000)
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

    async def _streamed(self) -> AsyncGenerator[tuple[int, dict[str, Any]], None]:
        if not await self.connect():
            return
        self._command({"cmd": "status"})  # before the events, so that its answer cannot fall into the middle of one
        self._command({"cmd": "events"})
        last = seen = 0
        with contextlib.suppress(OSError, ValueError):
            while (line := await self._reader.readline()).endswith(b"\n"):
                if (numbered := _numbered(line, last)) is None:
                    continue
                match numbered[1]:
                    case {"status": {"hard_boot_us": int(hard_us)}}:
                        self._extended_us = max(self._extended_us, hard_us)
                        continue
                last = numbered[0]
                yield numbered
                seen += 1
                if seen % _BATCH == 0:  # what is buffered is read without a pause
                    await asyncio.sleep(0)

    def _command(self, command: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(orjson.dumps(command) + b"\n")
        elif len(self._backlog) < BACKLOG:
            self._backlog.append(command)

    # --- the watch over a shim that holds no bound

    @contextlib.asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self._read_bounds)
        watch = asyncio.create_task(self._watch(), name=f"watch-{self.directory.name}")
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait({watch})

    def _read_bounds(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            order = orjson.loads((self.directory / "run.json").read_bytes())
            self._hard_us = max(order["hard_boot_us"], boot_us() + UNKNOWN_US)
            self._wall_us = order["wall_boot_us"] + WALL_GRACE_US

    async def _watch(self) -> None:
        """A living shim ends the run itself; one that has not some seconds after it must have is dead or made dead."""
        overdue_s = 0.0
        while True:
            await asyncio.sleep(_LOOK_S)
            bound_us = min(max(self._hard_us, self._extended_us), self._wall_us, self._stop_us)
            # Counted awake: a machine that slept past the bound gives the shim its chance first.
            overdue_s = overdue_s + _LOOK_S if boot_us() >= bound_us else 0.0
            if overdue_s >= OVERDUE_S:
                log.warning("shim_overdue", run=self.directory.name)
                await asyncio.to_thread(sweep_run, self.directory)


def sweep_run(directory: Path) -> None:
    """Kill every process of a run, its shim first of all; the lock is free afterwards. Blocks for some seconds at most."""
    shim, mark_of_run = _shim(directory), sweep.run_mark(mark(directory))
    since = 0 if shim is None else shim[1]

    def picked(table: list[sweep.Process]) -> list[sweep.Process]:
        strays = set[int]() if shim is None else CHILDREN.strays(since)
        return [
            process
            for process in table
            if (process.pid, process.started) == shim or process.pid in strays or sweep.carries(process.pid, mark_of_run)
        ]

    def near() -> list[int]:
        return [pid for pid in CHILDREN.adopted() if sweep.carries(pid, mark_of_run)]

    swept = sweep.kill_all(sweep.Members(picked, since).find, near=near, collect=_collect)
    if swept.survivors:
        log.warning("processes_survive", run=directory.name, pids=[survivor.pid for survivor in swept.survivors])


def mark(directory: Path) -> str:
    """What the processes of a run carry in their environment: unique on the machine, unlike a task's number."""
    return str(directory.resolve())


def is_terminal(event: dict[str, Any]) -> bool:
    """Whether an event ends its run."""
    return "stopped" in event and "exit" in event


def read_spool(directory: Path) -> list[tuple[int, dict[str, Any]]]:
    """The numbered events of a run without a shim, in order; a torn last line is ignored. Blocking."""
    try:
        lines = (directory / "events.jsonl").read_bytes().split(b"\n")
    except OSError:
        return []
    events: list[tuple[int, dict[str, Any]]] = []
    last = 0
    for line in lines[:-1]:
        if (numbered := _numbered(line, last)) is not None:
            last = numbered[0]
            events.append(numbered)
    events.sort(key=lambda numbered: (is_terminal(numbered[1]), numbered[0]))
    return events


def _numbered(line: bytes, last: int) -> tuple[int, dict[str, Any]] | None:
    """The event of a line and its number; None for what a loss of power left of one, which may be JSON of another kind."""
    with contextlib.suppress(ValueError):
        event = orjson.loads(line)
        if isinstance(event, dict) and type(n := event.pop("n", last + 1)) is int:
            return n, event
    return None


def _settle(directory: Path) -> list[tuple[int, dict[str, Any]]]:
    """The events of a run without a shim, its end included; the caller holds the lock. Blocking."""
    recorded = read_spool(directory)
    if not recorded or not is_terminal(recorded[-1][1]):
        sweep_run(directory)
        _append_lost(directory)
        recorded.append((recorded[-1][0] + 1 if recorded else 1, LOST))
    return recorded


def _erase(directory: Path) -> None:
    if not _has_ended(directory):
        sweep_run(directory)
    # First what a late shim would need, while the lock still keeps it out.
    (directory / "run.json").unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def _has_ended(directory: Path) -> bool:
    """Whether the spool ends with a terminal event, without reading all of it."""
    with contextlib.suppress(OSError, ValueError), (directory / "events.jsonl").open("rb") as spool:
        spool.seek(max(0, spool.seek(0, os.SEEK_END) - _TERMINAL_BYTES))
        event = orjson.loads(spool.read().removesuffix(b"\n").rpartition(b"\n")[2])
        return isinstance(event, dict) and is_terminal(event)
    return False


def _shim(directory: Path) -> tuple[int, int] | None:
    """Pid and start time of the run's shim, alive or not; None when it never got that far, or ran before the last boot."""
    with contextlib.suppress(OSError, ValueError):
        pid, started, boot = (directory / "lock").read_text().split(" ")
        if boot == boot_name():
            return int(pid), int(started)
    return None


def _collect(pid: int) -> None:
    if pid in CHILDREN.adopted():  # a shim of ours is collected by whoever started it
        sweep.reap(pid)


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
