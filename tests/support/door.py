"""The sidecars' door without sockets: real links on a real conductor, a store that can wait, and wires that remember."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from hub.core.lease import Terms
from hub.core.rows import EventRow
from hub.edge.auth import Identity
from hub.edge.link import Link
from hub.edge.links import Links
from hub.ids import ANY_AGENT, AgentId, LeaseEpoch, Scope, TaskId
from hub.store.specs import Claim, Specs
from hub.telemetry.metrics import Metrics
from hub.wire import frames
from hub.wire.codec import decode_from_hub, encode
from hub.wire.spec import Spec
from tests.support.conductor import Stage
from tests.support.stores import GatedStore

SIDECAR = Identity("sidecar", frozenset({Scope.AGENT}), agents=frozenset({ANY_AGENT}))


class Wire:
    """``hub.edge.link.Wire``: frames written, and how it was closed."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.closed: tuple[int, str] | None = None
        self.news = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.frames.append(decode_from_hub(data))
        self.news.set()

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None, "closed once"
        self.closed = (code, reason)
        self.news.set()

    def of(self, kind: type[Any]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    async def until(self, kind: type[Any], number: int = 1) -> Any:
        """The newest frame of a kind, as soon as there are ``number`` of them."""
        async with asyncio.timeout(5):
            while len(self.of(kind)) < number:
                self.news.clear()
                await self.news.wait()
        return self.of(kind)[-1]

    async def until_closed(self) -> int:
        async with asyncio.timeout(5):
            while self.closed is None:
                self.news.clear()
                await self.news.wait()
        return self.closed[0]


class Door:
    """Everything between a frame and the store. ``specs_read`` holds back hydration while it is clear."""

    def __init__(self, terms: Terms) -> None:
        self.metrics = Metrics()
        self.specs_read = asyncio.Event()
        self.specs_read.set()
        self.blobs: dict[str, bytes] = {}
        self.description = "do it"
        self.links = Links(
            terms=terms,
            identity=("hub-1", 1, "test"),
            hydrate=self._hydrate,
            keep_blob=self._keep,
            metrics=self.metrics,
        )
        self.stage = Stage(terms, GatedStore())
        self.stage.conductor.publisher = self
        self.links.connect(self.stage.conductor)

    async def _hydrate(self, claims: Sequence[Claim]) -> dict[Claim, Spec | LookupError | ValueError]:
        await self.specs_read.wait()
        return {claim: self._spec(*claim) for claim in claims}

    def _spec(self, n: int, epoch: int) -> Spec | LookupError:
        if self.description == "gone":
            return LookupError("no such spec")
        return Spec(
            task=TaskId(n), lease_epoch=LeaseEpoch(epoch), title="t", description=self.description, metadata=self.metadata
        )

    read_with_commit = False
    metadata: dict[str, Any] | None = None

    async def _keep(self, sha256: str, body: bytes) -> None:
        self.blobs[sha256] = body

    # ── the conductor's publisher ──
    def effects(self, effects: Sequence[Any], decided_at: float) -> None:
        self.stage.published.effects(effects, decided_at)
        self.links.effects(effects, decided_at)

    def events(self, events: Sequence[tuple[int, EventRow]]) -> None:
        self.stage.published.events(events)

    def specs(self, found: Specs) -> None:
        self.links.specs(found if self.read_with_commit else {})

    def resync(self) -> None:
        self.links.resync()
        self.stage.published.resync()

    def committed(self, decisions: int, seconds: float) -> None:
        self.stage.published.committed(decisions, seconds)

    # ── sidecars ──
    def plug(self, identity: Identity = SIDECAR) -> tuple[Link, Wire]:
        """A socket after its upgrade."""
        wire = Wire()
        link = Link(self.links, wire, identity)
        self.links.add(link)
        return link, wire

    def say(self, link: Link, frame: frames.Frame) -> None:
        link.received(encode(frame))

    async def greeted(self, agent: str = "w1", **fields: Any) -> tuple[Link, Wire]:
        link, wire = self.plug()
        self.say(link, hello(agent, **fields))
        await wire.until(frames.Welcome)
        return link, wire

    def knows(self, agent: str) -> Any:
        return self.stage.conductor._live.cluster.agents.get(AgentId(agent))


def hello(agent: str = "w1", **fields: Any) -> frames.Hello:
    fields = {"id": 1, "install_id": f"i-{agent}", "boot_id": "b", "versions": ("agentcom.v1",)} | fields
    return frames.Hello(agent_id=agent, **fields)


def raw(**fields: Any) -> bytes:
    return orjson.dumps(fields)


@asynccontextmanager
async def door(terms: Terms | None = None) -> AsyncIterator[Door]:
    here = Door(terms or Terms())
    await here.stage.conductor.open()
    run = asyncio.create_task(here.stage.conductor.run(), name="conductor")
    links = asyncio.create_task(here.links.run(), name="links")
    try:
        yield here
    finally:
        here.specs_read.set()
        here.stage.store.gate.set()
        for link in list(here.links._all):
            link.close(4000, "the test is over")
        links.cancel()
        await asyncio.gather(links, return_exceptions=True)
        await here.stage.conductor.close()
        await run
