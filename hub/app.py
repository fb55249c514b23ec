"""The composition root: picks adapters, wires the rooms together, starts and stops the services. The only module that knows them all.

Order of life: lock and open the store, rebuild the scheduler, open the door. Order of death: stop claiming, say goaway, flush, close 4000,
close the store. A service that dies takes the hub down with it, loudly; a supervisor starts it again and nothing is lost.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog
from fastapi import FastAPI

from hub import __version__
from hub.core.commands import Drain
from hub.core.decision import Effect
from hub.core.errors import HubError
from hub.core.rows import EventRow
from hub.doctor import open_doctor
from hub.edge import port
from hub.edge.auth import Authenticator
from hub.edge.http.app import create_http
from hub.edge.http.doors import Doors
from hub.edge.keyring import Keyring
from hub.edge.links import Links
from hub.edge.peers import Peers
from hub.edge.port import Port, Server
from hub.edge.ratelimit import Limiter, Rates
from hub.edge.tls import server_context
from hub.edge.ws import Acceptor
from hub.first_start import first_start, now_us
from hub.forge.base import Remote
from hub.forge.git import Git
from hub.forge.local import LocalForge
from hub.ids import AgentId, Scope, SessionEpoch
from hub.services.clock import SteadyClock
from hub.services.conductor import Conductor
from hub.services.facts import FactReader
from hub.services.feed import Feed
from hub.services.gatekeeper import Gatekeeper, concerns
from hub.services.room import Room
from hub.services.salvage import Salvage
from hub.settings import HubSettings
from hub.settings.tree import Dampers, Listen
from hub.store import blobs, specs, tokens
from hub.store.base import StoreBroken
from hub.store.recovery import load_snapshot
from hub.store.reserve import MEBIBYTE
from hub.store.sqlite import STORE_FILE, SqliteStore
from hub.telemetry.metrics import Metrics
from hub.telemetry.supervisor import tell_supervisor
from hub.upkeep import Upkeep, open_upkeep, shelf_of

EXIT_STORE = 74
"""EX_IOERR: the store must not be used any more in this process; let the supervisor restart it."""
DRAIN_S = 2.0
GONE_S = 5.0
"""A hub that was told to stop is gone by then, whatever hangs: nothing that is not durable has left it."""
CLOSE_IN_S = 0.2
RECONNECT_AFTER_S = 1.0

log = structlog.get_logger("hub")


class _Publisher:
    """Where committed decisions go: links, feed, metrics."""

    def __init__(self, links: Links, feed: Feed, metrics: Metrics) -> None:
        self._links = links
        self._feed = feed
        self._metrics = metrics

    def effects(self, effects: Sequence[tuple[AgentId, SessionEpoch, Effect]], decided_at: float) -> None:
        """To the links."""
        self._links.effects(effects, decided_at)

    def specs(self, found: specs.Specs) -> None:
        """To the links."""
        self._links.specs(found)

    def events(self, events: Sequence[tuple[int, EventRow]]) -> None:
        """To the feed, counting what metrics count."""
        for _, event in events:
            if event.kind.startswith("salvage."):
                self._metrics.salvage.labels(event.kind.removeprefix("salvage.")).inc()
            if event.cause == "lease_expired":
                self._metrics.lease_expiries.inc()
            elif event.kind == "agent.quarantined":
                self._metrics.quarantines.inc()
        self._feed.publish(events)

    def resync(self) -> None:
        """After a rebuild."""
        self._metrics.rebuilds.inc()
        self._links.resync()

    def committed(self, decisions: int, seconds: float) -> None:
        """Group commit figures."""
        self._metrics.group_size.observe(decisions)
        self._metrics.commit_seconds.observe(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """Everything that lives as long as the hub, wired together."""

    store: SqliteStore
    clock: SteadyClock
    conductor: Conductor
    links: Links
    feed: Feed
    gatekeeper: Gatekeeper
    upkeep: Upkeep
    acceptor: Acceptor
    http: FastAPI
    port: Port

    async def serve(self, listener: socket.socket, announce: Callable[[], None], stop: asyncio.Event) -> None:
        """Run every service until ``stop``, then drain; raises whatever a service died of."""
        server = port.server(self.http, self.acceptor, self.port)
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self.conductor.run(), name="conductor")
            endless = [
                group.create_task(self.links.run(), name="links"),
                group.create_task(self.clock.pulse(), name="pulse"),
                group.create_task(self.gatekeeper.run(), name="gatekeeper"),
                group.create_task(self.upkeep.chores.run(), name="chores"),
                group.create_task(self.upkeep.keeper.errands.run(), name="errands"),
            ]
            door = group.create_task(server.serve(sockets=[listener]), name="door")
            _collect_rarely()
            announce()
            tell_supervisor("READY=1")
            await stop.wait()
            tell_supervisor("STOPPING=1")
            await self._drain(server)
            await door
            await self.conductor.close()
            await writer
            for task in endless:
                task.cancel()

    async def _drain(self, server: Server) -> None:
        """Protocol §10: results are not waited for, they are journalled and come back."""
        self.acceptor.serving = False
        self.upkeep.stop()
        with suppress(HubError, TimeoutError):  # a disk that hangs does not keep the hub from going
            async with asyncio.timeout(DRAIN_S):
                await self.conductor.do(Drain())
        await self.links.drain(CLOSE_IN_S, RECONNECT_AFTER_S)
        self.feed.close()
        server.should_exit = True


class Hub:
    """One hub in this process."""

    def __init__(self, settings: HubSettings, *, local_agents: bool = False) -> None:
        self._settings = settings
        self._local_agents = local_agents
        self._stop = asyncio.Event()
        self._last_call: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Begin the drain; a second call ends the process at once, and so does a drain that takes too long."""
        if self._stop.is_set():
            os._exit(130)
        self._stop.set()
        self._last_call = asyncio.get_running_loop().call_later(GONE_S, _give_up)

    async def run(self, announce: Callable[[str], None]) -> None:
        """Serve until stopped. ``announce`` is called with the base URL once the hub is ready."""
        settings, there = self._settings, self._settings.listen
        door = open_port(there)
        with port.listen(there.host, there.port) as listener:  # first: a taken port leaves no new data directory behind
            url = there.public_url or port.address(there.host, listener.getsockname()[1], tls=door.tls is not None)
            store = await SqliteStore.open(
                settings.data_dir / STORE_FILE,
                durability=settings.durability,
                reserve_bytes=settings.storage.reserve_mb * MEBIBYTE,
                shelf=shelf_of(settings),
            )
            try:
                key = await first_start(store, settings.data_dir, local_agents=self._local_agents)
                rooms = await self._furnish(store, key, door)
                await rooms.serve(listener, partial(announce, url), self._stop)
            finally:
                with suppress(HubError):
                    await store.close()
                if self._last_call is not None:
                    self._last_call.cancel()

    async def _furnish(self, store: SqliteStore, key: bytes, door: Port) -> Rooms:
        settings, reader = self._settings, store.reader
        auth = Authenticator(key, await tokens.every(reader), now_us)
        hub_id, feed_epoch, hub_epoch = await store.begin_epoch()
        metrics, feed, facts = Metrics(), Feed(feed_epoch, store.last_seq), FactReader(reader)
        room = Room(store.reserve, settings.storage.blob_quota_mb * MEBIBYTE)
        clock = SteadyClock(on_lag=metrics.loop_lag_seconds.observe)
        limiter = Limiter(rates_of(settings.dampers), refused=lambda tier: metrics.rate_limited.labels(tier).inc())
        links = Links(
            terms=settings.terms,
            identity=(hub_id, hub_epoch, __version__),
            hydrate=partial(specs.hydrate, reader),
            keep_blob=lambda sha256, body: conductor.record(blobs.put(sha256, body), size_bytes=len(body)),
            metrics=metrics,
            max_links=settings.limits.max_links,
        )
        conductor = Conductor(
            store,
            facts,
            _Publisher(links, feed, metrics),
            clock,
            settings.terms,
            hub_epoch,
            partial(load_snapshot, reader),
            metrics.safety_claims.inc,
            room.admit,
        )
        await conductor.open()
        links.connect(conductor)
        metrics.watch(
            conductor.ready_by_lane,
            conductor.live_by_state,
            {
                metrics.agents_connected: lambda: links.connected,
                metrics.agents_quarantined: lambda: len(conductor.quarantined()),
                metrics.links: lambda: links.open,
                metrics.observers: lambda: feed.observers,
            },
        )
        git = Git(environ=os.environ, talk_timeout_s=settings.git.remote_timeout_s)
        forge = LocalForge(root=settings.data_dir / "repositories", git=git)
        gatekeeper = Gatekeeper(conductor, reader, {"local": forge}, now_s=lambda: int(time.time()))
        feed.listen(lambda events: gatekeeper.poke() if any(concerns(event) for _, event in events) else None)
        upkeep = await open_upkeep(settings, store, conductor, facts, room, metrics)
        doors = Doors(
            conductor=conductor,
            reader=reader,
            feed=feed,
            gatekeeper=gatekeeper,
            doctor=open_doctor(settings, store, forge, upkeep, conductor.quarantined),
            backups=upkeep.backups,
            keeper=upkeep.keeper,
            salvage=Salvage(conductor, reader, {"local": forge}),
            auth=auth,
            limiter=limiter,
            keyring=Keyring(key, auth, conductor, now_us, links.revoked),
            metrics=metrics.render,
            probe=lambda name, url, base: forge.probe(Remote(name=name, url=url), base),
            readiness=lambda: {"scheduler": conductor.is_open, "accepting": not self._stop.is_set()},
            degraded=room.degraded,
            admit_body=room.admit_body,
            now=now_us,
            hub_id=hub_id,
            version=__version__,
        )
        return Rooms(
            store=store,
            clock=clock,
            conductor=conductor,
            links=links,
            feed=feed,
            gatekeeper=gatekeeper,
            upkeep=upkeep,
            acceptor=Acceptor(links, auth, limiter),
            http=create_http(doors),
            port=door,
        )


def _give_up() -> None:
    """A disk that hangs keeps a thread which nobody can end: leave it behind, as a power cut would."""
    log.critical("drain_given_up", after_s=GONE_S)
    os._exit(EXIT_STORE)


def rates_of(dampers: Dampers) -> Rates:
    """How often anybody may ask."""
    return Rates(
        light=dampers.light_per_min,
        normal=dampers.normal_per_min,
        heavy=dampers.heavy_per_min,
        denied=dampers.denied_per_min,
        connect=dampers.connect_per_min,
        exempt=frozenset(map(Scope, dampers.exempt)),
    )


def open_port(listen: Listen) -> Port:
    """How the port of these settings is served; raises TlsUnusable before anything listens."""
    tls = server_context(listen.tls_cert, listen.tls_key) if listen.tls_cert and listen.tls_key else None
    return Port(tls=tls, peers=Peers(listen.admitted), proxies=listen.trusted_proxies)


def _collect_rarely() -> None:
    """What start-up built lives as long as the hub: never walk it again. What commands make is freed by its count alone.

    With Python's own thresholds (700, 10, 10) looking for cycles took a tenth of the loop's time under load and found next to none.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def run(settings: HubSettings, announce: Callable[[str], None], *, local_agents: bool = False) -> int:
    """Run a hub in this process until SIGTERM or SIGINT; returns the exit code (0, or 74 when the store broke).

    ``local_agents`` leaves a token for agents of this machine in the data directory.
    """

    async def main() -> None:
        hub = Hub(settings, local_agents=local_agents)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, hub.stop)
        await hub.run(announce)

    code = 0
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        try:
            runner.run(main())
        except* StoreBroken as broken:
            log.critical("store_broken", error=str(broken.exceptions[0]))
            code = EXIT_STORE
    return code


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415  not installable on Windows

    return uvloop.new_event_loop
