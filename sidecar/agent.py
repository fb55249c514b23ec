"""One agent of a sidecar: puts the pure holder between its link, its journal and its work.

Everything that happens goes through :meth:`Agent.happen`, synchronously, so the holder sees one order. Its effects are
performed by one task in that order, which waits for the disk where a record comes first; beats and deadlines overtake
it. Nothing else here decides anything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

import structlog

from hub.wire.frames import Accepted, Assign, Decline, FromHub
from sidecar.core import effects as fx
from sidecar.core import records
from sidecar.core.effects import IMMEDIATE, Effect, Happening
from sidecar.core.holder import Holder
from sidecar.core.records import Key, RecordError, encode
from sidecar.core.reports import check_readable, failed
from sidecar.journal import Journal
from sidecar.link import Link
from sidecar.runs.clock import boot_us
from sidecar.runs.runner import Deadline
from sidecar.work import Tools, Work
from sidecar.workspace.workspaces import WorkspaceError, Workspaces
from sidecar.writing import Writing

log = structlog.get_logger(__name__)

BACKLOG_EFFECTS = 10_000
"""Effects that may wait for a slow disk.

Beyond, the link is dropped together with all frames that wait for it, and until half of the rest is done no frame is taken
in and no new connection is greeted. What else adds effects is the works, each of which waits for its own last report, so
that the queue stays bounded. The beats stop with the link: a disk that is this slow loses its leases.
"""
_BEHIND = "the disk does not keep up"
_FAR_US = 3_600_000_000


class Agent:
    """One agent. ``link`` is made from this object, its listener; :meth:`run` then lives until the link gives up."""

    def __init__(
        self,
        name: str,
        *,
        holder: Holder,
        journal: Journal,
        tools: Tools,
        workspaces: Workspaces,
        link: Callable[[Agent], Link],
        clock_us: Callable[[], int] = boot_us,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.holder = holder
        self._journal = journal
        self._tools = tools
        self._workspaces = workspaces
        self._clock_us = clock_us
        self._writing = Writing(journal, has_room, name)
        self._link = link(self)
        self._works: dict[Key, tuple[Work, asyncio.Task[None]]] = {}
        self._queue: deque[tuple[Effect | asyncio.Future[None], int]] = deque()
        self._queued = asyncio.Event()
        self._happened = asyncio.Event()
        self._ticking = asyncio.Event()
        self._behind = False
        self._connection = 0
        self._tasks: asyncio.TaskGroup | None = None
        self._log = log.bind(agent=name)

    # --- life

    async def run(self) -> None:
        """Resume, connect and work until :meth:`close`; raises :class:`~sidecar.backoff.Refused` or a journal's fault.

        Cancelling it leaves the shims and what they run alone.
        """
        resumed = self.holder.restore(self._journal.records)
        strangers = await self._tools.runner.stop_strangers(self.holder.run_ids())
        if strangers:
            self._log.warning("strange_runs_stopped", runs=strangers)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                helpers = [
                    self._tasks.create_task(self._perform_in_order(), name=f"{self.name}-effects"),
                    self._tasks.create_task(self._keep_time(), name=f"{self.name}-time"),
                ]
                self._enqueue(resumed)
                await self._link.run()
                for task in [*helpers, *(task for _, task in self._works.values())]:
                    task.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from group
        finally:
            await self._tools.runner.close()
            self._journal.close()

    async def drain(self, *, stop_agents: bool, patience_s: float) -> None:
        """Take no more work, give back what was not started, say goodbye; runs go on unless ``stop_agents``."""
        self.happen(fx.Drain(stop_agents))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._until(lambda: self.holder.settled and not (stop_agents and self.holder.holds_anything))
        self.happen(fx.Leave())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(patience_s, 2.0)):
                await self._until(lambda: self.holder.settled or not self.holder.connected)
        await self._link.close()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._happened.clear()
            await self._happened.wait()

    # --- what happens

    def happen(self, event: Happening) -> None:
        """Let the holder decide, and perform what it wants."""
        self._enqueue(self.holder.apply(event, self._clock_us()))
        self._happened.set()
        self._ticking.set()
        if len(self._queue) > BACKLOG_EFFECTS and not self._behind:
            self._behind = True
            self._queue = deque(item for item in self._queue if not isinstance(item[0], fx.Send))
            self._link.drop(_BEHIND)

    async def tell(self, event: Happening) -> None:
        """Like :meth:`happen`; returns when everything that follows from it, and was decided before it, is performed.

        Raises :class:`~sidecar.core.records.RecordError`, and nothing happened, for a report that the journal could not give
        back; a result of that kind is replaced by one that says so.
        """
        try:
            check_readable(event)
        except RecordError as fault:
            if not isinstance(event, fx.Finished):
                raise
            self._log.warning("result_unreadable", task=event.key.task, reason=str(fault))
            event = fx.Finished(event.key, failed(event.key, fault))
        done = asyncio.get_running_loop().create_future()
        self.happen(event)
        self._queue.append((done, self._connection))
        self._queued.set()
        await done

    @property
    def wanted(self) -> bool:
        """See :class:`sidecar.link.Listener`, as for the next three."""
        return self.holder.holds_anything

    def opened(self) -> None:
        """A socket is open."""
        self._connection += 1
        if self._behind:
            self._link.drop(_BEHIND)
        else:
            self.happen(fx.Connected())

    def received(self, frame: FromHub) -> None:
        """The hub sent a frame."""
        if self._behind:  # the connection is dropped: what was still on its way is settled with the next one
            return
        if isinstance(frame, Assign) and (refusal := self._refusal(frame)) is not None:
            self._link.send(refusal)
            return
        if isinstance(frame, Accepted) and frame.spec is not None:
            record = records.Accepted(task=frame.task, lease_epoch=frame.lease_epoch, spec=frame.spec)
            try:
                encode(record)
            except RecordError as fault:  # without a spec it is given back
                self._log.warning("spec_unreadable", task=frame.task, reason=str(fault))
                frame = replace(frame, spec=None)
        self.happen(fx.Received(frame))

    def _refusal(self, frame: Assign) -> Decline | None:
        known = self.holder.holding(Key(frame.task, frame.lease_epoch)) is not None
        return None if known else self._writing.refusal(frame)

    def closed(self) -> None:
        """The socket is gone."""
        self._connection += 1
        self.happen(fx.Disconnected())

    # --- what is to be done

    def _enqueue(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, IMMEDIATE):
                self._perform(effect)
            else:
                self._queue.append((effect, self._connection))
                self._queued.set()

    async def _perform_in_order(self) -> None:
        while True:
            await self._queued.wait()
            self._queued.clear()
            while self._queue:
                self._behind = self._behind and len(self._queue) > BACKLOG_EFFECTS // 2
                effect, connection = self._queue.popleft()
                if isinstance(effect, asyncio.Future):
                    if not effect.done():
                        effect.set_result(None)
                elif isinstance(effect, fx.Write):
                    await self._writing.write(effect.record)
                elif not isinstance(effect, fx.Send) or connection == self._connection:
                    # What was meant for a connection that is gone must not be the first word on the next one.
                    self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case fx.Send(frame=frame) | fx.SendNow(frame=frame):
                self._link.send(frame)
            case fx.Drop(reason=reason):
                self._link.drop(reason)
            case fx.Begin(key=key):
                self._begin(key)
            case fx.Forget(key=key):
                self._spawn(self._forget(key), f"{self.name}-forget-{key.task}")
            case fx.Write():
                raise AssertionError("records are written in order")
            case _:
                self._pass_on(effect)

    def _pass_on(self, effect: fx.Wake | fx.Extend | fx.Stop | fx.Answer | fx.Abandon) -> None:
        if (found := self._works.get(effect.key)) is None:
            return
        work, task = found
        match effect:
            case fx.Wake(soft_us=soft_us, hard_us=hard_us):
                self._log.info("agent_wakes", task=effect.key.task, lease_epoch=effect.key.lease_epoch, run=effect.run_id)
                work.wake(Deadline(soft_us, hard_us))
            case fx.Extend(soft_us=soft_us, hard_us=hard_us):
                work.extend(Deadline(soft_us, hard_us))
            case fx.Stop(reason=reason):
                self._log.info("work_stops", task=effect.key.task, lease_epoch=effect.key.lease_epoch, reason=reason)
                work.stop(reason)
            case fx.Answer(key_of_send=key_of_send, qid=qid, text=text):
                work.answer(key_of_send, qid, text)
            case fx.Abandon():
                task.cancel()

    def _begin(self, key: Key) -> None:
        if (held := self.holder.holding(key)) is None:
            return
        self._log.info("work_begins", task=key.task, lease_epoch=key.lease_epoch, phase=held.phase)
        work = Work(held, self._tools, self.tell)
        task = self._spawn(work.run(), f"{self.name}-work-{key.task}-{key.lease_epoch}")
        self._works[key] = work, task
        task.add_done_callback(lambda _: self._works.pop(key, None))

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        assert self._tasks is not None
        return self._tasks.create_task(coroutine, name=name)

    async def _forget(self, key: Key) -> None:
        """Clean up after a settled assignment. What cannot be removed now is tried again at the next start."""
        if (found := self._works.get(key)) is not None:
            await asyncio.wait({found[1]})
        try:
            await self._tools.runner.forget(key)
            if (workspace := await self._workspaces.find(key.task, key.lease_epoch)) is not None:
                await self._workspaces.release(workspace)
        except (WorkspaceError, OSError, RecursionError) as fault:  # whatever an agent left there is its own, not ours
            self._log.warning("workspace_stays", task=key.task, code=getattr(fault, "code", "os_error"), reason=str(fault))

    async def _keep_time(self) -> None:
        """Ticks when the holder needs one; nothing on this path waits for anything."""
        while True:
            due_us = self.holder.due_us
            now_us = self._clock_us()
            if due_us is not None and due_us <= now_us:
                self.happen(fx.Tick())
                await asyncio.sleep(0)
                continue
            self._ticking.clear()
            wait_us = _FAR_US if due_us is None else due_us - now_us
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_us / 1e6):
                    await self._ticking.wait()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The fault that ended the group: the others are its consequences."""
    fault: BaseException = group
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return fault
