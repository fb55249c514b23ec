"""Finding and killing every process of a run. Standard library only and cheap to import: the shim uses it.

Killing a process group is not enough: agents start their tools in sessions of their own. A run's processes are therefore
found in two ways: as descendants of its shim (a subreaper, so orphans stay below it), and by ``AGENTCOM_RUN`` in their
environment (which works when the shim is dead and its orphans went elsewhere). Linux reads both from /proc; on other
systems nothing is found, which the documentation says.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

RUN_VARIABLE = "AGENTCOM_RUN"
"""Environment variable that marks every process of a run with the path of its run directory."""

_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Process(NamedTuple):
    """One process. ``started`` (clock ticks after boot) tells it from a later one with the same pid."""

    pid: int
    parent: int
    state: str
    started: int


def become_subreaper() -> bool:
    """Adopt orphaned descendants instead of losing them to init. False where the system cannot."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """To be called in a fresh child: the kernel kills it when the thread that made it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def processes() -> list[Process]:
    """Every process of the machine that can be seen; empty without /proc."""
    try:
        pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    except OSError:
        return []
    return [process for pid in pids if (process := look(pid)) is not None]


def look(pid: int) -> Process | None:
    """The process ``pid`` as it is now, or None."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The command's name, in parentheses, may contain anything: fields are counted from its last parenthesis.
    fields = text[text.rfind(")") + 2 :].split()
    return Process(pid, int(fields[1]), fields[0], int(fields[19]))


def descendants(root: int, among: Iterable[Process]) -> list[Process]:
    """Processes below ``root`` (itself excluded)."""
    children: dict[int, list[Process]] = {}
    for process in among:
        children.setdefault(process.parent, []).append(process)
    found, frontier = [], [root]
    while frontier:
        below = children.pop(frontier.pop(), [])
        found += below
        frontier += [process.pid for process in below]
    return found


def marked(run: str, among: Iterable[Process]) -> list[Process]:
    """Processes whose environment says that they belong to the run."""
    mark = f"{RUN_VARIABLE}={run}".encode()
    found = []
    for process in among:
        with contextlib.suppress(OSError):
            if mark in (_PROC / str(process.pid) / "environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


def kill(process: Process, signum: int = signal.SIGKILL) -> None:
    """Signal exactly this process: a reused pid is recognised by its start time and spared."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        now = look(process.pid)
        if now is not None and now.started == process.started:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(handle, signum)
    finally:
        os.close(handle)


def kill_all(
    find: Callable[[], Iterable[Process]],
    *,
    collect: Callable[[int], object] | None = None,
    within_s: float = 5.0,
) -> int:
    """SIGKILL what ``find`` returns, again and again until it returns only the dead; answers how many were killed.

    Each round gives what died to ``collect`` (default :func:`reap`), so zombies of ours go away. A process that forks
    between look and kill is found in the next round: the child inherits both the mark and an ancestor that adopts it.
    """
    killed: dict[int, Process] = {}
    give_up = time.monotonic() + within_s
    while True:
        alive = [process for process in find() if process.state not in "ZX"]
        for process in alive:
            kill(process)
            killed[process.pid] = process
        # A dying process loses its environment before it can be reaped: what was killed is remembered, not found again.
        dying = [process for process in killed.values() if _is_there(process)]
        for process in dying:
            (collect or reap)(process.pid)
        if not (alive or dying) or time.monotonic() >= give_up:
            return len(killed)
        time.sleep(0.002)


def kill_run(run: str) -> int:
    """Kill every process that carries the run's mark; answers how many."""
    return kill_all(lambda: marked(run, processes()))


def reap(pid: int) -> int | None:
    """Collect ``pid`` if it is a dead child of ours; its wait status, or None."""
    try:
        gone, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return status if gone else None


def _is_there(process: Process) -> bool:
    """Whether it lives, or is a zombie that we have to collect (another parent's zombie is none of ours)."""
    now = look(process.pid)
    if now is None or now.started != process.started:
        return False
    return now.state not in "ZX" or now.parent == os.getpid()


def _prctl(option: int, value: int) -> bool:
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False
