"""A sidecar's end of a real socket, in blocking style: says frames or any bytes, hears frames and how it was closed."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, TypeVar

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from hub.ids import LeaseEpoch, Outcome, Phase, TaskId, Verdict
from hub.wire import frames
from hub.wire.codec import decode_from_hub, encode, result_digest

HEAR_S = 10.0
V1 = "agentcom.v1"

F = TypeVar("F")


class Peer:
    """An upgraded socket; :meth:`greet` opens a session. Raises ``InvalidStatus`` when the hub refuses the upgrade."""

    def __init__(
        self, port: int, token: str | None, *, path: str = "/ws", subprotocol: str | None = V1, headers: Any = ()
    ) -> None:
        authorization = [("Authorization", f"Bearer {token}")] if token is not None else []
        self._held = ExitStack()
        dialled = connect(
            f"ws://127.0.0.1:{port}{path}",
            additional_headers=[*authorization, *headers],
            subprotocols=[Subprotocol(subprotocol)] if subprotocol is not None else None,
            compression=None,
            ping_interval=None,
            max_size=None,
            close_timeout=1,
            proxy=None,
        )
        self.socket = self._held.enter_context(dialled)
        self.epoch = 0
        self._beats = 0
        self._results = 0
        self._quiet = False

    def send(self, message: Any) -> None:
        """Any bytes as one text message; a list of strings as fragments; ``memoryview`` as a binary message."""
        if isinstance(message, memoryview):
            self.socket.send(bytes(message), text=False)
        elif isinstance(message, bytes):
            self.socket.send(message, text=True)
        else:
            self.socket.send(message)

    def say(self, frame: frames.Frame) -> None:
        self.send(encode(frame))

    def hear(self, kind: type[F] | None = None) -> F:
        """The next frame (of this kind)."""
        while True:
            frame: Any = decode_from_hub(self.socket.recv(timeout=HEAR_S))
            if kind is None or isinstance(frame, kind):
                return frame

    def greet(self, agent: str, **fields: Any) -> frames.Welcome:
        self._quiet = bool(fields.get("quiet"))
        given = {"id": 1, "versions": (V1,), "install_id": f"i-{agent}", "boot_id": "b"} | fields
        self.say(frames.Hello(agent_id=agent, **given))
        welcome = self.hear(frames.Welcome)
        self.epoch = welcome.session_epoch
        return welcome

    def beat(self) -> list[Any]:
        """Whatever the hub says before it answers a beat.

        The beat names a lease that nobody has: its answer is not confirmation alone, so it comes after everything that was
        decided before is committed.
        """
        self._beats += 1
        nobodys = frames.LeaseBeat(task=TaskId(2**53), lease_epoch=LeaseEpoch(0), phase=Phase.WOKEN)
        self.say(frames.Beat(id=1_000_000 + self._beats, sent_mono=self._beats, quiet=self._quiet, leases=(nobodys,)))
        heard: list[Any] = []
        while not (isinstance(frame := self.hear(), frames.Beaten) and frame.re == 1_000_000 + self._beats):
            heard.append(frame)
        return heard

    def heard(self, kind: type[F], within_s: float = 0.2) -> F | None:
        """A frame of this kind if one comes soon; what else comes is dropped."""
        deadline = time.monotonic() + within_s
        with suppress(TimeoutError):
            while True:
                frame: Any = decode_from_hub(self.socket.recv(timeout=max(0.0, deadline - time.monotonic())))
                if isinstance(frame, kind):
                    return frame
        return None

    def renew(self, task: int, lease_epoch: int) -> bool:
        """Beat for a lease; whether it is still this session's."""
        self._beats += 1
        lease = frames.LeaseBeat(task=TaskId(task), lease_epoch=LeaseEpoch(lease_epoch), phase=Phase.WOKEN)
        self.say(frames.Beat(id=1_000_000 + self._beats, sent_mono=self._beats, quiet=self._quiet, leases=(lease,)))
        while (frame := self.hear(frames.Beaten)).re != 1_000_000 + self._beats:
            pass
        return frame.leases[0].ok

    def sealed(self, task: int, lease_epoch: int, **fields: Any) -> frames.Result:
        """A result with its digest; a success, unless it says otherwise."""
        self._results += 1
        given = {"id": 3_000_000 + self._results, "outcome": Outcome.SUCCEEDED, "sha256": ""} | fields
        result = frames.Result(task=TaskId(task), lease_epoch=LeaseEpoch(lease_epoch), **given)
        return replace(result, sha256=result_digest(result))

    def report(self, result: frames.Result) -> Verdict:
        """Say a result (again); its verdict."""
        self.say(result)
        while (ack := self.hear(frames.ResultAck)).task != result.task:
            pass
        return ack.verdict

    def closed(self) -> tuple[int | None, list[Any]]:
        """The code the hub closes with, and the frames it sent before."""
        heard: list[Any] = []
        try:
            while True:
                heard.append(decode_from_hub(self.socket.recv(timeout=HEAR_S)))
        except ConnectionClosed as gone:
            return (gone.rcvd.code if gone.rcvd is not None else None), heard

    def leave(self) -> None:
        """Say goodbye, if anybody listens, and hear that it was understood."""
        with suppress(ConnectionClosed):
            self.say(frames.Bye(id=2_000_000))
            while self.hear(frames.Ok if self.epoch else None).re != 2_000_000:
                pass
        self.close()

    def close(self) -> None:
        self._held.close()
