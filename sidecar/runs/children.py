"""The children of this process: those it started itself, and those it adopted when their parents died.

A sidecar is a subreaper, so whatever escapes from a check, or outlives a shim, becomes its child. Its own children are
registered here by whoever starts them; any other child is adopted: collected when it dies, and a stray when it lives
without a mark. The registry is read from threads and written on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator

from sidecar.runs import sweep

JOB_VARIABLE = "AGENTCOM_JOB"
"""Environment variable by which the processes of one command are found, also after the death of who started it."""
START_S = 10.0
"""How long a look waits for a child that is just being started; then it sees no adopted children at all."""
PACE_S = 0.05
"""Between two rounds of collecting the dead, so that a storm of deaths costs rounds, not all of a core."""


class Children:
    """The registry. Until :meth:`adopt` no child counts as adopted, so a host process's other children are left alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._starting = 0
        self._own: dict[int, int | None] = {}
        self._adopting = False

    def adopt(self) -> None:
        """From now on this process adopts what its descendants leave behind, and every child not registered is adopted."""
        self._adopting = sweep.become_subreaper()

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Around the start of a child and its registration: between the two it would look adopted."""
        with self._changed:
            self._starting += 1
        try:
            yield
        finally:
            with self._changed:
                self._starting -= 1
                self._changed.notify_all()

    def register(self, pid: int, sweeps_since: int | None = None) -> None:
        """A child of ours. ``sweeps_since``: when it began (clock ticks), if strays are looked for at its end."""
        with self._changed:
            self._own[pid] = sweeps_since

    def forget(self, pid: int) -> None:
        """It has been collected; not before, or its status is taken by :meth:`collect`."""
        with self._changed:
            self._own.pop(pid, None)

    def adopted(self) -> list[int]:
        """Children that nobody here started."""
        if not self._adopting:
            return []
        pids = sweep.children()  # before the registry is read: what is in this list and ours is registered by then
        with self._changed:
            known = self._changed.wait_for(lambda: not self._starting, START_S)
            return [pid for pid in pids if pid not in self._own] if known else []

    def strays(self, since: int, *, ended: int | None = None) -> set[int]:
        """Adopted children without a mark that started after ``since`` (a marked one is found by its mark).

        Whose they are cannot be known. When the command ``ended`` ends, those are left out that another living command
        may have started, which looks for strays in its turn. When a shim is dead (None) none is: nothing of a run may be
        alive beside its repetition.
        """
        adopted = [process for pid in self.adopted() if (process := sweep.look(pid)) is not None and process.started >= since]
        if not adopted:
            return set()
        with self._changed:
            others = [began for pid, began in self._own.items() if began is not None and pid != ended]
        return {
            process.pid
            for process in adopted
            if (ended is None or all(began > process.started for began in others)) and not _is_marked(process.pid)
        }

    def collect(self) -> int:
        """Reap the adopted children that are dead; answers how many."""
        return sum(sweep.reap(pid) is not None for pid in self.adopted())

    async def keep_collecting(self) -> None:
        """Collect adopted children as they die, until cancelled."""
        loop, died = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGCHLD, died.set)
        died.set()  # one may have died before
        try:
            while True:
                await died.wait()
                died.clear()
                while await asyncio.to_thread(self.collect):
                    pass
                await asyncio.sleep(PACE_S)
        finally:
            loop.remove_signal_handler(signal.SIGCHLD)


def _is_marked(pid: int) -> bool:
    return any(sweep.carries(pid, f"\0{name}=".encode()) for name in (JOB_VARIABLE, sweep.RUN_VARIABLE))


CHILDREN = Children()
"""Those of this process."""
