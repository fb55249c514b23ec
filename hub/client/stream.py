"""Events as they happen, over as many connections as it takes: the stream resumes where it broke.

Every event arrives once and in order, or a :class:`Reset` says that some could not be had: then read what you show anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import cast

import httpx2

from hub.client.documents import Event
from hub.client.errors import HubProblem, HubUnreachable
from hub.client.transport import API, Transport, given, refusal

BEATS_MISSED_S = 45.0
"""Three beats of the hub: a stream silent for longer is dead."""
FIRST_RETRY_S = 0.25
LAST_RETRY_S = 8.0


@dataclass(frozen=True, slots=True)
class Started:
    """The stream is open: whatever is read from now on is no older than its first event. Sent once per connection."""

    seq: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Events are missing before this point."""

    seq: int


StreamItem = Event | Started | Reset


class EventApi(Transport):
    """Follow the hub's events."""

    async def events(
        self,
        *,
        task: str | None = None,
        agent: str | None = None,
        after: str | None = None,
        patience_s: float | None = None,
    ) -> AsyncGenerator[StreamItem, None]:
        """Events from now on, or behind the position ``after``; runs until it is closed.

        Raises HubProblem if the hub refuses (a 5xx is a hub that is restarting), and HubUnreachable when no connection
        succeeds for ``patience_s`` (None: never).
        """
        position = after
        wait_s, silent_since = FIRST_RETRY_S, asyncio.get_running_loop().time()
        while True:
            try:
                async for frame in self._connection(position, given(task=task, agent=agent)):
                    position = frame.id or position
                    wait_s, silent_since = FIRST_RETRY_S, asyncio.get_running_loop().time()
                    item = _read(frame)
                    if item is not None:
                        yield item
            except (httpx2.TransportError, HubProblem) as fault:
                if isinstance(fault, HubProblem) and fault.status < 500:
                    raise
                waited_s = asyncio.get_running_loop().time() - silent_since
                if patience_s is not None and waited_s >= patience_s:
                    raise HubUnreachable(self.base_url, fault) from fault
            await asyncio.sleep(wait_s)
            wait_s = min(LAST_RETRY_S, 2 * wait_s)

    async def _connection(self, position: str | None, params: dict[str, str]) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        headers = {"Last-Event-ID": position} if position else None
        timeout = httpx2.Timeout(BEATS_MISSED_S)
        async with self.http.sse(API + "/events", params=params or None, headers=headers, timeout=timeout) as source:
            if source.response.status_code != 200:
                await source.response.aread()
                raise refusal(source.response)
            async for frame in source:
                yield frame


def _read(frame: httpx2.ServerSentEvent) -> StreamItem | None:
    """What a frame says, or None for one that only moves the position."""
    if not frame.data:
        return None
    document = frame.json()
    assert isinstance(document, dict)
    if frame.event == "start":
        return Started(document["seq"])
    if frame.event == "reset":
        return Reset(document["seq"])
    return cast("Event", document)
