"""Proof that an agent works end to end: it connects, and does a task of the hub's that wakes no runtime."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sidecar.hub import Hub, Refusal, Unreachable

CONNECT_S = 60.0
PROBE_S = 60.0
LOOK_S = 0.1
ENDED = frozenset({"done", "dead", "cancelled"})
SEE_LOG = "see the sidecar's log"
VERSIONS = "update the hub, or this machine, to the same version"


class ProbeError(Exception):
    """It did not work; the message holds the hub's own explanation."""

    code = "probe_failed"
    retryable = True

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


class Probe:
    """The probe of one agent. ``ended`` says that its sidecar is gone, and why."""

    def __init__(self, hub: Hub, agent: str, ended: Callable[[], str | None]) -> None:
        self.agent = agent
        self._hub = hub
        self._ended = ended
        self._began_s = self._connected_s = time.monotonic()
        self._task = ""

    def begin(self) -> None:
        """Wait until the hub has seen the agent, and give it the task; raises :class:`ProbeError`."""
        path = f"/agents/{self.agent}/probe"
        while True:
            try:
                self._task = str(self._ask("POST", path)["task"])
            except Refusal as refusal:
                if refusal.code != "unknown_agent":
                    raise ProbeError(f"the hub refuses to probe it: {refusal} ({refusal.code})", VERSIONS) from refusal
            else:
                self._connected_s = time.monotonic()
                return
            if time.monotonic() > self._began_s + CONNECT_S:
                cure = "see the sidecar's log; a proxy that passes requests may not pass the sidecar's socket"
                raise ProbeError(f"it has not connected within {CONNECT_S:g} s", cure)
            self._wait()

    def finish(self) -> str:
        """Wait for the task; how long everything took, in words. Raises :class:`ProbeError`."""
        while True:
            try:
                found = self._ask("GET", f"/agents/{self.agent}/probe/{self._task}")
            except Refusal as refusal:
                raise ProbeError(f"the hub does not tell of its probe: {refusal} ({refusal.code})", VERSIONS) from refusal
            if found.get("state") in ENDED:
                break
            if time.monotonic() > self._connected_s + PROBE_S:
                raise ProbeError(f"its probe {self._task} is not done: {found.get('explanation')}", SEE_LOG)
            self._wait()
        if found["state"] != "done":
            why = found.get("explanation") or found.get("cause") or found.get("outcome")
            raise ProbeError(f"its probe {self._task} ended {found['state']}: {why}", SEE_LOG)
        connected_s, done_s = self._connected_s - self._began_s, time.monotonic() - self._connected_s
        return f"connected after {connected_s:.1f} s, probe {self._task} done {done_s:.1f} s later"

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        try:
            return self._hub.ask(method, path)
        except Unreachable as fault:
            raise ProbeError(str(fault), fault.cure) from fault

    def _wait(self) -> None:
        if (why := self._ended()) is not None:
            raise ProbeError(why, SEE_LOG)
        time.sleep(LOOK_S)
