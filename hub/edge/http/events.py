"""Events as server-sent events, resumable: either every event after the last one seen, or an honest ``reset``.

A subscriber joins the live ring first and then reads the rows up to where the ring begins, so nothing can fall between the
two. The position is ``<feed_epoch>:<seq>``; another epoch or pruned rows give ``event: reset`` with ``recovered: false``, after
which the client reads what it shows anew and follows from there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from typing import Annotated

import orjson
from fastapi import APIRouter, Header, Query
from pydantic import AfterValidator, Field
from starlette.responses import StreamingResponse

from hub.core.rows import EventRow
from hub.edge.http.access import Hub, Observer
from hub.edge.http.doors import Feed
from hub.edge.http.event_documents import EventOut
from hub.edge.http.fields import AgentName, Filters, TaskRef
from hub.edge.http.reading import JsonRoute
from hub.services.feed import TooManyObservers
from hub.store import events
from hub.store.base import Reader

router = APIRouter(tags=["events"], route_class=JsonRoute)

PAGE_ROWS = 500
CROWDED_MS = 10_000
BEAT_S = 15.0
"""A stream with nothing to show says its position this often: proxies keep it, a dead peer is noticed, a resumption is cheap."""

_POSITION = re.compile(r"[0-9A-Za-z_-]{1,64}:[0-9]{1,18}")


class GapError(Exception):
    """Events between the position and the ring exist no more."""


async def follow(feed: Feed, reader: Reader, after: int | None) -> AsyncGenerator[tuple[int, EventRow], None]:
    """Every event behind ``after`` (None: from now on), gap-free; raises :class:`GapError` before it would skip one.

    Ends when the feed ends the subscription (the hub closes, or this subscriber was too slow).
    """
    async with feed.subscribe(after) as live:
        if after is not None:
            while after + 1 < live.first:
                rows = await events.after(reader, after, limit=PAGE_ROWS)
                for seq, event in rows:
                    if seq >= live.first:
                        break
                    if seq != after + 1:
                        raise GapError
                    after = seq
                    yield seq, event
                if not rows:
                    raise GapError
        async for entry in live:
            yield entry


def _position(text: str) -> str:
    if text and _POSITION.fullmatch(text) is None:
        raise ValueError("a position reads <feed_epoch>:<seq>, as the id of an event")
    return text


Position = Annotated[str, AfterValidator(_position)]
"""Where a stream resumes; empty is from now on, as browsers send it before the first event."""


class EventFilters(Filters):
    """Which events, and from where."""

    after: Position | None = Field(default=None, description="like Last-Event-ID, for clients that cannot send it")
    task: TaskRef | None = None
    agent: AgentName | None = None


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "Events, for as long as they are read",
        }
    },
)
async def stream(
    caller: Observer,
    hub: Hub,
    asked: Annotated[EventFilters, Query()],
    last_event_id: Annotated[Position | None, Header()] = None,
) -> StreamingResponse:
    """Follow events. Begins with ``start`` (the position) or ``reset``; each event carries its position as ``id``.

    Ends with the token it was opened with.
    """
    epoch, _, seq = (last_event_id or asked.after or "").partition(":")
    position = (epoch, int(seq)) if epoch else None
    source = _while_good(_frames(hub.feed, hub.reader, position, asked.task, asked.agent), lambda: hub.auth.holds(caller))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(source, media_type="text/event-stream", headers=headers)


async def _while_good(source: AsyncGenerator[bytes, None], good: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """The source's bytes for as long as whoever asked may have them; looked at before each event and each beat."""
    try:
        async for data in source:
            if not good():
                return
            yield data
    finally:
        await source.aclose()


async def _frames(
    feed: Feed, reader: Reader, position: tuple[str, int] | None, task: int | None, agent: str | None
) -> AsyncGenerator[bytes, None]:
    """The stream's bytes. A position of another epoch, from the future or before what is kept starts over with a reset."""

    def wanted(event: EventRow) -> bool:
        return (task is None or event.task == task) and (agent is None or event.agent == agent)

    seq = feed.last_seq
    known = position is not None and position[0] == feed.epoch and position[1] <= seq
    if position is not None and known:
        seq = position[1]
        yield _frame("start", feed, seq, {"recovered": True})
    else:
        yield _frame("start" if position is None else "reset", feed, seq, {"recovered": position is None})
    while True:
        try:
            async for at, event in _with_beats(follow(feed, reader, seq), seq, wanted):
                seq = at
                if event is None:
                    yield f": beat\nid: {feed.epoch}:{seq}\n\n".encode()
                else:
                    yield _frame(None, feed, seq, EventOut.of(seq, event).model_dump(mode="json"))
        except GapError:
            seq = feed.last_seq
            yield _frame("reset", feed, seq, {"recovered": False})
        except TooManyObservers:
            yield f": too many observers\nretry: {CROWDED_MS}\n\n".encode()
            return
        else:
            return


def _frame(kind: str | None, feed: Feed, seq: int, document: dict[str, object]) -> bytes:
    if kind is not None:
        document = {"feed_epoch": feed.epoch, "seq": seq, **document}
    head = "" if kind is None else f"event: {kind}\n"
    return f"{head}id: {feed.epoch}:{seq}\ndata: ".encode() + orjson.dumps(document) + b"\n\n"


async def _with_beats(
    source: AsyncGenerator[tuple[int, EventRow], None],
    seq: int,
    wanted: Callable[[EventRow], bool],
    beat_s: float = BEAT_S,
) -> AsyncGenerator[tuple[int, EventRow | None], None]:
    """The source's wanted events, and whenever none was given for ``beat_s`` the position it was read up to, with None.

    The pending read is one task that outlives the beats: cancelling it would end the source.
    """
    loop = asyncio.get_running_loop()
    pending: asyncio.Future[tuple[int, EventRow]] | None = None
    beat_at = loop.time() + beat_s
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(source))
            await asyncio.wait({pending}, timeout=max(0.0, beat_at - loop.time()))
            event = None
            if pending.done():
                finished, pending = pending, None
                try:
                    seq, event = finished.result()
                except StopAsyncIteration:
                    return
            if event is not None and wanted(event):
                yield seq, event
            elif loop.time() >= beat_at:
                yield seq, None
            else:
                continue
            beat_at = loop.time() + beat_s
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait({pending})
        await source.aclose()
