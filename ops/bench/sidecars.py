"""Real sidecars without processes: the product's agent, holder, link and backoff; runs that are timers instead of shims.

What a task's run does is in its metadata, ``{"bench": {"s": seconds, "end": "succeed" | "fail" | "hang"}}``. A journal that is not on a
disk makes a thousand of them possible in one process; runs outlive their sidecar, as shims do. :attr:`Site.starts` counts how often
an agent was really started, by task and lease epoch: nothing that a hub or a network does may make it more than one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from hub.wire import frames
from hub.wire.spec import Spec
from sidecar.agent import Agent
from sidecar.backoff import FIRST_S, Reconnect
from sidecar.core.holder import Holder
from sidecar.core.records import JournalRecord, Key, Removed
from sidecar.link import SUBPROTOCOL, Link
from sidecar.runs.clock import boot_us
from sidecar.runs.runner import Deadline, Order
from sidecar.runtimes.base import Launch, RunEnd, RunSpec
from sidecar.work import Tools
from sidecar.workspace.workspaces import Workspace, WorkState

NOWHERE = Path("/nowhere")
"""Where work without a repository and without processes takes place."""


class MemoryJournal:
    """``sidecar.journal.Journal`` for sidecars that are never killed with their process."""

    def __init__(self) -> None:
        self._live: dict[Key, list[JournalRecord]] = {}

    @property
    def records(self) -> Iterator[JournalRecord]:
        for records in self._live.values():
            yield from records

    def append(self, record: Any) -> None:
        if isinstance(record, Removed):
            self._live.pop(record.key, None)
        else:
            self._live.setdefault(record.key, []).append(record)

    def close(self) -> None:
        """Nothing to close."""


class TimerRun:
    """A run as its sidecar sees it: it ends by itself, when it is asked to, or at its deadline."""

    def __init__(self, launch: Launch, deadline: Deadline) -> None:
        seconds, self.end = launch.argv
        self._ends_us = boot_us() + int(float(seconds) * 1e6)
        self._soft_us = deadline.soft_us
        self._stopped: str | None = None
        self._changed = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether its agent has ended, looked at or not."""
        return self._stopped is not None or boot_us() >= min(self._ends_us, self._soft_us)

    def extend(self, deadline: Deadline) -> None:
        self._soft_us = max(self._soft_us, deadline.soft_us)

    def stop(self, _grace_ms: int) -> None:
        self._stopped = self._stopped or "stop"
        self._changed.set()

    def close(self) -> None:
        """A run does not notice who looks at it."""

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """The terminal event alone."""
        while self._stopped is None:
            wait_us = min(self._ends_us, self._soft_us) - boot_us()
            if wait_us <= 0:
                break
            try:
                async with asyncio.timeout(wait_us / 1e6):
                    await self._changed.wait()
            except TimeoutError:
                pass
        if self._stopped is None and boot_us() < self._ends_us:
            self._stopped = "deadline"
        yield {"exit": 0, "signal": None, "stopped": self._stopped, "end": self.end}


@dataclass
class Site:
    """Where many agents run: what outlives their sidecars, and the account of what really ran."""

    prepare_s: float = 0.0
    """How long it takes until a workspace is there."""
    starts: Counter[tuple[int, int]] = field(default_factory=Counter)
    overlaps: int = 0
    """Runs that began while another of the same task was alive."""
    runs: dict[str, TimerRun] = field(default_factory=dict)
    assigned: Callable[[int, int], None] = lambda _task, _at_ns: None
    """Called with each offer and the moment it arrived, in monotonic nanoseconds."""

    # ── sidecar.runs.runner.Runner ──

    async def start(self, run_id: str, order: Order, deadline: Deadline) -> TimerRun:
        task, epoch, _round = run_id.split("-")
        self.starts[int(task), int(epoch)] += 1
        self.overlaps += any(name.startswith(f"{task}-") and not run.over for name, run in self.runs.items())
        self.runs[run_id] = run = TimerRun(order.launch, deadline)
        return run

    def attach(self, run_id: str) -> TimerRun:
        return self.runs[run_id]

    async def stop_strangers(self, _mine: set[str]) -> list[str]:
        return []  # one site has the runs of many agents

    async def forget(self, key: Key) -> None:
        self.runs.pop(f"{key.task}-{key.lease_epoch}-0", None)

    async def close(self) -> None:
        """Runs live on."""

    # ── sidecar.workspace.workspaces.Workspaces ──

    async def prepare(self, spec: Spec, agent: str) -> Workspace:
        await asyncio.sleep(self.prepare_s)
        return Workspace(path=NOWHERE, task=spec.task, lease_epoch=spec.lease_epoch, branch="", agent=agent)

    def agent_env(self, _workspace: Workspace) -> dict[str, str]:
        return {}

    async def inspect(self, _workspace: Workspace) -> WorkState | None:
        return None

    async def find(self, _task: int, _epoch: int) -> Workspace | None:
        return None


class BenchRuntime:
    """What the runs of a site mean."""

    name = "bench"
    caps: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()

    def launch(self, run: RunSpec) -> Launch:
        asked = (run.spec.metadata or {}).get("bench", {})
        seconds = 86_400.0 if asked.get("end") == "hang" else asked.get("s", 0.0)
        return Launch(argv=(str(seconds), str(asked.get("end", "succeed"))), env={})

    def reader(self) -> BenchRuntime:
        return self

    def feed(self, _event: Mapping[str, Any]) -> tuple[()]:
        return ()

    def end(self, terminal: Mapping[str, Any], _cwd: Path) -> RunEnd:
        failed = terminal.get("end") == "fail"
        return RunEnd(
            ok=not failed, code="agent_failed" if failed else "", text="done, and this is what there is to say about it"
        )

    def answer(self, _qid: str, text: str) -> str:
        return text


class BenchAgent(Agent):
    """An agent that tells its site of offers, and when the hub welcomed it last."""

    def __init__(self, name: str, site: Site, **parts: Any) -> None:
        self.welcomed_at = 0.0
        """``time.monotonic()`` of the last welcome."""
        self.welcomes = 0
        self.whims: Callable[[], bool] = lambda: False
        """Whether the next offer is declined for no reason."""
        self._site = site
        super().__init__(name, **parts)

    def received(self, frame: frames.FromHub) -> None:
        if isinstance(frame, frames.Assign):
            self._site.assigned(frame.task, time.monotonic_ns())
            if self.holder.current is None and self.whims():
                self._link.send(
                    frames.Decline(re=frame.id, task=frame.task, lease_epoch=frame.lease_epoch, code="rate_limited")
                )
                return
        elif isinstance(frame, frames.Welcome):
            self.welcomed_at, self.welcomes = time.monotonic(), self.welcomes + 1
        super().received(frame)

    def closed(self) -> None:
        self.welcomed_at = 0.0
        super().closed()


def agent(
    name: str, url: str, token: str, site: Site, *, first_s: float = FIRST_S, journal: Any = None, seed: int = 0
) -> BenchAgent:
    """An agent of the hub at ``url`` (``http://…``). ``run`` it; what it does to come back follows the product's rules."""
    hello = frames.Hello(versions=(str(SUBPROTOCOL),), agent_id=name, install_id=f"i-{name}", boot_id="b")
    tools = Tools(
        agent=name,
        workspaces=site,  # type: ignore[arg-type]  # the part of it that work without a repository needs
        runner=site,  # type: ignore[arg-type]
        runtime=BenchRuntime(),  # type: ignore[arg-type]
        environment=lambda **_about: {},
    )
    return BenchAgent(
        name,
        site,
        holder=Holder(hello, runtime="bench"),
        journal=journal or MemoryJournal(),
        tools=tools,
        workspaces=site,
        link=lambda listener: Link(
            f"ws{url.removeprefix('http')}/ws",
            lambda: token,
            agent=name,
            reconnect=Reconnect(Random(f"{seed} {name}"), first_s=first_s),
            listener=listener,
            clock_s=lambda: boot_us() / 1e6,
        ),
    )
