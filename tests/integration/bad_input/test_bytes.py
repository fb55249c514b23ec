"""What is no HTTP at all: answered if that makes sense, the connection ended, nothing changed, nobody else disturbed.

One line a case: the pieces that are sent one after the other (each waits for the hub to have had time for the one before), and the status
of the last answer; None for a connection that is ended without one.
"""

from __future__ import annotations

import json
import socket
from contextlib import closing, suppress

import pytest

from tests.support.living_hub import LivingHub
from tests.support.refusals import check_words, nothing_changes

HOST = b"Host: x\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST
POST = b"POST /api/v1/tasks HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
TASK = b'{"title": "smuggled"}'
UPGRADE = b"GET /ws HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"

# fmt: off
CASES = {
    "noise": ([b"\x00\xff\x16\x03\x01\r\n\r\n"], 400),
    "a greeting of TLS": ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n"], 400),
    "HTTP/2": ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], 400),
    "no host": ([b"GET /healthz HTTP/1.1\r\n\r\n"], 400),
    "a path with a space": ([b"GET /health z HTTP/1.1\r\n" + HOST + b"\r\n"], 400),
    "a path with an escape": ([b"GET /\x1b[31m HTTP/1.1\r\n" + HOST + b"\r\n"], 400),
    "a header with NUL": ([GET + b"X: a\x00b\r\n\r\n"], 400),
    "a head beyond all bounds": ([GET + b"X: " + b"x" * 200_000 + b"\r\n\r\n"], 400),
    "a head without end": ([GET + b"X: x\r\n" * 40_000], 400),
    "two lengths": ([POST + b"Content-Length: 21\r\nContent-Length: 0\r\n\r\n" + TASK], 400),
    "a length that is none": ([POST + b"Content-Length: -1\r\n\r\n" + TASK], 400),
    "a length beyond all numbers": ([POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + TASK], 400),
    "an encoding that is none": ([POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + TASK], 400),
    "a chunk that is none": ([POST + b"Authorization: Bearer {admin}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + TASK], 400),
    "a chunk that is none behind the answer": ([POST + b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\n" + TASK], 400),
    "more than the length said": ([POST + b"Content-Length: 4\r\n\r\n" + TASK + b"\r\n\r\n"], 400),
    "a socket without a key": ([UPGRADE + b"Authorization: Bearer {agent}\r\nSec-WebSocket-Protocol: agentcom.v1\r\nSec-WebSocket-Version: 13\r\n\r\n"], 400),
    "a socket of an old version": ([UPGRADE + b"Authorization: Bearer {agent}\r\nSec-WebSocket-Protocol: agentcom.v1\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"], 400),
    "an upgrade to something else": ([GET + b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n"], 200),
    "frames before the upgrade": ([UPGRADE + b"\r\n\x81\x05hello"], 401),
}
# fmt: on


@pytest.mark.parametrize(("pieces", "status"), CASES.values(), ids=CASES)
def test_what_is_no_http_is_ended_and_changes_nothing(hub: LivingHub, pieces: list[bytes], status: int | None) -> None:
    with nothing_changes(hub):
        heard = b""
        with closing(socket.create_connection(("127.0.0.1", hub.port), timeout=10)) as connection:
            for piece in pieces:
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(filled(piece, hub))
                    if piece is not pieces[-1]:
                        heard += connection.recv(65_536)
            with suppress(ConnectionResetError):
                while data := connection.recv(65_536):
                    heard += data
    head, _, body = heard[heard.rfind(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status, heard
    check_words(heard.decode().replace("\r\n", "\n"), hub)
    if b"application/problem+json" in head:
        assert json.loads(body)["status"] == status


def filled(piece: bytes, hub: LivingHub) -> bytes:
    for name in ("admin", "agent"):
        piece = piece.replace(b"{" + name.encode() + b"}", hub.tokens[name].encode())
    return piece
