"""Sidecars that say anything, in any order, over sockets that come and go: the hub never raises, and nothing of a session outlives it.

A walk opens up to three links for two agents and says valid frames, frames with a wrong fence or session, halves, noise. Whatever was said,
the door is then as if nobody had been there, and serves the next one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.edge.link import Link
from tests.support.conductor import turns
from tests.support.door import SIDECAR, Door, Wire, door, hello

LONG = os.environ.get("HYPOTHESIS") == "long"
PROFILE = settings(
    max_examples=2000 if LONG else 60,
    derandomize=not LONG,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
AGENTS = ("w1", "w2")
SHA = "ab" * 32

numbers = st.sampled_from([-1, 0, 1, 2, 3, 2**53, 2**53 + 1, True, None, "1", 1.5])
fences = st.fixed_dictionaries({"task": st.sampled_from([1, 2, 9]), "lease_epoch": st.integers(0, 3)})
sessions = st.fixed_dictionaries({}, optional={"e": st.integers(0, 3), "id": st.integers(0, 9)})
hellos = st.fixed_dictionaries(
    {"agent_id": st.sampled_from([*AGENTS, "A"]), "install_id": st.sampled_from(["i", "j"]), "boot_id": st.just("b")},
    optional={
        "versions": st.sampled_from([["agentcom.v1"], ["agentcom.v0"], []]),
        "held": st.lists(fences.map(lambda at: at | {"phase": "woken"}), max_size=2),
        "outbox": st.lists(fences.map(lambda at: at | {"sha256": SHA}), max_size=2),
        "takeover": st.booleans(),
    },
).map(lambda body: {"versions": ["agentcom.v1"], "t": "hello"} | body)
ABOUT: dict[str, dict[str, Any]] = {
    "accept": {},
    "decline": {"code": "busy"},
    "progress": {"n": 1, "note": "x"},
    "question": {"qid": "q", "text": "?"},
    "give_back": {"reason": "unstarted"},
    "result": {"outcome": "succeeded", "sha256": SHA},
}
spoken = st.one_of(
    hellos,
    st.tuples(st.sampled_from(sorted(ABOUT)), fences, sessions).map(
        lambda said: {"t": said[0]} | ABOUT[said[0]] | said[1] | said[2]
    ),
    st.tuples(fences, sessions).map(
        lambda said: {"t": "beat", "sent_mono": 1, "leases": [said[0] | {"phase": "woken"}]} | said[1]
    ),
    st.fixed_dictionaries({"t": st.sampled_from(["ok", "bye", "error", "mail", "accepted", ""]), "re": numbers}),
    st.fixed_dictionaries({"t": st.sampled_from(sorted(ABOUT)), "task": numbers, "lease_epoch": numbers}),
).map(orjson.dumps)
noise = st.one_of(st.binary(max_size=40), spoken.map(lambda data: data[: len(data) // 2]), st.just(b"[" * 5000))


@dataclass(frozen=True)
class Step:
    """One thing that happens on one of three sockets, or to the hub's work."""

    kind: str
    socket: int = 0
    data: bytes = b""


KINDS = ["greet", "say", "say", "say", "say", "say", "say", "noise", "cut", "submit", "settle"]
steps = st.tuples(st.sampled_from(KINDS), st.integers(0, 2), spoken, noise).map(
    lambda step: Step(step[0], step[1], step[3] if step[0] == "noise" else step[2])
)


@PROFILE
@given(st.lists(steps, min_size=20, max_size=60))
def test_no_sequence_of_frames_fails_the_hub_or_outlives_its_link(walk: list[Step]) -> None:
    asyncio.run(_walk(walk))


async def _walk(walk: list[Step]) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, failure: failures.append(failure))
    async with door() as here:
        sockets: list[tuple[Link, Wire] | None] = [None, None, None]
        for step in walk:
            await _take(here, sockets, step)
        for link in list(here.links._all):
            link.closed()
        await _until(lambda: not here.links._all and not here.links._looking_up and not here.links._greeting)
        assert (here.links._all, here.links._live, here.links.connected) == (set(), {}, 0)
        assert not any(agent.connected for agent in here.stage.conductor.scheduler.agents())
        _, wire = await here.greeted("w3")
        assert wire.frames[0].session_epoch == 1, "the next one is served"
    assert failures == []


async def _take(here: Door, sockets: list[tuple[Link, Wire] | None], step: Step) -> None:
    match step.kind:
        case "submit":
            await here.stage.submit()
        case "greet":
            link, _ = sockets[step.socket] = here.plug(SIDECAR)
            here.say(link, hello(AGENTS[step.socket % 2]))
            await turns(20)
        case "settle":
            await turns(10)
        case "cut":
            if (socket := sockets[step.socket]) is not None:
                socket[0].closed()
                sockets[step.socket] = None
        case _:
            socket = sockets[step.socket]
            if socket is None or not socket[0].open:
                socket = sockets[step.socket] = here.plug(SIDECAR)
            socket[0].received(step.data)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0)
