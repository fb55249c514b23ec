"""Virtual time: one heap of things that will happen, one seeded source of chance, one trace.

A *step* is one thing that happens to one host: a frame arrives, a disk write ends, a timer fires, a person acts, a fault begins or
ends. Nothing happens between steps, and nothing in here knows what any of it means. The same seed gives the same steps: ties in time
are broken by the order in which they were scheduled, and no clock, hash or address takes part.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from random import Random
from typing import Any

TRACE_LINES = 40
SECOND = 1_000_000


class Host:
    """Something that can be stopped: a process, or a machine's shim. A crash begins a new life; a pause only delays."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.life = 0
        self.pauses = 0
        self.missed: list[tuple[int, Callable[[], None]]] = []

    def die(self) -> None:
        """Whatever was to happen to it does not."""
        self.life += 1
        self.missed.clear()

    @property
    def paused(self) -> bool:
        return self.pauses > 0


class Signal:
    """What a process can wait for."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Process, int]] = []

    def fire(self) -> None:
        """Everybody who waits goes on, each in a step of its own."""
        waiting, self.waiting = self.waiting, []
        for process, turn in waiting:
            process.timeline.after(0, lambda process=process, turn=turn: process.resume(turn), process.host)

    def __await__(self) -> Generator[Any, Any, None]:
        yield self


class Pause:
    """So long."""

    def __init__(self, us: int) -> None:
        self.us = us

    def __await__(self) -> Generator[Any, Any, None]:
        yield self.us


class Either:
    """Until the signal, but not longer than that."""

    def __init__(self, signal: Signal, us: int) -> None:
        self.signal, self.us = signal, us

    def __await__(self) -> Generator[Any, Any, None]:
        yield self.signal, self.us


class Process:
    """A coroutine on a host. It may await a :class:`Signal`, a :class:`Pause` or :class:`Either`; it dies with its host."""

    def __init__(self, timeline: Timeline, host: Host | None, make: Callable[[], Any]) -> None:
        self.timeline, self.host, self.make = timeline, host, make
        self.life = host.life if host is not None else 0
        self.body: Any = None
        self.turn = 0
        self.over = False

    def resume(self, turn: int) -> None:
        """Go on, if nothing else made it go on before."""
        if turn != self.turn or self.over or (self.host is not None and self.host.life != self.life):
            return
        self.turn += 1
        if self.body is None:
            self.body = self.make()
        try:
            wait = self.body.send(None)
        except StopIteration:
            self.over = True
            return
        signal, us = wait if isinstance(wait, tuple) else (wait, None) if isinstance(wait, Signal) else (None, wait)
        turn = self.turn
        if signal is not None:
            signal.waiting.append((self, turn))
        if us is not None:
            self.timeline.after(us, lambda: self.resume(turn), self.host)

    def cancel(self) -> None:
        """It does not go on."""
        self.over = True
        if self.body is not None:
            self.body.close()


class Timeline:
    """The world's clock (microseconds of true time), its dice and its memory of what happened."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0
        self.steps = 0
        self.dice = Random(f"simulation {seed}")
        self.seen: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self.echo: Callable[[str], None] | None = None
        self._digest = hashlib.blake2b(digest_size=8)
        self._heap: list[tuple[int, int, Host | None, int, Callable[[], None]]] = []
        self._seq = 0
        self._processes: list[Process] = []

    # ── what will happen ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def at(self, when: int, act: Callable[[], None], host: Host | None = None) -> None:
        """Do this at that time, unless the host dies before; while it is paused it waits."""
        self._seq += 1
        heappush(self._heap, (max(when, self.now), self._seq, host, host.life if host is not None else 0, act))

    def after(self, us: int, act: Callable[[], None], host: Host | None = None) -> None:
        """Do this so much later."""
        self.at(self.now + us, act, host)

    def spawn(self, host: Host | None, make: Callable[[], Any]) -> Process:
        """Start the process of a coroutine function; its first part is a step of its own."""
        process = Process(self, host, make)
        self._processes.append(process)
        self.after(0, lambda: process.resume(0), host)
        return process

    def end(self) -> None:
        """Close whatever was left in the middle, from the outside in."""
        for process in self._processes:
            process.cancel()

    def pause(self, host: Host) -> None:
        """It stands still; what happens to it meanwhile happens afterwards, in order."""
        host.pauses += 1

    def go_on(self, host: Host) -> None:
        """The end of one pause."""
        host.pauses -= 1
        if not host.paused:
            missed, host.missed = host.missed, []
            for seq, act in missed:
                heappush(self._heap, (self.now, seq, host, host.life, act))

    def step(self) -> bool:
        """Let the next thing happen; False when nothing will ever happen again."""
        while self._heap:
            when, seq, host, life, act = heappop(self._heap)
            if host is not None and host.life != life:
                continue
            self.now = when
            if host is not None and host.paused:
                host.missed.append((seq, act))
                continue
            self.steps += 1
            act()
            return True
        return False

    # ── chance ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def chance(self, probability: float) -> bool:
        return self.dice.random() < probability

    def span(self, low_s: float, high_s: float) -> int:
        """A duration between two numbers of seconds, short ones more often, in microseconds."""
        return int(SECOND * low_s * (high_s / low_s) ** self.dice.random())

    # ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def note(self, kind: str, text: str = "") -> None:
        """Something worth counting happened; ``text`` tells more about it in the trace."""
        self.seen[kind] += 1
        line = f"{self.steps:>6} {self.now / SECOND:>10.3f}s  {kind}  {text}"
        self._digest.update(line.encode())
        self.trace.append(line)
        if self.echo is not None:
            self.echo(line)

    @property
    def digest(self) -> str:
        """A print of the whole trace."""
        return self._digest.hexdigest()
