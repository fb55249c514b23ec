"""The history of each task, as seen by those who took part: the client, the agents' sidecars, and the hub's committed event log."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.crash.linearizability import Kind, Op

LEASED = frozenset({"assigned", "working", "blocked"})
FREE = frozenset({"queued", "scheduled", "waiting"})


class Lease(NamedTuple):
    """A fence as one side speaks under it."""

    task: int
    epoch: int


def by_task(*sources: Iterator[tuple[int, Op]] | list[tuple[int, Op]]) -> Mapping[int, list[Op]]:
    """Operations of all sources, by task."""
    found: dict[int, list[Op]] = defaultdict(list)
    for source in sources:
        for task, op in source:
            found[task].append(op)
    return found


def of_the_log(store: Path) -> Iterator[tuple[int, Op]]:
    """What the hub decided by itself: claims, leases that ended without a result, reviewed work sent back, and when tasks came to be.
    The store must be closed.
    """
    db = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    by_request = set(
        db.execute(
            "SELECT task, lease_epoch, ended_at FROM attempt WHERE (verdict = 'applied' AND cause != 'late')"
            " OR (cause = 'stopped' AND outcome = 'succeeded')"  # salvaged as it came; a salvage may also be noted afterwards
            " OR cause = 'cancel'"  # of an offer: nobody had to be stopped first
        )
    )
    rows = db.execute(
        "SELECT at, task, agent, lease_epoch, from_state, to_state FROM event"
        " WHERE kind LIKE 'task.%' AND to_state IS NOT NULL ORDER BY seq"
    )
    for at, task, agent, epoch, before, to in rows:
        moment: dict[str, Any] = {"began": at, "ended": at, "epoch": epoch}
        if before is None:
            yield task, Op(kind=Kind.SUBMIT, answer="ok", began=at, ended=at)
        elif to == "assigned":
            yield task, Op(kind=Kind.CLAIM, answer="ok", agent=agent, **moment)
        elif before in LEASED and to not in LEASED:
            if (task, epoch, at) not in by_request:
                yield task, Op(kind=Kind.RELEASE, answer="free" if to in FREE else "over", **moment)
        elif before == "in_review" and to in FREE:
            yield task, Op(kind=Kind.REOPEN, answer="ok", **moment)
    db.close()


def of_a_sidecar(tap: Path, agent: str) -> Iterator[tuple[int, Op]]:
    """What one agent said under its leases and how it was answered; what a dead connection left open stays unanswered."""
    open_ops: dict[tuple[str, Any], tuple[Lease, dict[str, Any]]] = {}
    frames = (json.loads(line) for line in tap.read_text("utf-8").splitlines()) if tap.exists() else iter(())

    def ask(key: tuple[str, Any], lease: Lease, kind: Kind, at: int, **more: Any) -> None:
        # said again before it was answered: the answer may be to either
        open_ops.setdefault(key, (lease, {"kind": kind, "began": at, "epoch": lease.epoch, "agent": agent, **more}))

    def answered(key: tuple[str, Any], at: int, answer: str) -> Iterator[tuple[int, Op]]:
        if (found := open_ops.pop(key, None)) is not None:
            lease, asked = found
            yield lease.task, Op(ended=at, answer=answer, **asked)

    def unanswered() -> Iterator[tuple[int, Op]]:
        for lease, asked in open_ops.values():
            yield lease.task, Op(ended=None, **asked)
        open_ops.clear()

    for frame in frames:
        at, lease = frame["at"], Lease(frame.get("task", 0), frame.get("lease_epoch", 0))
        match frame["way"], frame["t"]:
            case "out", "hello":
                yield from unanswered()
                for item in frame.get("held", ()):
                    held = Lease(item["task"], item["lease_epoch"])
                    ask(("held", held), held, Kind.RENEW, at)
            case "in", "welcome":
                for item in frame.get("verdicts", ()):
                    held = Lease(item["task"], item["lease_epoch"])
                    said = {"keep": "ok", "accepted": "ok", "stop": "lost"}.get(item["verdict"])
                    if said is not None:
                        yield from answered(("held", held), at, said)
            case "out", "accept":
                ask(("accept", lease), lease, Kind.ACCEPT, at)
            case "in", "accepted":
                yield from answered(("accept", lease), at, "ok")
            case "in", "revoke":
                yield from answered(("accept", lease), at, "revoked")
            case "out", "beat":
                for item in frame.get("leases", ()):
                    held = Lease(item["task"], item["lease_epoch"])
                    ask((f"beat {frame['sent_mono']}", held), held, Kind.RENEW, at)
            case "in", "beaten":
                for item in frame.get("leases", ()):
                    held = Lease(item["task"], item["lease_epoch"])
                    yield from answered((f"beat {frame['sent_mono']}", held), at, "ok" if item.get("ok") else "lost")
            case "out", "result":
                ask(("result", lease), lease, Kind.RESULT, at, success=frame["outcome"] == "succeeded")
            case "in", "result_ack":
                yield from answered(("result", lease), at, frame["verdict"])
    yield from unanswered()
