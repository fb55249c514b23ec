"""All live links: where committed effects go, and the small services every link needs.

Sessions are found by (agent, epoch): an effect for a session that is over goes nowhere, which is what its fence means. Specs of granted
leases are read here, outside the scheduler, by a few workers.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog

from hub.core import commands, decision
from hub.core.commands import Command
from hub.core.decision import Effect, Reply
from hub.core.errors import HubError, Refused
from hub.core.lease import Terms
from hub.edge.link import Link
from hub.ids import AgentId, SessionEpoch, Verdict
from hub.store.specs import Claim, Specs
from hub.telemetry.metrics import Metrics
from hub.wire import frames
from hub.wire.codec import encode_spec
from hub.wire.codes import Close
from hub.wire.spec import Spec

MAX_LINKS = 10_000
MAX_OPENING = 512
"""Links whose hello is awaited or not yet committed: as many as one group takes, so a storm is worked off group by group."""
HYDRATORS = 4
HYDRATED = 64
"""Specs read in one go."""
IDLE_BEATS = 2.5
LOOK_UPS = 8
"""Results of one link whose attempt is being read from the store at once; a sidecar repeats what is refused."""

log = structlog.get_logger("links")


class Conductor(Protocol):
    """What links need of the conductor."""

    async def do(self, command: Command) -> Reply:
        """Apply with facts; the answer after the commit."""

    def post(self, command: Command, future: asyncio.Future[Reply] | None = None) -> None:
        """Apply now."""

    def wants_facts(self, command: Command) -> bool:
        """Whether ``do`` is needed."""


class Links:
    """The registry. ``run`` owns every task that links start."""

    def __init__(
        self,
        *,
        terms: Terms,
        identity: tuple[str, int, str],
        hydrate: Callable[[Sequence[Claim]], Awaitable[Specs]],
        keep_blob: Callable[[str, bytes], Awaitable[object]],
        metrics: Metrics,
        max_links: int = MAX_LINKS,
    ) -> None:
        self._terms = terms
        self._max_links = max_links
        self._hub_id, self._hub_epoch, self._build = identity
        self._hydrate = hydrate
        self._keep_blob = keep_blob
        self._metrics = metrics
        self._conductor: Conductor | None = None
        self._all: set[Link] = set()
        self._opening: set[Link] = set()
        self._greeting: dict[int, Link] = {}
        self._greetings = itertools.count(1)
        self._live: dict[AgentId, Link] = {}
        self._specs: Specs = {}
        self._grants: asyncio.Queue[tuple[Link, decision.GrantLease]] = asyncio.Queue()
        self._looking_up: Counter[Link] = Counter()
        self._group: asyncio.TaskGroup | None = None
        self.limits = frames.Limits(accept_ms=terms.accept_us // 1000, resend_ms=terms.resend_us // 1000)
        self.lease_ms = terms.lease_us // 1000

    def connect(self, conductor: Conductor) -> None:
        """Say who decides; the composition root calls this once."""
        self._conductor = conductor

    async def run(self) -> None:
        """Read specs, close the silent, own the tasks; until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for i in range(HYDRATORS):
                group.create_task(self._hydrator(), name=f"hydrator-{i}")
            group.create_task(self._sweep(), name="idle-sweep")

    # ── the publisher's side ─────────────────────────────────────────────────────────────────────────────────────────────────

    def effects(self, effects: Sequence[tuple[AgentId, SessionEpoch, Effect]], decided_at: float) -> None:
        """Hand committed effects to their sessions, in order."""
        for agent, epoch, effect in effects:
            if isinstance(effect, decision.Welcome):
                self._bind(agent, epoch, effect)
            link = self._live.get(agent)
            if link is None or link.epoch != epoch:
                continue
            link.publish(effect)
            if isinstance(effect, decision.PushAssign):
                self._metrics.push_seconds.observe(time.monotonic() - decided_at)
            elif isinstance(effect, decision.AckResult):
                self._metrics.results.labels(Verdict(effect.verdict)).inc()

    def specs(self, found: Specs) -> None:
        """What was read with the commit whose effects follow."""
        self._specs = found

    def _bind(self, agent: AgentId, epoch: SessionEpoch, effect: decision.Welcome) -> None:
        link = self._greeting.pop(effect.greeting, None)
        if link is None:
            return
        link.epoch = epoch
        self._opening.discard(link)
        self._live[agent] = link
        if not link.open:
            self.depart(link, bye=False)  # the socket was gone before its hello was committed

    def resync(self) -> None:
        """The scheduler was rebuilt: every sidecar reconciles over a new connection."""
        for link in list(self._all):
            link.close(Close.RESYNC, "resync")

    def revoked(self, token: str) -> None:
        """A token has ended: so does everything that came in with it."""
        for link in [link for link in self._all if link.identity.token == token]:
            link.close(Close.REVOKED, "token revoked")

    # ── the links' side ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def check_room(self) -> None:
        """Refused 429 while no other link may be opened: there are too many, or too many are only just being opened."""
        if len(self._all) >= self._max_links:
            raise Refused(429, "too_many_links", "too many sidecars are connected", retry_after_s=30)
        if len(self._opening) >= MAX_OPENING:
            raise Refused(429, "opening", "too many sidecars are just connecting; come again", retry_after_s=1)

    def add(self, link: Link) -> None:
        """Count a new link."""
        self._all.add(link)
        self._opening.add(link)

    @property
    def connected(self) -> int:
        """Live sessions."""
        return len(self._live)

    @property
    def open(self) -> int:
        """Sockets that are open, also those without a session yet."""
        return len(self._all)

    def greet(self, link: Link) -> int:
        """A link said hello and waits for its welcome: the number by which the welcome finds it, also behind a quick reconnect."""
        link.greeting = next(self._greetings)
        self._greeting[link.greeting] = link
        return link.greeting

    def not_welcome(self, link: Link) -> None:
        """The hello of this link was refused."""
        self._greeting.pop(link.greeting, None)

    def ask(self, command: Command, done: Callable[[BaseException | None], None]) -> None:
        """Apply a command and hear whether it was refused."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda answered: done(answered.exception() if not answered.cancelled() else None))
        try:
            self._decider.post(command, future)
        except HubError as fault:
            future.set_exception(fault)

    def tell(self, link: Link, command: Command) -> None:
        """Apply a command of a session; raises HubError if that cannot be done now."""
        if not self._decider.wants_facts(command):
            self._decider.post(command)
            return
        if self._looking_up[link] >= LOOK_UPS:
            raise Refused(
                429, "busy", f"{LOOK_UPS} results of this link are being looked up; say it again later", retry_after_s=1
            )
        assert self._group is not None
        self._looking_up[link] += 1
        self._group.create_task(self._do_quietly(link, command), name="command-with-facts")

    async def _do_quietly(self, link: Link, command: Command) -> None:
        try:
            await self._decider.do(command)
        except HubError as fault:
            log.warning("command_refused", command=type(command).__name__, code=fault.code)
        finally:
            self._looking_up[link] -= 1
            if not self._looking_up[link]:
                del self._looking_up[link]

    def hydrate(self, link: Link, grant: decision.GrantLease) -> None:
        """Send the spec of a granted lease: at once if it came with the commit, otherwise when it has been read."""
        spec = self._specs.get((grant.n, grant.lease_epoch))
        frame = self._inline(grant, spec) if isinstance(spec, Spec) else None
        if frame is not None:
            link.granted(frame)
        else:
            self._grants.put_nowait((link, grant))

    def depart(self, link: Link, *, bye: bool) -> None:
        """A link is gone (or said goodbye): only its own session hears of it."""
        if not bye:
            self._all.discard(link)
            self._opening.discard(link)
        if link.agent is None:
            return
        # a link whose hello is still being committed stays in _greeting: _bind sends it off
        if self._live.get(link.agent) is link and link.epoch is not None:
            del self._live[link.agent]
            try:
                self._decider.post(commands.Disconnected(actor=link.agent, agent=link.agent, session_epoch=link.epoch, bye=bye))
            except HubError:
                log.info("departure_unheard", agent=link.agent)  # a rebuild starts with everybody offline anyway

    def welcome(self, link: Link, effect: decision.Welcome, re: int | None) -> frames.Welcome:
        """The welcome of a session; beats are staggered over a tenth so that a fleet does not beat in step."""
        beat_ms = self._terms.beat_us // 1000
        spread = int.from_bytes(hashlib.blake2b((link.agent or "").encode(), digest_size=2).digest()) % max(1, beat_ms // 10)
        return frames.Welcome(
            re=re,
            session_epoch=link.epoch or SessionEpoch(0),
            hub_id=self._hub_id,
            hub_epoch=self._hub_epoch,
            build=self._build,
            beat_ms=beat_ms - spread,
            lease_ms=self.lease_ms,
            limits=self.limits,
            verdicts=tuple(
                frames.HeldAnswer(task=item.n, lease_epoch=item.lease_epoch, verdict=item.verdict) for item in effect.verdicts
            ),
        )

    async def drain(self, close_in_s: float, reconnect_after_s: float) -> None:
        """Announce the end to every link, give them a moment, close."""
        links = list(self._all)
        for i, link in enumerate(links):
            after = reconnect_after_s * (1 + i / max(1, len(links)))
            link.send(
                frames.Goaway(reason="shutdown", close_in_ms=int(close_in_s * 1000), reconnect_after_ms=int(after * 1000))
            )
        await asyncio.sleep(close_in_s if links else 0)
        for link in links:
            link.close(Close.SHUTDOWN, "shutdown")

    @property
    def _decider(self) -> Conductor:
        assert self._conductor is not None
        return self._conductor

    async def _hydrator(self) -> None:
        while True:
            waiting = [await self._grants.get()]
            while len(waiting) < HYDRATED and not self._grants.empty():
                waiting.append(self._grants.get_nowait())
            specs = await self._hydrate([(grant.n, grant.lease_epoch) for _, grant in waiting])
            for link, grant in waiting:
                await self._grant(link, grant, specs[grant.n, grant.lease_epoch])

    async def _grant(self, link: Link, grant: decision.GrantLease, spec: Spec | LookupError | ValueError) -> None:
        try:
            if isinstance(spec, Exception):
                raise spec
            link.granted(await self._accepted(grant, spec))
        except (LookupError, HubError, ValueError) as fault:
            log.exception("spec_unreadable", task=grant.n, error=str(fault))
            self._take_back(link, grant)
            link.granted(None)

    def _take_back(self, link: Link, grant: decision.GrantLease) -> None:
        """A lease whose spec cannot be sent would be renewed for ever without work: end it, the sidecar hears with its next beat."""
        if link.agent is None or link.epoch is None:
            return
        with suppress(HubError):
            self._decider.post(
                commands.GiveBack(
                    actor="hub",
                    agent=link.agent,
                    session_epoch=link.epoch,
                    n=grant.n,
                    lease_epoch=grant.lease_epoch,
                    reason="unstarted",
                )
            )

    async def _accepted(self, grant: decision.GrantLease, spec: Spec) -> frames.Accepted:
        frame = self._inline(grant, spec)
        if frame is None:
            body = encode_spec(spec)
            sha256 = hashlib.sha256(body).hexdigest()
            await self._keep_blob(sha256, body)
            frame = self._told(grant, spec_ref=sha256)
        return frame

    def _inline(self, grant: decision.GrantLease, spec: Spec) -> frames.Accepted | None:
        """The answer with the spec in it, unless it is too large for that."""
        return self._told(grant, spec=spec) if len(encode_spec(spec)) <= self.limits.inline_bytes else None

    def _told(self, grant: decision.GrantLease, **spec: Any) -> frames.Accepted:
        return frames.Accepted(re=grant.re, task=grant.n, lease_epoch=grant.lease_epoch, lease_ms=self.lease_ms, **spec)

    async def _sweep(self) -> None:
        beat_s, loop = self._terms.beat_us / 1e6, asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(beat_s / 2)
            stood_still = loop.time() - began > beat_s  # nobody could be heard: what they said meanwhile is read first
            for link in list(self._all):
                if link.epoch is not None and not stood_still and link.silent_for() > beat_s * IDLE_BEATS:
                    link.close(Close.IDLE, "idle")
                elif link.identity.ends_at is not None and link.identity.ends_at <= time.time_ns() // 1000:
                    link.close(Close.TOKEN_EXPIRED, "token expired")
