"""Following events over several connections."""

from contextlib import aclosing

import httpx2
import pytest

from hub.client import HubClient, HubProblem, HubUnreachable, Reset, Started, stream

START = 'event: start\nid: e1:{0}\ndata: {{"feed_epoch": "e1", "seq": {0}, "recovered": true}}\n\n'
RESET = 'event: reset\nid: e1:{0}\ndata: {{"feed_epoch": "e1", "seq": {0}, "recovered": false}}\n\n'
EVENT = 'id: e1:{0}\ndata: {{"seq": {0}, "kind": "k"}}\n\n'


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(stream, "FIRST_RETRY_S", 0)


class Connections(httpx2.AsyncBaseTransport):
    """Each connection answers with the next text, status or error."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.positions = []

    async def handle_async_request(self, request):
        self.positions.append(request.headers.get("last-event-id"))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            return httpx2.Response(answer, json={"code": "nope", "detail": "no"})
        return httpx2.Response(200, text=answer, headers={"Content-Type": "text/event-stream"})


async def take(transport, count, **options):
    found = []
    async with HubClient("http://hub", transport=transport) as hub, aclosing(hub.events(**options)) as items:
        async for item in items:
            found.append(item if not isinstance(item, dict) else item["seq"])
            if len(found) == count:
                return found
    return found


async def test_a_broken_stream_resumes_behind_the_last_event_seen():
    transport = Connections(START.format(1) + EVENT.format(2), httpx2.ReadError("gone"), START.format(2) + EVENT.format(3))
    assert await take(transport, 4) == [Started(1), 2, Started(2), 3]
    assert transport.positions == [None, "e1:2", "e1:2"]


async def test_a_beat_moves_the_position_without_being_an_item():
    transport = Connections(START.format(1) + ": beat\nid: e1:9\n\n", START.format(9) + EVENT.format(10))
    assert await take(transport, 3) == [Started(1), Started(9), 10]
    assert transport.positions == [None, "e1:9"]


async def test_a_reset_is_said_not_hidden():
    transport = Connections(RESET.format(7) + EVENT.format(8))
    assert await take(transport, 2, after="e0:3") == [Reset(7), 8]
    assert transport.positions == ["e0:3"]


async def test_a_hub_that_restarts_is_waited_for():
    transport = Connections(503, httpx2.ConnectError("refused"), START.format(1))
    assert await take(transport, 1) == [Started(1)]


async def test_a_refusal_ends_the_stream():
    with pytest.raises(HubProblem) as refused:
        await take(Connections(401), 1)
    assert refused.value.status == 401


async def test_patience_ends():
    with pytest.raises(HubUnreachable):
        await take(Connections(httpx2.ConnectError("refused")), 1, patience_s=0)
