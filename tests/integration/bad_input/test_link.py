"""The sidecars' socket and what it must refuse: each bad frame has its answer, every fault at once, and changes nothing.

One line a case: what is said, what is heard in answer, in ``at`` the places of all faults. ``T`` stands for the task of the case.
Where no close is expected the link lives on, and shows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hub.ids import Scope
from hub.wire import frames
from hub.wire.codec import FRAME_BYTES
from tests.support.living_hub import LivingHub
from tests.support.peer import V1, Peer
from tests.support.refusals import check_words, nothing_changes, places

ANSI, BIDI, NUL = "\x1b[31m", "\u202e", "\x00"
OWNERS = 4
"""The task that the agent ``owner`` works on; its fence is 1."""
DIGEST = "ab" * 32


@dataclass(frozen=True, kw_only=True)
class Case:
    id: str
    said: tuple[Any, ...] = field(repr=False)
    heard: list[str]
    at: list[str]
    says: str
    state: str
    closes: int | None

    @property
    def agent(self) -> str:
        """A name of its own."""
        return re.sub(r"[^a-z0-9]", "-", self.id.lower())


def case(
    id: str,
    *said: Any,
    heard: str = "error malformed",
    at: str = "",
    says: str = "",
    state: str = "greeted",
    closes: int | None = None,
) -> Case:
    """``state``: fresh (no hello yet), greeted, or working on a task whose fence is 1. ``heard``: answers, separated by commas."""
    return Case(
        id=id,
        said=said,
        heard=[one for one in heard.split(", ") if one],
        at=sorted(at.split()),
        says=says,
        state=state,
        closes=closes,
    )


def hello(**fields: Any) -> dict[str, Any]:
    return {"t": "hello", "id": 9, "versions": [V1], "agent_id": "late", "install_id": "i-late", "boot_id": "b"} | fields


def about(kind: str, task: Any = "T", epoch: Any = 1, **fields: Any) -> dict[str, Any]:
    return {"t": kind, "id": 9, "task": task, "lease_epoch": epoch} | fields


def result(task: Any = "T", epoch: Any = 1, **fields: Any) -> dict[str, Any]:
    return about("result", task, epoch, outcome="failed", sha256=DIGEST) | fields


LEASE = {"task": "T", "lease_epoch": 1, "phase": "woken"}
ASKED = {"qid": "q", "text": "?"}

# fmt: off
UNREADABLE = [
    case("garbage", b"{nonsense", says="line 1 column 2"),
    case("nothing", b"", says="not a JSON object"),
    case("a list", b"[]", says="not a JSON object"),
    case("NaN", b'{"t": "beat", "sent_mono": NaN}', says="not a JSON object"),
    case("nested deep", b'{"t": "beat", "sent_mono": ' + b"[" * 100_000, says="depth limit"),
    case("not UTF-8", b'{"t": "bye\xff"}', says="not a JSON object"),
    case("half a character", b'{"t": "bye", "reason": "\\ud800"}', says="not a JSON object"),
    case("larger than a frame", b'{"t": "bye", "reason": "' + b"x" * FRAME_BYTES + b'"}', says="262144 bytes; send large bodies as blobs"),
    case("larger than a message", b" " * 1_048_577, heard="", closes=1009),
    case("binary", memoryview(b'{"t": "bye"}'), heard="", closes=4501),
    case("in pieces", ['{"t":', ' "bye"}'], heard="", closes=4501),
]

MALFORMED = [
    case("no type", {"id": 3}, says="needs a type in 't'"),
    case("type is a number", {"t": 7}, heard="error unsupported", says="'7'"),
    case("type with an escape", {"t": f"{ANSI}{BIDI}"}, heard="error unsupported", says=r"\x1b[31m\u202e"),
    case("type of a later version", {"t": "transcript", "id": 3}, heard="error unsupported", says="'transcript'"),
    case("frame of the hub", {"t": "welcome", "session_epoch": 9}, heard="error unsupported"),
    case("three faults", about("accept", "1", -1, id=-1), at="accept.id accept.lease_epoch accept.task"),
    case("nothing but a type", {"t": "question"}, at="question.lease_epoch question.qid question.task question.text"),
    case("numbers that are none", about("accept", True, 1.0), at="accept.lease_epoch accept.task"),
    case("numbers beyond all", about("accept", 2**70, 2**53 + 1), at="accept.lease_epoch accept.task", says="9007199254740992"),
    case("number of a hundred digits", b'{"t": "beat", "sent_mono": ' + b"9" * 100 + b"}", at="beat.sent_mono"),
    case("unknown words", about("give_back", 1, reason="bored"), at="give_back.reason", says="'unstarted', 'drain' or 'parked'"),
    case("phase of no journal", {"t": "beat", "sent_mono": 1, "leases": [LEASE | {"task": 1, "phase": "asleep"}]}, at="beat.leases.0.phase", says="'assigned'"),
    case("17 leases", {"t": "beat", "sent_mono": 1, "leases": [LEASE | {"task": 1}] * 17}, at="beat.leases", says="at most 16"),
    case("note too long", {"t": "beat", "sent_mono": 1, "note": "x" * 257}, at="beat.note"),
    case("more faults than are listed", {"t": "beat", "sent_mono": 1, "leases": [{"task": 0, "lease_epoch": -1, "phase": ""}] * 16}, says="48 faults, the first 32 are listed",
         at=" ".join(f"beat.leases.{i}.{name}" for i in range(16) for name in ("lease_epoch", "phase", "task") if 3 * i + ("task", "lease_epoch", "phase").index(name) < 32)),
    case("money beyond every float", b'{"t": "result", "task": 1, "lease_epoch": 1, "outcome": "failed", "sha256": "x", "usage": {"cost": 1e999}}', says="infinity"),
]

SESSIONS = [
    case("a beat before hello", {"t": "beat", "sent_mono": 1}, heard="error no_session", says="the first frame is hello", state="fresh"),
    case("a result before hello", result(1, outcome="triumph"), heard="error malformed_result", at="result.outcome", state="fresh"),
    case("a second hello", hello(), heard="error already_greeted", says="one hello"),
    case("a hello with faults", hello(versions=[], agent_id="O T", install_id=""), at="hello.agent_id hello.install_id hello.versions", state="fresh"),
    case("names of a hello that are none", hello(install_id=f"i{NUL}", boot_id="a b", capabilities=["ok", BIDI, "A"], projects=["../x"], runtimes=[{"name": ANSI}]), state="fresh",
         at="hello.boot_id hello.capabilities.1 hello.capabilities.2 hello.install_id hello.projects.0 hello.runtimes.0.name"),
    case("a hello of everything", hello(capabilities=["a"] * 65, held=[LEASE | {"task": 1}] * 17, outbox=[{}]), at="hello.capabilities hello.held hello.outbox.0.lease_epoch hello.outbox.0.sha256 hello.outbox.0.task", state="fresh"),
    case("another version", hello(versions=["agentcom.v0"]), heard="error version", says="agentcom.v1", state="fresh", closes=4502),
    case("another installation's name", hello(agent_id="owner", install_id="thief"), heard="error name_in_use", says="another installation", state="fresh", closes=4410),
    case("another installation takes over", hello(agent_id="owner", install_id="thief", takeover=True), heard="error name_in_use", state="fresh", closes=4410),
    case("another session's epoch", about("give_back", reason="unstarted", e=77), heard="error stale_session", says="this session is 1", state="working"),
    case("ten violations", *[b"{"] * 10, heard=", ".join(["error malformed"] * 10), closes=4501),
]

FENCES = [
    case("accept of an older fence", about("accept", epoch=0), heard="revoke not_yours", state="working"),
    case("accept of a fence to come", about("accept", epoch=2), heard="revoke not_yours", state="working"),
    case("accept of an unknown task", about("accept", 999_999), heard="revoke not_yours"),
    case("accept of another's task", about("accept", OWNERS), heard="revoke not_yours"),
    case("decline of an older fence", about("decline", epoch=0, code="busy"), heard="ok", state="working"),
    case("decline of what is worked on", about("decline", code="busy"), heard="ok", state="working"),
    case("decline of another's task", about("decline", OWNERS, code="busy"), heard="ok"),
    case("give back an older fence", about("give_back", epoch=0, reason="drain"), heard="ok", state="working"),
    case("give back another's task", about("give_back", OWNERS, reason="drain"), heard="ok"),
    case("ask under an older fence", about("question", epoch=0, **ASKED), heard="ok, revoke not_yours", state="working"),
    case("ask for another's task", about("question", OWNERS, **ASKED), heard="ok, revoke not_yours"),
    case("progress of another's task", about("progress", OWNERS, n=1, note="mine"), heard=""),
    case("beat for an older fence", {"t": "beat", "id": 9, "sent_mono": 1, "leases": [LEASE | {"lease_epoch": 0}]}, heard="beaten lost", state="working"),
    case("beat for another's task", {"t": "beat", "id": 9, "sent_mono": 1, "leases": [LEASE | {"task": OWNERS}], "quiet": True}, heard="beaten lost"),
    case("failure under an older fence", result(epoch=0), heard="result_ack stale", state="working"),
    case("failure under a fence to come", result(epoch=2), heard="result_ack stale", state="working"),
    case("failure of an unknown task", result(999_999), heard="result_ack stale"),
    case("note of an unknown control", {"t": "ok", "re": 999_999}, heard=""),
    case("an error full of controls", {"t": "error", "code": ANSI, "message": f"{BIDI}{NUL}"}, heard=""),
]
# fmt: on


@pytest.fixture
def peer(hub: LivingHub, request: pytest.FixtureRequest) -> Iterator[tuple[Peer, int]]:
    """A socket in the state a case asks for, under a name of its own, and the task it works on."""
    case: Case = request.getfixturevalue("case")
    task = 0
    if case.state == "working":
        peer, task = hub.working(case.agent)
    elif case.state == "greeted":
        peer = hub.peer(case.agent, quiet=True)
    else:
        peer = Peer(hub.port, hub.tokens["agent"])
    yield peer, task
    peer.leave()


@pytest.mark.parametrize("case", [*UNREADABLE, *MALFORMED, *SESSIONS, *FENCES], ids=lambda case: case.id)
def test_what_is_wrong_is_answered_clearly_and_changes_nothing(hub: LivingHub, case: Case, peer: tuple[Peer, int]) -> None:
    socket, task = peer
    with nothing_changes(hub):
        with suppress(*[ConnectionClosed] if case.closes is not None else []):
            for message in case.said:
                socket.send(json.dumps(filled(message, task)).encode() if isinstance(message, dict) else message)
        heard = [socket.hear() for _ in case.heard]
        if case.closes is not None:
            code, rest = socket.closed()
            assert (code, rest) == (case.closes, [])
        elif case.state != "fresh":
            assert socket.beat() == [], "the link lives on, and nothing else was said"
    assert [shown(frame) for frame in heard] == case.heard
    errors = [frame for frame in heard if isinstance(frame, frames.Error)]
    assert places([{"loc": one.loc, "msg": one.msg, "type": one.type} for error in errors for one in error.errors]) == case.at
    told = " ".join([error.message + " ".join(one.msg for one in error.errors) for error in errors])
    assert case.says in told
    check_words(told, hub)
    if case.state == "fresh" and case.closes is None:
        assert socket.greet(case.agent, quiet=True).session_epoch == 1, "a hello may still come"


def filled(value: Any, task: int) -> Any:
    if isinstance(value, dict):
        return {key: filled(inner, task) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, task) for inner in value]
    return task if value == "T" else value


def shown(frame: Any) -> str:
    """A frame by its type and the word that matters."""
    match frame:
        case frames.Error(code=word) | frames.Revoke(code=word) | frames.ResultAck(verdict=word):
            return f"{frame.t} {word}"
        case frames.Beaten(leases=leases):
            return f"beaten {'kept' if all(lease.ok for lease in leases) else 'lost'}"
    return frame.t


@pytest.mark.parametrize(
    ("body", "verdict", "kept"),
    [
        (result("T", 0, outcome="succeeded"), "salvaged", {"salvage", "event", "attempt"}),
        (result("T", 0, outcome="triumph"), "salvaged", {"salvage", "event", "attempt"}),
        (result(OWNERS, 1, outcome="succeeded"), "stale", {"event"}),
        (result(OWNERS, 1, outcome="triumph"), "stale", {"event"}),
    ],
    ids=["older fence", "older fence, malformed", "another's", "another's, malformed"],
)
def test_work_under_a_wrong_fence_is_kept_beside_the_task_and_never_applied(
    hub: LivingHub, body: dict[str, Any], verdict: str, kept: set[str]
) -> None:
    """A result always ends in a verdict; what it brings is noted and salvaged, but no task, agent or lease changes."""
    peer, task = hub.working(f"late-{verdict}-{body['outcome']}")
    before = hub.state()
    peer.send(json.dumps(filled(body, task)).encode())
    assert peer.hear(frames.ResultAck).verdict == verdict
    after = hub.state()
    assert {table for table in after if after[table] != before[table]} <= kept
    assert hub.complaints() == []
    peer.leave()


# ── the upgrade, and who may be whom ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("token", "options", "status", "code"),
    [
        (None, {}, 401, "unauthenticated"),
        ("guess", {}, 401, "unauthenticated"),
        (None, {"path": "/ws?token={agent}"}, 401, "unauthenticated"),
        ("agent", {"path": "/ws/"}, 404, "not_found"),
        ("agent", {"path": "/api/v1/ws"}, 404, "not_found"),
        ("agent", {"path": "/%1b%5b31m"}, 404, "not_found"),
        ("agent", {"subprotocol": "agentcom.v0"}, 426, "version"),
        ("agent", {"subprotocol": None}, 426, "version"),
        *((scope.value, {}, 403, "forbidden") for scope in Scope if scope is not Scope.AGENT),
    ],
)
def test_an_upgrade_is_refused_before_it_happens(
    hub: LivingHub, token: str | None, options: dict[str, Any], status: int, code: str
) -> None:
    hub.tokens["guess"] = "ac_00000000_" + "x" * 43
    options = {key: value.replace("{agent}", hub.tokens["agent"]) if value else value for key, value in options.items()}
    with nothing_changes(hub), pytest.raises(InvalidStatus) as refused:
        Peer(hub.port, hub.tokens[token] if token is not None else None, **options)
    response = refused.value.response
    problem = json.loads(response.body or b"{}")
    assert (response.status_code, problem["code"], problem["status"]) == (status, code, status)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert problem["detail"]
    check_words(json.dumps(problem, ensure_ascii=False), hub)


@pytest.mark.parametrize(
    ("token", "agent", "install", "welcome"),
    [
        ("agent", "anybody", "i-1", True),
        ("elsewhere", "elsewhere", "i-1", True),
        ("elsewhere", "owner", "i-1", False),
        ("elsewhere", "elsewhere-2", "i-1", False),
        ("machine", "m-1", "f" * 32, True),
        ("machine", "m-1", "e" * 32, False),
        ("machine", "m-2", "f" * 32, False),
    ],
)
def test_a_token_says_hello_for_its_own_agents_from_its_own_installation(
    hub: LivingHub, token: str, agent: str, install: str, welcome: bool
) -> None:
    if "machine" not in hub.tokens:
        hub.enrol("machine", install_id="f" * 32, agents=["m-1"])
    peer = Peer(hub.port, hub.tokens[token])
    if welcome:
        assert peer.greet(agent, install_id=install, quiet=True).session_epoch >= 1
        peer.leave()
        return
    with nothing_changes(hub):
        peer.say(frames.Hello(id=1, versions=(V1,), agent_id=agent, install_id=install, boot_id="b"))
        error = peer.hear(frames.Error)
        assert (error.code, error.fatal, peer.closed()[0]) == ("forbidden", True, 4503)
    peer.close()
