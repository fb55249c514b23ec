"""The stream: gap-free across ring and rows, or an honest reset."""

import asyncio
import itertools

import orjson
import pytest

from hub.core.rows import EventRow
from hub.edge.http.events import GapError, _with_beats, follow
from hub.ids import Scope
from hub.services.feed import Feed
from tests.support.doors import NOW, MemoryReader


def event(n, **changes):
    return EventRow(**{"at": NOW, "kind": f"k{n}", "actor": "hub", **changes})


def anything(_event):
    return True


def parse(text):
    frames = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        frames.append((fields.get("event"), fields.get("id"), orjson.loads(fields["data"]) if "data" in fields else None))
    return frames


async def read(house, headers=None, **params):
    async with house.client(Scope.OBSERVER) as client:
        answer = await client.get("/api/v1/events", headers=headers, params=params)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return parse(answer.text)


async def test_without_a_position_the_stream_starts_now(house):
    house.feed.last_seq = 5
    house.feed.ring = [(5, event(5))]
    house.feed.coming = [(6, event(6, task=2, data='{"a": 1}'))]
    start, first = await read(house)
    assert start == ("start", "e1:5", {"feed_epoch": "e1", "seq": 5, "recovered": True})
    assert first[1] == "e1:6"
    assert first[2]["task"] == "t-2"
    assert first[2]["data"] == {"a": 1}


@pytest.mark.parametrize("how", ["header", "query"])
async def test_a_position_before_the_ring_is_resumed_from_the_rows_without_gap(house, how):
    for seq in range(1, 8):
        house.rows.event(seq)
    house.feed.last_seq = 7
    house.feed.ring = [(seq, event(seq)) for seq in (6, 7)]
    house.feed.coming = [(8, event(8))]
    frames = await (read(house, {"Last-Event-ID": "e1:2"}) if how == "header" else read(house, after="e1:2"))
    assert frames[0][2]["recovered"] is True
    assert [frame[1] for frame in frames[1:]] == [f"e1:{seq}" for seq in range(3, 9)]


@pytest.mark.parametrize("position", ["old:2", "e1:99"])
async def test_a_position_that_means_nothing_here_is_a_reset(house, position):
    house.rows.event(1)
    house.feed.last_seq = 1
    house.feed.coming = [(2, event(2))]
    frames = await read(house, {"Last-Event-ID": position})
    assert frames[0] == ("reset", "e1:1", {"feed_epoch": "e1", "seq": 1, "recovered": False})
    assert [frame[1] for frame in frames[1:]] == ["e1:2"]


async def test_pruned_rows_are_a_reset_never_a_partial_stream(house):
    for seq in (4, 5):
        house.rows.event(seq)
    house.feed.last_seq = 5
    frames = await read(house, {"Last-Event-ID": "e1:1"})
    assert [frame[0] for frame in frames] == ["start", "reset"]
    assert frames[1][2] == {"feed_epoch": "e1", "seq": 5, "recovered": False}


async def test_filters_leave_out_events_of_others(house):
    house.feed.coming = [(1, event(1, task=1, agent="bob")), (2, event(2, task=2)), (3, event(3, agent="bob"))]
    assert [frame[1] for frame in (await read(house, task="t-1"))[1:]] == ["e1:1"]
    assert [frame[1] for frame in (await read(house, agent="bob"))[1:]] == ["e1:1", "e1:3"]


async def test_an_unreadable_position_is_a_422(house):
    async with house.client(Scope.OBSERVER) as client:
        answer = await client.get("/api/v1/events", headers={"Last-Event-ID": "seven"})
    assert answer.status_code == 422


async def test_following_the_real_feed_loses_and_repeats_nothing_while_events_arrive(house):
    feed = Feed("e1", 3)
    for seq in range(1, 4):
        house.rows.event(seq)
    feed.publish([(4, event(4))])
    house.rows.event(4)
    stream = follow(feed, MemoryReader(house.connection), 1)
    seen = [(await anext(stream))[0] for _ in range(2)]
    feed.publish([(5, event(5)), (6, event(6))])
    seen += [(await anext(stream))[0] for _ in range(3)]
    feed.close()
    assert [entry async for entry in stream] == []
    assert seen == [2, 3, 4, 5, 6]


async def test_a_gap_is_raised_before_anything_behind_it_is_given(house):
    house.rows.event(5)
    stream = follow(Feed("e1", 5), MemoryReader(house.connection), 1)
    with pytest.raises(GapError):
        await anext(stream)


async def test_an_idle_stream_beats_and_loses_nothing_by_it():
    release = asyncio.Event()

    async def source():
        await release.wait()
        yield (1, event(1))

    beats = _with_beats(source(), 0, anything, beat_s=0)
    assert [await anext(beats) for _ in range(3)] == [(0, None)] * 3
    release.set()
    found = None
    while found is None:
        seq, found = await anext(beats)
    assert seq == 1
    assert [entry async for entry in beats if entry[1] is not None] == []


async def test_a_filtered_stream_beats_with_its_position_while_others_events_flow():
    async def source():
        for seq in itertools.count(1):
            await asyncio.sleep(0)
            yield (seq, event(seq, task=1))

    def nothing(_event):
        return False

    beats = _with_beats(source(), 0, nothing, beat_s=0.01)
    (first, nobody), (second, _) = [await asyncio.wait_for(anext(beats), 5) for _ in range(2)]
    await beats.aclose()
    assert nobody is None
    assert 0 < first < second, "whoever resumes from a beat is not sent over what was left out"


async def test_a_wanted_event_puts_the_next_beat_off():
    async def source():
        for seq in (1, 2, 3):
            yield (seq, event(seq, task=seq % 2))

    only_odd = _with_beats(source(), 0, lambda found: found.task == 1, beat_s=60)
    assert [seq async for seq, _ in only_odd] == [1, 3]


async def test_closing_a_stream_closes_its_source():
    closed = []

    async def source():
        try:
            await asyncio.Event().wait()
            yield (1, event(1))
        finally:
            closed.append(True)

    beats = _with_beats(source(), 0, anything, beat_s=0)
    await anext(beats)
    await beats.aclose()
    assert closed == [True]
