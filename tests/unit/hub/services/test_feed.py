"""The live end of the events: gap-free for whoever keeps up, an end for whoever does not, bounded for all."""

from __future__ import annotations

import asyncio

import pytest

from hub.core.rows import EventRow
from hub.services import feed as module
from hub.services.feed import Feed, Stream, TooManyObservers


def events(first: int, last: int) -> list[tuple[int, EventRow]]:
    return [(seq, EventRow(seq, "test", "hub")) for seq in range(first, last + 1)]


async def drained(stream: Stream) -> list[int]:
    """Everything in a stream that has ended."""
    async with asyncio.timeout(5):
        return [seq async for seq, _ in stream]


async def test_an_observer_from_now_on_sees_what_follows() -> None:
    feed = Feed("e", 10)
    feed.publish(events(11, 12))
    async with feed.subscribe(None) as stream:
        assert stream.first == 13
        feed.publish(events(13, 15))
        feed.close()
        assert await drained(stream) == [13, 14, 15]
    assert feed.last_seq == 15


async def test_an_observer_resumes_from_the_ring_without_a_gap() -> None:
    feed = Feed("e", 0)
    feed.publish(events(1, 9))
    async with feed.subscribe(4) as stream:
        assert stream.first == 5, "nothing has to be read from the rows"
        feed.publish(events(10, 11))
        feed.close()
        assert await drained(stream) == [5, 6, 7, 8, 9, 10, 11]


async def test_what_left_the_ring_must_be_read_from_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RING_EVENTS", 4)
    feed = Feed("e", 0)
    feed.publish(events(1, 9))
    async with feed.subscribe(2) as stream:
        assert stream.first == 6, "3 to 5 are in the rows, the rest follows here"
        feed.close()
        assert await drained(stream) == [6, 7, 8, 9]


async def test_after_a_restart_everything_old_is_in_the_rows() -> None:
    feed = Feed("e", 100)
    async with feed.subscribe(40) as stream:
        assert stream.first == 101


async def test_a_slow_observer_ends_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OBSERVER_EVENTS", 3)
    monkeypatch.setattr(module, "RING_EVENTS", 2)
    feed = Feed("e", 0)
    async with feed.subscribe(None) as slow:
        feed.publish(events(1, 5))
        feed.publish(events(6, 7))
        async with feed.subscribe(None) as quick:
            feed.publish(events(8, 9))
            feed.close()
            assert await drained(slow) == [1, 2, 3, 4, 5], "contiguous up to its end, then the rows"
            assert await drained(quick) == [8, 9]


async def test_observers_are_bounded_and_leave_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OBSERVERS", 1)
    feed = Feed("e", 0)
    async with feed.subscribe(None):
        with pytest.raises(TooManyObservers):
            async with feed.subscribe(None):
                pass
    async with feed.subscribe(None):
        pass


async def test_a_closed_feed_ends_whoever_comes() -> None:
    feed = Feed("e", 0)
    feed.close()
    async with feed.subscribe(None) as stream:
        assert await drained(stream) == []


def test_listeners_hear_every_batch() -> None:
    feed = Feed("e", 0)
    heard: list[int] = []
    feed.listen(lambda batch: heard.append(len(batch)))
    feed.publish(events(1, 3))
    feed.publish([])
    feed.publish(events(4, 4))
    assert heard == [3, 1]
