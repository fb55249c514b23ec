"""Finding and killing every process of a run. Standard library only and cheap to import: the shim uses it.

Killing a process group is not enough: agents start their tools in sessions of their own. The processes of a run are
therefore found in two ways: by descent (a subreaper adopts orphans, so they stay below it) and by a mark in their
environment (which works when the adopter is dead and its orphans went elsewhere). Linux reads both from /proc; on other
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
_PR_GET_CHILD_SUBREAPER = 37
_SPRINT = 500  # looks at our own children between two looks at the whole table


class Process(NamedTuple):
    """One process. ``started`` (clock ticks after boot) tells it from a later one with the same pid."""

    pid: int
    parent: int
    state: str
    started: int


def become_subreaper() -> bool:
    """Adopt orphaned descendants instead of losing them to init. False where the system cannot."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def can_adopt() -> bool:
    """Whether :func:`become_subreaper` would work; asking changes nothing."""
    answer = ctypes.c_int()
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


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


def children() -> list[int]:
    """Pids of this process's children, dead ones included; much faster than :func:`processes` where the kernel lists them."""
    try:
        lists = [(task / "children").read_text() for task in (_PROC / "self" / "task").iterdir()]
    except OSError:
        return [process.pid for process in processes() if process.parent == os.getpid()]
    return [int(pid) for pids in lists for pid in pids.split()]


def carries(pid: int, words: bytes) -> bool:
    """Whether the environment that ``pid`` was started with contains ``words``."""
    try:
        return words in b"\0" + (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False


def run_mark(run: str) -> bytes:
    """What :func:`carries` finds in the processes of a run."""
    return f"\0{RUN_VARIABLE}={run}\0".encode()


def marked(run: str, among: Iterable[Process]) -> list[Process]:
    """Processes whose environment says that they belong to the run."""
    return [process for process in among if carries(process.pid, run_mark(run))]


class Members:
    """The processes of one run: those that ``picked`` chooses from the table, and their descendants; once found, for ever.

    What started before the run (``since``, in clock ticks after boot) cannot be part of it: neither need it be looked at,
    nor can a reused number be mistaken for it.
    """

    def __init__(self, picked: Callable[[list[Process]], Iterable[Process]], since: int = 0) -> None:
        self._picked = picked
        self._since = since
        self._known: set[tuple[int, int]] = set()

    def find(self) -> list[Process]:
        """Those that are in the process table now."""
        table = [process for process in processes() if process.started >= self._since]
        found = {process.pid: process for process in self._picked(table)}
        found.update((process.pid, process) for process in table if (process.pid, process.started) in self._known)
        for member in list(found.values()):
            found.update((process.pid, process) for process in descendants(member.pid, table))
        self._known.update((process.pid, process.started) for process in found.values())
        return list(found.values())


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


class Swept(NamedTuple):
    """What a sweep did: how many it killed, and who was still there when its time was up (nobody, as a rule)."""

    killed: int
    survivors: tuple[Process, ...] = ()


def kill_all(
    find: Callable[[], Iterable[Process]],
    *,
    near: Callable[[], Iterable[int]] | None = None,
    collect: Callable[[int], object] | None = None,
    within_s: float = 5.0,
) -> Swept:
    """Kill what ``find`` returns, until it returns only the dead.

    Everything is stopped before anything is killed: what is stopped neither forks nor leaves orphans whose descent is
    forgotten, so the look that finds nobody new has found all. A chain of processes that each live shorter than a look is
    outrun over ``near``: adopted children that are to die, killed by number as fast as they come (nobody else can get the
    number of an unreaped child). What died is given to ``collect`` (default :func:`reap`), so no zombies of ours stay.
    """
    collect = collect or reap
    held: dict[tuple[int, int], Process] = {}
    outrun: set[int] = set()
    give_up = time.monotonic() + within_s
    while True:
        if near is not None:
            outrun |= _outrun(near, collect)
        alive = [process for process in find() if process.state not in "ZX"]
        fresh = [process for process in alive if (process.pid, process.started) not in held]
        for process in fresh:
            kill(process, signal.SIGSTOP)
            held[process.pid, process.started] = process
        late = time.monotonic() >= give_up
        if fresh and not late:
            continue
        # A dying process loses its environment before it can be reaped: what was killed is remembered, not found again.
        dying = [process for process in held.values() if _is_there(process)]
        for process in dying:
            kill(process)
            collect(process.pid)
        if late or not (alive or dying):
            remain = {process.pid: process for process in (*alive, *dying) if _is_there(process)}
            return Swept(len({*outrun, *(pid for pid, _ in held)}), tuple(remain.values()))
        time.sleep(0.002)


def _outrun(near: Callable[[], Iterable[int]], collect: Callable[[int], object]) -> set[int]:
    killed: set[int] = set()
    for _ in range(_SPRINT):
        pids = list(near())
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            collect(pid)
        killed.update(pids)
    return killed


def kill_run(run: str) -> Swept:
    """Kill every process that carries the run's mark."""
    return kill_all(Members(lambda table: marked(run, table)).find)


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
