"""An HTTP connection that waits for a request, and for its answer to be taken, only so long, and ends in order when what comes is none.

Uvicorn bounds a connection that says nothing between two requests, but not one that says it byte by byte: each byte would hold a socket of
the hub for ever. Nor one that does not read: what waits for it would stay in memory for as long as it likes. And it fails where the rest of
a request turns out to be no HTTP after the answer has left. How long a body may take is the middleware's to say.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar

from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from hub.edge.http.problem import MEDIA_TYPE, problem

HEAD_S = 10.0
"""From the first byte that could be a request's to the end of its head."""
WRITE_S = 30.0
"""Whoever takes nothing of what waits for them for so long is cut off; a stream resumes where it was."""


MAX_WAITING = 2048
"""Connections of this process without a request at once: each is an open file, and they cost those who open them next to nothing. Beyond,
the one that has waited longest is closed: whoever means it says at once what he wants."""


class Connection(H11Protocol):
    """One client's connection: a head that is not whole in time is answered 408 and ends it, an answer that is not taken just ends it."""

    waiting: ClassVar[dict[Connection, None]] = {}
    """Those that are waited for, the longest first."""
    _deadline: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._mind()

    def data_received(self, data: bytes) -> None:
        """Some of a request."""
        super().data_received(data)
        self._mind()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is here already."""
        super().on_response_complete()
        self._mind()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP: say so, unless something else was said already, and end."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self._say(problem(HTTPStatus.BAD_REQUEST, "bad_request", msg, hint="speak HTTP/1.1, as RFC 9112 says"))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        super().connection_lost(exc)
        self._disarm()
        self._unstick()

    def shutdown(self) -> None:
        """The hub goes: whoever does not read is not waited for."""
        if self.flow.write_paused:
            self.transport.abort()
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """The client keeps up again."""
        super().resume_writing()
        self._unstick()

    def _watch(self) -> None:
        self._stuck = self.loop.call_later(WRITE_S, self._look, self.transport.get_write_buffer_size())

    def _look(self, waiting_bytes: int) -> None:
        if self.transport.get_write_buffer_size() < waiting_bytes:
            self._watch()
        else:
            self.transport.abort()

    def _unstick(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()

    def _mind(self) -> None:
        """Arm the deadline where a head is awaited; take it away where a request is served or the socket is a sidecar's now."""
        served = self.cycle is not None and not self.cycle.response_complete
        if served or self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._disarm()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self._give_up)
            self.waiting[self] = None
            if len(self.waiting) > MAX_WAITING:
                next(iter(self.waiting)).make_room()

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self.waiting.pop(self, None)

    def make_room(self) -> None:
        """End it without a word."""
        self._disarm()
        self.transport.abort()

    def _give_up(self) -> None:
        self._disarm()
        if self.transport.is_closing():
            return
        if self.conn.trailing_data[0]:  # a connection that a browser opened in advance is told nothing
            late = f"the head of the request was not here within {HEAD_S:g} s"
            self._say(problem(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", late))
        self.transport.close()

    def _say(self, answer: Response) -> None:
        """Write an answer past the parser, which has given up on this connection."""
        phrase = HTTPStatus(answer.status_code).phrase
        head = f"HTTP/1.1 {answer.status_code} {phrase}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(answer.body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + bytes(answer.body))
