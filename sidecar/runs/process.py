"""Run one command to its end, with a real timeout and nothing left behind.

Killing a process group is not enough: tools put their children in sessions of their own. A run therefore gets its own
session and a mark in its environment, and what is killed is the union of that session, everything that carries the mark,
everything descended from either, and the strays this process adopted meanwhile (where there is no ``/proc`` only the group
is killed). The mark names the state directory, so the next process to own that finds what a killed one left running. A
process that leaves the session, empties its environment *and* outlives both its parent and this process escapes; only a
container can hold that one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, TypeVar

import structlog

from sidecar.runs.account import Account, as_account
from sidecar.runs.children import CHILDREN, JOB_VARIABLE
from sidecar.runs.clock import boot_ticks
from sidecar.runs.sweep import Members, Process, Swept, carries, kill_all, look, reap

log = structlog.get_logger(__name__)

T = TypeVar("T")

GRACE_S = 2.0
"""Between SIGTERM and SIGKILL: git uses it to remove its lock files."""
DRAIN_S = 1.0
"""How long output is awaited after the last known process is gone (an escaped one may hold the pipe)."""
SWEEP_S = 10.0
"""How long a sweep tries to get rid of everything."""

_owner = ""


def owned_by(state_dir: Path) -> Swept:
    """Mark every later command as this state directory's, and kill those that an earlier process left running.

    The caller holds the directory's lock: nobody else can be starting such commands. Blocks up to :data:`SWEEP_S`.
    """
    global _owner  # noqa: PLW0603  a process owns one state directory
    place = state_dir.stat()
    _owner = f"{place.st_dev:x}-{place.st_ino:x}"
    mark, spared = f"[{_owner}:".encode(), _ancestry()

    def left_over(table: list[Process]) -> Iterable[Process]:
        return (process for process in table if process.pid not in spared and carries(process.pid, mark))

    return kill_all(Members(left_over).find, within_s=SWEEP_S)


def _ancestry() -> set[int]:
    """Pids of this process and of those above it, which may themselves have been started by such a command."""
    pid, found = os.getpid(), set[int]()
    while pid and pid not in found and (process := look(pid)) is not None:
        found.add(pid)
        pid = process.parent
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a command ended. ``returncode`` is negative when a signal ended it; output is the tail that was kept."""

    returncode: int
    timed_out: bool
    output: bytes
    errors: bytes
    truncated: bool
    duration_ms: int


async def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout_s: float,
    cwd: Path | None = None,
    stdin: bytes | IO[bytes] = b"",
    stdout: IO[bytes] | None = None,
    merge: bool = False,
    keep_bytes: int = 64 * 1024,
    sweep: bool = True,
    account: Account | None = None,
) -> Finished:
    """Run ``argv`` (never a shell line) and wait for it.

    At the timeout, and when the caller is cancelled, everything the command started is dead before this returns. ``sweep``
    does the same after an ordinary end, so that no background child lives on. ``stdout`` is a file to write to instead of
    capturing; ``merge`` sends standard error into the captured output. Of each stream the last ``keep_bytes`` are kept.
    ``account``: whom the command runs as, if not as this process.

    Raises OSError when the command cannot be started.
    """
    mark = f"[{_owner}:{secrets.token_hex(8)}]"
    began = time.monotonic()
    since = boot_ticks()
    # Marks add up: a run inside a run is found by the outer one too.
    command, environment = as_account(account, argv, {**env, JOB_VARIABLE: os.environ.get(JOB_VARIABLE, "") + mark})
    with contextlib.ExitStack() as open_files:
        source = open_files.enter_context(_as_file(stdin)) if isinstance(stdin, bytes) else stdin
        output = open_files.enter_context(_Tail(keep_bytes, account))
        errors = output if merge else open_files.enter_context(_Tail(keep_bytes, account))

        async def start() -> asyncio.subprocess.Process:
            with CHILDREN.starting():
                started = await asyncio.create_subprocess_exec(
                    *command,
                    env=environment,
                    cwd=cwd,
                    stdin=source,
                    stdout=output.writer if stdout is None else stdout,
                    stderr=errors.writer,
                    start_new_session=True,
                )
                CHILDREN.register(started.pid, since if sweep else None)
            return started

        # A cancelled start would kill the command alone, which may have children already.
        process, cancelled = await _insist(start(), "start-of-process")
        output.started()
        errors.started()
        timed_out = False
        try:
            if cancelled is not None:
                raise cancelled
            async with asyncio.timeout(timeout_s):
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            again = None
            if process.returncode is None or sweep:
                _, again = await _insist(_end(process, mark, since), "end-of-process")
            CHILDREN.forget(process.pid)
            if again is not None:
                raise again
        await output.drained()
        await errors.drained()
        return Finished(
            returncode=process.returncode if process.returncode is not None else -signal.SIGKILL,
            timed_out=timed_out,
            output=bytes(output.kept),
            errors=b"" if merge else bytes(errors.kept),
            truncated=output.truncated or errors.truncated,
            duration_ms=int((time.monotonic() - began) * 1000),
        )


class _Tail:
    """The last bytes of one stream, read through a pipe of our own.

    asyncio's pipes belong to the process transport and end only with the last writer; this one is closed when *we* are done.
    """

    def __init__(self, limit_bytes: int, account: Account | None) -> None:
        self.kept = bytearray()
        self.truncated = False
        self._limit_bytes = limit_bytes
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._reader, self.writer = os.pipe()
        if account is not None:  # or the command could not open its own /dev/stderr
            os.fchown(self.writer, account.uid, account.gid)
        os.set_blocking(self._reader, False)
        self._loop.add_reader(self._reader, self._read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.started()
        self._finish()
        os.close(self._reader)

    def started(self) -> None:
        """The child has its copy of the writing end; ours must go, or the end of the stream never comes."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    async def drained(self) -> None:
        """Wait for the end of the stream, but not for an escaped process that keeps it open."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._ended.wait()

    def _read(self) -> None:
        try:
            chunk = os.read(self._reader, 65_536)
        except BlockingIOError:
            return
        if not chunk:
            self._finish()
            return
        self.kept += chunk
        if len(self.kept) > self._limit_bytes:
            self.truncated = True
            del self.kept[: -self._limit_bytes]

    def _finish(self) -> None:
        self._loop.remove_reader(self._reader)
        self._ended.set()


def _as_file(data: bytes) -> IO[bytes]:
    """Input as an unlinked file: the child reads at its own pace and nobody can deadlock on a full pipe."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  closed by the caller's exit stack
    file.write(data)
    file.seek(0)
    return file


async def _insist(work: Coroutine[Any, Any, T], name: str) -> tuple[T, asyncio.CancelledError | None]:
    """Finish ``work`` though the caller is cancelled meanwhile; the cancellation is returned for the caller to raise."""
    task = asyncio.create_task(work, name=name)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as fault:
            cancelled = fault
    if cancelled is not None and task.exception() is not None:
        raise cancelled
    return task.result(), cancelled


async def _end(process: asyncio.subprocess.Process, mark: str, since: int) -> None:
    job = _Job(process.pid, mark.encode(), since)
    members = Members(job.picked, since)
    if process.returncode is None:
        # Before anything dies: an orphan's descent is forgotten with its parent.
        await asyncio.to_thread(members.find)
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await process.wait()
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGKILL)
    swept = await asyncio.to_thread(kill_all, members.find, near=job.near, collect=job.collect, within_s=SWEEP_S)
    if swept.survivors:
        log.warning("processes_survive", command=process.pid, pids=[survivor.pid for survivor in swept.survivors])
    await process.wait()


def _signal_group(leader: int, signum: int) -> None:
    """Only while the leader is not reaped: its number cannot have been given to another group yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signum)


@dataclass(frozen=True, slots=True)
class _Job:
    """What belongs to one command: its session, those that carry its mark, and strays that no other command may own."""

    root: int
    mark: bytes
    since: int

    def picked(self, table: list[Process]) -> list[Process]:
        """Those of the process table."""
        strays = CHILDREN.strays(self.since, ended=self.root)
        return [
            process
            for process in table
            if process.pid in strays or self.root in (process.pid, _session(process.pid)) or carries(process.pid, self.mark)
        ]

    def near(self) -> list[int]:
        """Those that were adopted already."""
        return [pid for pid in CHILDREN.adopted() if carries(pid, self.mark)]

    def collect(self, pid: int) -> None:
        """Orphans are ours to collect when we are a subreaper; the command itself belongs to asyncio's watcher."""
        if pid != self.root:
            reap(pid)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0
