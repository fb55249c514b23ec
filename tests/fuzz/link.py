"""Sidecars that say anything over sockets that come and go; and one that says anything about what is another's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson

from hub.ids import LeaseEpoch, TaskId
from hub.wire import frames
from tests.fuzz.inputs import Bytes
from tests.property.test_link import ABOUT, KINDS, Step, _until, _walk
from tests.support.conductor import turns
from tests.support.door import Door, door

TASKS = (1, 1, 2, 9)
EPOCHS = (1, 1, 0, 2)
ODD: tuple[Any, ...] = (None, True, -1, 2**53 + 1, "1", 1.5)
DECIDED = ("task", "attempt", "result", "question", "control", "change", "review", "blob")
"""What only the holder of a task may change."""


def link(data: bytes) -> None:
    """No sequence of frames fails the hub, or outlives its link."""
    asyncio.run(_walk(list(_steps(Bytes(data)))))


def refused(data: bytes) -> None:
    """Whatever an agent says about another's task, nothing that was decided about it changes."""
    asyncio.run(_refused(Bytes(data)))


def _steps(source: Bytes) -> Iterator[Step]:
    for _ in range(100):
        if not source.more:
            return
        kind = KINDS[source.number() % len(KINDS)]
        yield Step(kind, source.number() % 3, source.piece() if kind == "noise" else _frame(source))


def _frame(source: Bytes) -> bytes:
    """A frame of a sidecar, seldom a good one."""
    at: dict[str, Any] = {"task": TASKS[source.number() % 4], "lease_epoch": EPOCHS[source.number() % 4]}
    kind, wrong = source.number(), source.number()
    if wrong >= 224:
        at[("task", "lease_epoch", "e", "id")[wrong % 4]] = ODD[wrong // 4 % len(ODD)]
    elif wrong % 2:
        at["e"] = wrong // 2 % 3
    if kind < 32:
        agent = {
            "agent_id": ("w1", "w2", "A")[kind % 3],
            "install_id": "ij"[kind // 3 % 2],
            "boot_id": "b",
            "versions": ["agentcom.v1"],
        }
        return orjson.dumps({"t": "hello", "held": [at | {"phase": "woken"}], "takeover": bool(wrong % 2)} | agent)
    if kind < 64:
        return orjson.dumps({"t": "beat", "sent_mono": wrong, "leases": [at | {"phase": "woken"}]})
    if kind < 96:
        return orjson.dumps({"t": ("ok", "bye", "error", "accepted", "mail")[kind % 5], "re": wrong} | at)
    word = sorted(ABOUT)[kind % len(ABOUT)]
    return orjson.dumps({"t": word} | ABOUT[word] | at)


async def _refused(source: Bytes) -> None:
    async with door() as here:
        link, wire = await here.greeted("w1")
        await here.stage.submit()
        await wire.until(frames.Assign)
        here.say(link, frames.Accept(id=2, task=TaskId(1), lease_epoch=LeaseEpoch(1)))
        await wire.until(frames.Accepted)
        other, heard = await here.greeted("w2", quiet=True)
        before = _decided(here)
        while source.more and other.open:
            if source.number() % 8:
                data = _frame(source)
                other.received(data if b'"hello"' not in data else b"{}")
            else:
                other.received(source.piece())
        if other.open:
            here.say(other, frames.Bye(id=99))
            await _until(lambda: not other.open or any(frame.re == 99 for frame in heard.frames))
        await turns(20)
        assert _decided(here) == before
        assert here.links.connected >= 1, "the holder is not disturbed"


def _decided(here: Door) -> dict[str, list[dict[str, Any]]]:
    return {table: here.stage.store.rows(f"SELECT * FROM {table}") for table in DECIDED}
