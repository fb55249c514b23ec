"""The weekly look at all of a living store: in a thread, over a connection of its own that can only read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import orjson
import structlog

from hub.ids import DAY, SECOND, Micros
from hub.services.backups import Recorder
from hub.store.base import Reader, Tx
from hub.store.copying import WAL_BYTES
from hub.store.integrity import check_living
from hub.store.manifest import span
from hub.store.wal import log_length
from hub.telemetry.metrics import Metrics
from hub.wire.finding import Finding, fail, ok, warn

EVERY_S = 7 * DAY / SECOND
POLL_S = 600.0
"""How often it is looked whether it is due; the first time so long after the start."""
CHECKED = "integrity"
"""In the table of meta: the last check, as a :class:`Checked` in JSON."""
CURE = "stop the hub and start it again: it refuses a broken store, and names the backup to restore"

log = structlog.get_logger("store")


class Checked(TypedDict):
    """A check of all pages, indexes and references. ``at`` is microseconds UTC; no faults: it was whole."""

    at: int
    took_s: float
    faults: list[str]


@dataclass(slots=True)
class Integrity:
    """The checks of one store."""

    path: Path
    recorder: Recorder
    reader: Reader
    metrics: Metrics
    now_us: Callable[[], Micros]
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def last(self) -> Checked | None:
        """What the newest check said."""
        row = await self.reader.one("meta_get", key=CHECKED)
        if row is None:
            return None
        found: Checked = orjson.loads(row["value"])
        return found

    async def if_due(self) -> None:
        """Check when the last time is a week ago."""
        last = await self.last()
        if last is None or self.now_us() - last["at"] >= EVERY_S * SECOND:
            await self.check()
        else:
            self._tell(last)

    async def check(self) -> Checked | None:
        """Check now and remember what was found; None when it was given up.

        That is when the hub ends, and when the log, which cannot be reset while it is read, has grown beyond bounds.
        """
        began = time.monotonic()
        faults, finished = await asyncio.to_thread(check_living, self.path, self._is_over)
        if not finished:
            log.info("store_check_given_up", took_s=round(time.monotonic() - began, 3))
            return None
        done = Checked(at=self.now_us(), took_s=round(time.monotonic() - began, 3), faults=faults)
        if faults:
            log.error("store_not_whole", faults=faults)

        def note(tx: Tx) -> Any:
            tx.run("meta_set", key=CHECKED, value=orjson.dumps(done).decode())

        await self.recorder.record(note)
        self._tell(done)
        return done

    def stop(self) -> None:
        """The hub ends: a check that is under way ends, too."""
        self._stopping.set()

    def _is_over(self) -> bool:
        return self._stopping.is_set() or log_length(self.path) > WAL_BYTES

    def _tell(self, done: Checked) -> None:
        self.metrics.integrity_checked.set(done["at"] / SECOND)
        self.metrics.integrity_faults.set(len(done["faults"]))

    async def examine(self) -> list[Finding]:
        """What the doctor says of the last check."""
        return [judge_checked(await self.last(), self.now_us())]


def judge_checked(last: Checked | None, now: int) -> Finding:
    """The last check of everything."""
    if last is None:
        return ok("integrity", f"checked when the hub started; all of it is within {span(POLL_S)}, then every week")
    age_s = max(0.0, (now - last["at"]) / SECOND)
    if last["faults"]:
        return fail("integrity", f"{span(age_s)} ago: {'; '.join(last['faults'])}", CURE)
    found = f"whole {span(age_s)} ago; it took {last['took_s']:.1f} s"
    if age_s > 2 * EVERY_S:
        return warn("integrity", found, "see the hub's log: the weekly check does not come to its end")
    return ok("integrity", found)
