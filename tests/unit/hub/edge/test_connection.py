"""When an answer that is not taken ends its connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

from hub.edge.http.connection import WRITE_S, Connection


class Loop:
    """Timers by hand."""

    def __init__(self) -> None:
        self.due: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def call_later(self, delay_s: float, callback: Callable[..., None], *given: Any) -> Loop:
        assert delay_s == WRITE_S
        self.due.append((callback, given))
        return self

    def cancel(self) -> None:
        self.due.clear()

    def fire(self) -> None:
        callback, given = self.due.pop()
        callback(*given)


class Transport:
    """A buffer."""

    size = 1_000_000
    aborted = False

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.aborted = True


def connection() -> tuple[Connection, Loop, Transport]:
    found: Any = Connection.__new__(Connection)
    found.loop, found.transport = loop, transport = Loop(), Transport()
    found.flow = FlowControl(found.transport)
    found.pause_writing()
    return found, loop, transport


def test_who_takes_nothing_is_cut_off() -> None:
    _, loop, transport = connection()
    loop.fire()
    assert transport.aborted


def test_who_takes_slowly_is_waited_for_as_long_as_something_is_taken() -> None:
    _, loop, transport = connection()
    for _ in range(3):
        transport.size -= 1
        loop.fire()
        assert not transport.aborted
    loop.fire()
    assert transport.aborted


def test_who_has_caught_up_has_no_deadline() -> None:
    found, loop, transport = connection()
    found.resume_writing()
    assert loop.due == []
    assert not transport.aborted
