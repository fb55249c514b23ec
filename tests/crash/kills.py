"""The ways to die, and how long it takes until nobody notices any more."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hub.client import HubClient
from hub.client.errors import HubProblem, HubUnreachable
from tests.crash.client import Client, now_us
from tests.crash.world import Shim, World

RECOVERY_LIMIT_S = 90.0
STIMULUS_S = 1.0
FATAL = frozenset(
    {"hub.commit.after", "sidecar.fsync.before", "sidecar.fsync.after", "sidecar.rewrite.before", "sidecar.rename.before"}
)
"""Faults that end their process, in order: what it remembers may not be what the disk has."""


@dataclass(slots=True)
class Kill:
    """One strike: which sidecars it hit (by itself, a shim or an agent), whether the hub, and when all was well again.

    ``ends_runs``: it hit agents or the shims that own them, so what these sidecars ran may have been lost. ``alone``: hub and sidecars
    keep their connections.
    """

    kind: str
    at_us: int
    processes: int
    sidecars: frozenset[str] = frozenset()
    hub: bool = False
    ends_runs: bool = False
    alone: bool = False
    recovered_s: float | None = None


@dataclass(slots=True)
class Reaper:
    """Kills parts of a world under the load of a client. ``kills`` is the record of everything that was done to it.

    ``until``, on the monotonic clock, is when it had better stop.
    """

    world: World
    client: Client
    chance: random.Random
    until: float = math.inf
    kills: list[Kill] = field(default_factory=list)
    _seen: list[str] = field(default_factory=list)
    """What the log of the failpoints said so far."""

    @property
    def is_late(self) -> bool:
        """Whether it is time to stop."""
        return time.monotonic() >= self.until

    # ── ways to die ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def random_kill(self) -> None:
        """One of the kinds below, at a random moment."""
        kinds: Mapping[Callable[[], Awaitable[Kill | None]], int] = {
            self.kill_hub: 28,
            self.kill_sidecar: 28,
            self.kill_shim: 18,
            self.kill_agent: 8,
            self.kill_machine: 8,
            self.kill_hub_and_sidecar: 6,
            self.kill_everything: 4,
        }
        await asyncio.sleep(self.chance.uniform(0.0, 0.4))
        [way] = self.chance.choices(list(kinds), list(kinds.values()))
        kill = await way()
        if kill is not None:
            await self.recover(kill)

    async def kill_hub(self) -> Kill:
        kill = self._kill("hub", 1, hub=True)
        await self.world.strike("hub")
        await asyncio.sleep(self.chance.choice((0.0, self.chance.uniform(0.0, 0.5))))
        return kill

    async def kill_sidecar(self) -> Kill:
        name = self.chance.choice(self.world.names)
        kill = self._kill("sidecar", 1, name)
        await self.world.strike(name)
        await asyncio.sleep(self.chance.choice((0.0, self.chance.uniform(0.0, 0.5))))
        return kill

    async def kill_hub_and_sidecar(self) -> Kill:
        name = self.chance.choice(self.world.names)
        kill = self._kill("hub and sidecar", 2, name, hub=True)
        await self.world.strike("hub", name)
        return kill

    async def kill_shim(self) -> Kill | None:
        shims = self.world.living_shims()
        if not shims:
            return None
        shim = self.chance.choice(shims)
        kill = self._kill("shim", 1, shim.sidecar, ends_runs=True, alone=True)
        _end(shim.pid)
        return kill

    async def kill_agent(self) -> Kill | None:
        shims = self.world.living_shims()
        pids = self.world.agent_pids(shims)
        if not pids:
            return None
        pid = self.chance.choice(pids)
        runs = {(note.task, note.epoch) for note in self.world.account() if note.pid == pid}
        [sidecar] = {shim.sidecar for shim in shims if (shim.task, shim.epoch) in runs} or {""}
        kill = self._kill("agent", 1, sidecar, ends_runs=True, alone=True)
        _end(pid)
        return kill

    async def kill_machine(self) -> Kill:
        """A sidecar with everything that runs under it, as a power cord would."""
        name = self.chance.choice(self.world.names)
        return await self._cut_off("machine", [name], hub=False)

    async def kill_everything(self) -> Kill:
        """Every process there is."""
        return await self._cut_off("everything", self.world.names, hub=True)

    async def _cut_off(self, kind: str, names: list[str], *, hub: bool) -> Kill:
        shims = [shim for shim in self.world.living_shims() if shim.sidecar in names]
        agents = self.world.agent_pids(shims)
        kill = self._kill(kind, len(names) + hub + len(shims) + len(agents), *names, hub=hub, ends_runs=True)
        for pid in [*(shim.pid for shim in shims), *agents]:
            _end(pid)
        await self.world.strike(*names, *(["hub"] if hub else []))
        return kill

    def _kill(self, kind: str, processes: int, *sidecars: str, **more: bool) -> Kill:
        kill = Kill(kind, now_us(), processes, frozenset(sidecars), **more)
        self.kills.append(kill)
        return kill

    # ── getting well ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def recover(self, kill: Kill) -> None:
        """Start what is dead, and wait: the hub serves, every agent has a session of after the kill, and the queue moves."""
        before, began = self.client.moves, time.monotonic()
        late_s = (now_us() - kill.at_us) / 1e6
        await self.world.revive()
        since = dict.fromkeys(self.world.names if kill.hub else kill.sidecars, 0 if kill.alone else kill.at_us)
        until = began + RECOVERY_LIMIT_S
        async with HubClient(self.world.url, self.world.admin_token, timeout_s=5) as hub:
            while not (await self._reconciled(hub, since) and self.client.moves > before):
                assert time.monotonic() < until, f"not well {RECOVERY_LIMIT_S:g} s after {kill}"
                await asyncio.sleep(0.1)
                await self.world.revive()
        kill.recovered_s = late_s + time.monotonic() - began

    async def _reconciled(self, hub: HubClient, since: dict[str, int]) -> bool:
        with suppress(HubUnreachable, HubProblem):
            return await self.world.reconciled(hub, since)
        return False

    # ── failpoints ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    def arm(self, action: str, names: frozenset[str]) -> None:
        """What starts from now on dies or fails at these points."""
        self.world.arm(action, names)
        self._seen = []

    async def open_at_failpoints(self) -> None:
        """Open the world, dying at every armed point that a first start reaches."""
        while not self.world.token.exists():
            self.world.token.touch()
            await self.world.try_hub()
            self._points_struck()
        self.world.token.unlink()
        await self.world.open()

    async def at_failpoints(self, patience_s: float, tell: Callable[[str], None]) -> None:
        """Die at the points of the armed world, one after the other, until all have been reached or none is any more."""
        stimuli: tuple[Callable[[], Awaitable[Kill | None]], ...] = (
            *(self._restart_hub, self._restart_sidecar, self._end_a_shim, self.kill_shim),
            *(self.kill_agent, self._restart_sidecar, self.kill_machine, self.kill_hub),
        )
        turn, idle = itertools.cycle(stimuli), 0
        while len(self.world.points_hit()) < len(self.world.armed) and idle < len(stimuli) + 2 and not self.is_late:
            self.world.token.touch()
            if not await self._point_reached(patience_s):
                done = await next(turn)()
                idle += 1
                await self._point_reached(STIMULUS_S)
                if done is not None:
                    await self.recover(done)
                    done.recovered_s = None  # it was left lying there, and its start may have been died through
            if struck := self._points_struck():
                idle = 0
                await self.recover(struck[-1])
            tell(f"{len(self.world.points_hit())} points reached{f', {idle} times none' if idle else ''}")
        self.world.token.unlink(missing_ok=True)

    async def _point_reached(self, within_s: float) -> bool:
        count, until = len(self._seen), time.monotonic() + within_s
        while time.monotonic() < until:
            if len(self.world.points_hit()) > count:
                return True
            await asyncio.sleep(0.02)
        return False

    def _points_struck(self) -> list[Kill]:
        """The record of what happened at failpoints since the last look."""
        lines = self.world.failpoint_log.read_text("utf-8").splitlines() if self.world.failpoint_log.exists() else []
        struck = [self._struck(*line.split()) for line in lines[len(self._seen) :]]
        self._seen = lines
        return struck

    def _struck(self, name: str, action: str, pid: str, at_us: str, last: str) -> Kill:
        failed, in_shim = action == "error", name.startswith("shim.")
        who = self.world.shim_of(int(pid), last).sidecar if in_shim else Path(last).parent.name
        hub = name.startswith("hub.")
        kill = self._kill(
            f"{'error' if failed else 'at'} {name}",
            0 if failed else 1,
            *([] if hub else [who]),
            hub=hub,
            ends_runs=in_shim or (failed and not hub),
            alone=in_shim or (failed and name not in FATAL),
        )
        kill.at_us = int(at_us)
        return kill

    async def _restart_hub(self) -> Kill:
        kill = self._kill("hub, by SIGTERM", 1, hub=True)
        await self.world.strike("hub", signum=signal.SIGTERM)
        return kill

    async def _restart_sidecar(self) -> Kill:
        name = self.chance.choice(self.world.names)
        kill = self._kill("sidecar, by SIGTERM", 1, name)
        await self.world.strike(name, signum=signal.SIGTERM)
        return kill

    async def _end_a_shim(self) -> Kill | None:
        shims = self.world.living_shims()
        if not shims:
            return None
        shim: Shim = self.chance.choice(shims)
        with suppress(ProcessLookupError):
            os.kill(shim.pid, signal.SIGTERM)
        return self._kill("shim, by SIGTERM", 1, shim.sidecar, ends_runs=True, alone=True)


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
