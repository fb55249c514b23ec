"""One agent's sidecar: the real holder and the real journal, driven as :mod:`sidecar.agent` drives them, on a disk that forgets.

The holder hears one event at a time; its effects are done in order, a record first, except those that must not wait for the disk.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.wire import frames
from hub.wire.codes import Close
from sidecar.core import effects as fx
from sidecar.core import records
from sidecar.core.holder import Holder
from sidecar.core.records import Key
from sidecar.journal import Journal, JournalError
from tests.simulation.timeline import Host, Pause, Signal
from tests.simulation.work import Work

if TYPE_CHECKING:
    from tests.simulation.machine import Machine
    from tests.simulation.network import Connection

HARD_DECLINES = ("no_runtime", "no_workspace", "busy", "rate_limited")


class Sidecar:
    """What survives is the machine's: its disk and its shims. Everything else begins anew with each ``boot``."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine, self.name = machine, name
        self.world = machine.world
        self.timeline = machine.world.timeline
        self.host = Host(name)
        self.path = Path(f"{name}.journal")
        self.boots = 0
        self.running = False
        self.declines_until = 0
        self.lag_us = 0
        """How long the next connection holds up what is sent through it."""

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def boot(self) -> None:
        """The process starts: what the journal remembers is taken up, runs it does not own are stopped."""
        self.boots += 1
        self.host.pauses = 0
        self.running, self.draining = True, False
        self.connection: Connection | None = None
        self.queue: deque[tuple[Any, int]] = deque()
        self.works: dict[Key, Work] = {}
        self.connections = 0
        self.queued, self.ended = Signal(), Signal()
        self.due: int | None = None
        self.code, self.eager = 0, False
        self.timeline.note("sidecar.up", self.name)
        hello = frames.Hello(
            versions=("agentcom.v1",), agent_id=self.name, install_id=self.machine.install_id, boot_id=f"b{self.boots}",
            capabilities=self.machine.capabilities, host=frames.HostFacts(boot=self.machine.boot_name),
        )  # fmt: skip
        try:
            self.journal = Journal(self.path, self.machine.disk)
        except OSError as fault:
            self._fails(fault)
            return
        self.holder = Holder(hello, runtime="mock")
        effects = self.holder.restore(self.journal.records)
        self.machine.stop_strangers(self.name, self.holder.run_ids())
        self._enqueue(effects)
        self.timeline.spawn(self.host, self._perform_in_order)
        self.timeline.spawn(self.host, self._keep_connected)

    def crash(self) -> None:
        """The process dies: what it has not written is gone, its shims and their agents go on."""
        if not self.running:
            return
        self.running = False
        self.timeline.note("sidecar.crash", self.name)
        self.host.die()
        for work in self.works.values():
            work.cancel()
        self.world.network.host_died(self.host)

    def _fails(self, fault: OSError) -> None:
        """The journal cannot be written, so nothing may happen any more: the process ends, and is started again."""
        self.timeline.note("sidecar.journal_fails", f"{self.name} {fault}")
        self.timeline.after(0, self.crash)
        self.machine.restart_later(self)

    def _tear(self, record: records.JournalRecord) -> None:
        """The power fails while a record is being written: some of its bytes may be on the disk, or all of them."""
        self.machine.doomed = False
        if not self.machine.disk.full:
            self.timeline.note("sidecar.torn_write", self.name)
            self.journal._write(self.journal._file, record)

    def give_up_connection(self) -> None:
        """The way to the hub changed under it."""
        if self.running and self.connection is not None:
            self.code, self.eager = 0, True
            self._drop("rerouted")

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def happen(self, event: fx.Happening) -> None:
        """Let the holder decide, and do what it wants."""
        self._enqueue(self.holder.apply(event, self.machine.boot_us()))
        self._arm()

    async def tell(self, event: fx.Happening) -> None:
        """Like :meth:`happen`; returns when everything that follows from it is done."""
        self.happen(event)
        done = Signal()
        self.queue.append((done, self.connections))
        self.queued.fire()
        await done

    def _arm(self) -> None:
        due_us = self.holder.due_us
        if due_us is None or (self.due is not None and self.due <= due_us):
            return
        self.due = due_us

        def tick() -> None:
            if self.due == due_us:
                self.due = None
                self.happen(fx.Tick())

        self.timeline.at(self.machine.when(due_us), tick, self.host)

    def received(self, frame: frames.FromHub) -> None:
        """The hub's frame; an agent in a bad mood declines what it is offered."""
        if isinstance(frame, frames.Assign) and self.timeline.now < self.declines_until:
            code = self.timeline.dice.choice(HARD_DECLINES)
            self.timeline.note("sidecar.declines", f"{self.name} t-{frame.task} {code}")
            if self.holder.holding(Key(frame.task, frame.lease_epoch)) is None and self.connection is not None:
                ids = {"task": frame.task, "lease_epoch": frame.lease_epoch}
                retry_ms = self.timeline.dice.choice((0, 0, 5_000))
                self.connection.to_hub(frames.Decline(e=frame.e, re=frame.id, **ids, code=code, retry_after_ms=retry_ms))
                return
        self.happen(fx.Received(frame))

    def disconnected(self, connection: Connection, code: int, reason: str) -> None:
        """The socket is gone."""
        if connection is self.connection:
            self.timeline.note("sidecar.disconnected", f"{self.name} {code} {reason}")
            self.connection, self.code = None, code
            self.connections += 1
            self.happen(fx.Disconnected())
            self.ended.fire()

    async def _keep_connected(self) -> None:
        """Connect again and again, at the pace of :mod:`sidecar.backoff`."""
        failures = 0
        while True:
            await Pause(self._patience(failures))
            self.connection = self.world.network.connect(self)
            if self.connection is None:
                failures += 1
                continue
            self.connections += 1
            self.happen(fx.Connected())
            began = self.timeline.now
            await self.ended
            failures = 0 if self.timeline.now - began > 20_000_000 else failures + 1

    def _patience(self, failures: int) -> int:
        if self.code == Close.SUPERSEDED:
            return self.timeline.span(10, 30)
        if self.eager or self.timeline.chance(0.25):  # the first reconnect is anywhere in its window
            self.eager = False
            return self.timeline.span(0.001, 0.1)
        return self.timeline.span(0.05, min(8.0, 1.0 * 2**failures))

    # ── what is to be done ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _enqueue(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, fx.IMMEDIATE):
                self._perform(effect)
            else:
                self.queue.append((effect, self.connections))
                self.queued.fire()

    async def _perform_in_order(self) -> None:
        while True:
            while not self.queue:
                await self.queued
            effect, connection = self.queue[0]
            if isinstance(effect, fx.Write):
                await Pause(self.machine.disk_us())
                if self.machine.doomed:
                    self._tear(effect.record)
                    self.timeline.after(0, self.machine.power_cut)
                    return
                if not self._append(effect.record):
                    return
            self.queue.popleft()
            if isinstance(effect, Signal):
                effect.fire()
            elif not isinstance(effect, fx.Write) and (not isinstance(effect, fx.Send) or connection == self.connections):
                self._perform(effect)

    def _append(self, record: records.JournalRecord) -> bool:
        self.world.watch.agents.writes(self, record)
        try:
            self.journal.append(record)
        except JournalError as fault:
            self._fails(fault)
            return False
        return True

    def _perform(self, effect: Any) -> None:
        match effect:
            case fx.Send(frame=frame) | fx.SendNow(frame=frame):
                if self.connection is not None:
                    self.world.watch.agents.says(self, effect)
                    self.connection.to_hub(frame)
            case fx.Drop(reason=reason):
                self._drop(reason)
            case fx.Begin(key=key):
                if (held := self.holder.holding(key)) is not None:
                    self.works[key] = Work(self, held)
            case fx.Forget(key=key):
                self.machine.forget(self.name, key)
            case _:
                self._pass_on(effect)

    def _pass_on(self, effect: Any) -> None:
        if (work := self.works.get(effect.key)) is None:
            return
        match effect:
            case fx.Wake(soft_us=soft_us, hard_us=hard_us):
                self.world.watch.agents.wakes(self, effect)
                work.wake(soft_us, hard_us)
            case fx.Extend(soft_us=soft_us, hard_us=hard_us):
                self.world.watch.agents.extends(self, effect)
                work.extend(soft_us, hard_us)
            case fx.Stop(reason=reason):
                self.timeline.note("work.stop", f"{self.name} t-{effect.key.task}/{effect.key.lease_epoch} {reason}")
                work.stop(reason)
            case fx.Answer(key_of_send=key_of_send, qid=qid, text=text):
                work.answer(key_of_send, qid, text)
            case fx.Abandon():
                work.cancel()

    def _drop(self, reason: str) -> None:
        connection = self.connection
        if connection is not None:
            connection.close_by_sidecar()
            self.disconnected(connection, 1006, reason)

    def drain(self, *, stop_agents: bool) -> None:
        """Asked to stop: what was not started goes back, then it says goodbye and ends; somebody starts it again."""
        if self.draining:
            return
        self.draining = True

        async def leave() -> None:
            self.happen(fx.Drain(stop_agents))
            await Pause(self.timeline.span(0.5, 10))
            self.happen(fx.Leave())
            await Pause(self.timeline.span(0.1, 2))
            self.timeline.after(0, self.crash)
            self.machine.restart_later(self)

        self.timeline.spawn(self.host, leave)
