"""``python -m tests.crash.tapped sidecar …``: a sidecar that writes down every frame it sends and hears, for the histories.

Its link counts as stable at once instead of after a minute: a campaign kills every few seconds, and each kill is to meet the sidecars as
the first of a day would.

One JSON line a frame in the file ``CRASH_TAP``: ``at`` (microseconds UTC), ``way`` (``out`` before it is sent, ``in`` when it was
understood), and of the frame what a history needs. Failpoints work as under their own launcher.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.failpoints.__main__ import main

TAP = "CRASH_TAP"
STABLE_S = 0.0
KEPT = ("t", "id", "re", "task", "lease_epoch", "outcome", "verdict", "sent_mono")


def tap(file: Path) -> None:
    from sidecar import backoff, link

    backoff.STABLE_S = STABLE_S

    transmit, take = link._transmit, link.Link._take

    @functools.wraps(transmit)
    async def sends(socket: Any, data: bytes) -> None:
        _note(file, "out", json.loads(data))
        await transmit(socket, data)

    @functools.wraps(take)
    async def hears(self: Any, message: str | bytes) -> None:
        _note(file, "in", json.loads(message))
        await take(self, message)

    link._transmit, link.Link._take = sends, hears  # type: ignore[assignment, method-assign]


def _note(file: Path, way: str, frame: dict[str, Any]) -> None:
    kept = {name: frame[name] for name in KEPT if frame.get(name) is not None}
    for named in ("leases", "held", "outbox", "verdicts"):
        if frame.get(named):
            kept[named] = [
                {key: item[key] for key in ("task", "lease_epoch", "ok", "verdict", "phase") if key in item}
                for item in frame[named]
            ]
    line = json.dumps({"at": time.time_ns() // 1000, "way": way, **kept})
    with file.open("a") as log:
        log.write(line + "\n")


if __name__ == "__main__":
    tap(Path(os.environ[TAP]))
    sys.exit(main(*sys.argv[1:]))
