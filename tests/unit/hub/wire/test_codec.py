"""The codec is total, strict and bounded: any bytes give a frame or one of its own failures."""

from __future__ import annotations

import json
import os
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.ids import LeaseEpoch, Outcome, TaskId
from hub.wire import frames
from hub.wire.codec import (
    FRAME_BYTES,
    FrameError,
    MalformedResult,
    Unsupported,
    decode_from_hub,
    decode_from_sidecar,
    decode_spec,
    encode,
    encode_spec,
    result_digest,
)
from hub.wire.spec import Spec
from tests.support.scripts import script

LONG = os.environ.get("HYPOTHESIS") == "long"
PROFILE = settings(max_examples=30_000 if LONG else 300, derandomize=not LONG, deadline=None, database=None)
RESULT = frames.Result(task=TaskId(1), lease_epoch=LeaseEpoch(2), outcome=Outcome.SUCCEEDED, sha256="ab" * 32)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
names = [
    "t",
    "id",
    "e",
    "task",
    "lease_epoch",
    "outcome",
    "sha256",
    "leases",
    "sent_mono",
    "versions",
    "agent_id",
    "held",
    "error",
]
kinds = [
    *sorted(frames.LATER),
    "hello",
    "accept",
    "beat",
    "result",
    "question",
    "give_back",
    "ok",
    "error",
    "welcome",
    "assign",
    "",
]
frame_like = st.dictionaries(st.sampled_from(names), json_values, max_size=8).flatmap(
    lambda body: st.sampled_from(kinds).map(lambda kind: {**body, "t": kind})
)


_kinds, _full = script("compat").kinds(), script("shapes").full
golden = st.sampled_from([encode(_full(kind)) for side in ("hub", "sidecar") for kind in _kinds[side].values()])


def spoilt(data: bytes, at: float, cut: int, put: bytes) -> bytes:
    """A frame with some bytes replaced by others, somewhere."""
    start = int(at * len(data))
    return data[:start] + put + data[start + cut :]


odd = st.binary(max_size=8) | st.sampled_from(
    [b"null", b"-1", b"1e999", b"NaN", b"{", b"]", b'"', b"\\ud800", b"\xff", b"9" * 400]
)
near_frames = st.builds(spoilt, golden, st.floats(0, 1), st.integers(0, 30), odd)


@PROFILE
@given(
    st.binary(max_size=200)
    | frame_like.map(lambda body: json.dumps(body).encode())
    | json_values.map(lambda value: repr(value).encode())
    | near_frames
)
def test_any_bytes_give_a_frame_or_a_frame_error(data: bytes) -> None:
    for decode in (decode_from_sidecar, decode_from_hub):
        try:
            frame = decode(data)
        except FrameError as fault:
            encode(frames.Error(re=fault.re, code=fault.code, message=str(fault)[:1024], errors=fault.errors))
        else:
            assert decode(encode(frame)) == frame


LARGEST = 262_144
WORST = {
    "brackets": b"[" * LARGEST,
    "objects": b'{"t":' * (LARGEST // 5),
    "digits": b'{"t": "beat", "sent_mono": ' + b"9" * (LARGEST - 40) + b"}",
    "an escape after the other": b'{"t": "' + b"\\u0041" * (LARGEST // 6 - 8) + b'"}',
    "half characters": b'{"t": "' + b"\\ud800" * (LARGEST // 6 - 8) + b'"}',
    "members": b"{" + b",".join(b'"%x": 1' % n for n in range(LARGEST // 14)) + b"}",
    "one member again and again": b"{" + b",".join([b'"t": "ok"'] * (LARGEST // 12)) + b"}",
    "faults": orjson.dumps({"t": "hello", "outbox": [{}] * 256, "held": [{}] * 16, "runtimes": [{"caps": [{}] * 32}] * 16}),
    "an unknown type": orjson.dumps({"t": "x" * (LARGEST - 20)}),
    "a type of a thousand members": orjson.dumps({"t": {str(n): n for n in range(15_000)}}),
    "commits": orjson.dumps({"t": "result", "task": 1, "lease_epoch": 1, "commits": [{"files": [""] * 256}] * 256}),
}


@pytest.mark.timeout(20)  # far from what any of them takes, and far below what a quadratic reader would
@pytest.mark.parametrize("data", WORST.values(), ids=WORST)
def test_the_largest_frames_are_refused_at_once(data: bytes) -> None:
    assert len(data) <= FRAME_BYTES
    for decode in (decode_from_sidecar, decode_from_hub):
        try:
            decode(data)
        except FrameError as fault:
            assert len(encode(frames.Error(code=fault.code, message=str(fault)[:1024], errors=fault.errors))) < 65_536


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"7", b'"t"', b"{", b"\xff\xfe", b'{"t": "ok"', b"[" * 100_000])
def test_what_is_no_object_is_said_so(data: bytes) -> None:
    with pytest.raises(FrameError, match="not a JSON object"):
        decode_from_sidecar(data)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"t": "accept", "task": "1", "lease_epoch": 1}, "accept.task"),
        ({"t": "accept", "task": 1.0, "lease_epoch": 1}, "accept.task"),
        ({"t": "accept", "task": True, "lease_epoch": 1}, "accept.task"),
        ({"t": "accept", "task": 0, "lease_epoch": 1}, "accept.task"),
        ({"t": "accept", "task": 2**53 + 1, "lease_epoch": 1}, "accept.task"),
        ({"t": "accept", "task": 1, "lease_epoch": -1}, "accept.lease_epoch"),
        ({"t": "beat", "sent_mono": 1, "leases": [{"task": 1, "lease_epoch": 1, "phase": "asleep"}]}, "beat.leases.0.phase"),
        ({"t": "beat", "sent_mono": 1, "quiet": "yes"}, "beat.quiet"),
        ({"t": "decline", "task": 1, "lease_epoch": 1, "code": "x" * 65}, "decline.code"),
        ({"t": "give_back", "task": 1, "lease_epoch": 1, "reason": "bored"}, "give_back.reason"),
        ({"t": "bye", "reason": "x" * 257}, "bye.reason"),
        ({"t": "accept", "task": 1, "lease_epoch": 1, "id": -1}, "accept.id"),
    ],
)
def test_nothing_is_coerced_and_every_bound_holds(body: dict[str, Any], where: str) -> None:
    with pytest.raises(FrameError) as refused:
        decode_from_sidecar(orjson.dumps(body))
    assert [error.loc for error in refused.value.errors] == [where]


@pytest.mark.parametrize("agent", ["", "A", "a b", "a/b", "x" * 65, "a\n", "é"])
def test_an_agents_name_keeps_its_alphabet(agent: str) -> None:
    with pytest.raises(FrameError):
        decode_from_sidecar(
            orjson.dumps({"t": "hello", "versions": ["agentcom.v1"], "agent_id": agent, "install_id": "i", "boot_id": "b"})
        )


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(FrameError) as refused:
        decode_from_sidecar(orjson.dumps({"t": "accept", "id": 3, "task": "x", "lease_epoch": None}))
    assert refused.value.re == 3
    assert {error.loc for error in refused.value.errors} == {"accept.task", "accept.lease_epoch"}


def test_a_frame_without_a_type_says_so() -> None:
    with pytest.raises(FrameError, match="needs a type"):
        decode_from_sidecar(b'{"id": 1}')


@pytest.mark.parametrize(
    "broken", [{"outcome": "triumph"}, {"sha256": "x"}, {"commits": 7}, {"output": "x" * 65_537}, {"usage": {"cost": -1}}]
)
def test_a_result_that_names_its_fence_is_malformed_but_not_lost(broken: dict[str, Any]) -> None:
    data = orjson.dumps(orjson.loads(encode(RESULT)) | {"id": 4} | broken)
    with pytest.raises(MalformedResult) as refused:
        decode_from_sidecar(data)
    fault = refused.value
    assert (fault.task, fault.lease_epoch, fault.re, fault.raw) == (1, 2, 4, data)


@pytest.mark.parametrize("broken", [{"task": 0}, {"task": True}, {"lease_epoch": None}, {"lease_epoch": 2**60}])
def test_a_result_without_a_readable_fence_is_an_ordinary_fault(broken: dict[str, Any]) -> None:
    with pytest.raises(FrameError) as refused:
        decode_from_sidecar(orjson.dumps(orjson.loads(encode(RESULT)) | broken))
    assert not isinstance(refused.value, MalformedResult)


def test_an_unknown_type_is_named_and_cut() -> None:
    with pytest.raises(Unsupported, match="'" + "z" * 64 + "'"):
        decode_from_hub(orjson.dumps({"t": "z" * 500}))


def test_a_frame_is_bounded_both_ways() -> None:
    with pytest.raises(FrameError, match="larger"):
        decode_from_sidecar(b" " * (FRAME_BYTES + 1))
    commits = [{"sha": "a" * 40, "subject": "s" * 512, "files": ["f" * 4000]}] * 100
    big = orjson.loads(encode(RESULT)) | {"commits": commits}
    frame = frames.Result(**{k: v for k, v in big.items() if k != "t"})
    with pytest.raises(ValueError, match=f"the limit is {FRAME_BYTES}"):
        encode(frame)


def test_a_digest_covers_the_body_and_not_the_envelope() -> None:
    from dataclasses import replace

    digest = result_digest(RESULT)
    assert digest == result_digest(replace(RESULT, id=7, re=8, sha256="cd" * 32)) == result_digest(orjson.loads(encode(RESULT)))
    assert digest != result_digest(replace(RESULT, output="x"))
    assert digest != result_digest(replace(RESULT, lease_epoch=LeaseEpoch(3)))


def test_a_spec_survives_its_blob_and_a_bad_one_says_where() -> None:
    spec = Spec(task=TaskId(1), lease_epoch=LeaseEpoch(1), title="t", metadata={"a": [None, 1.5]})
    assert decode_spec(encode_spec(spec)) == spec
    with pytest.raises(FrameError) as refused:
        decode_spec(b'{"task": 1, "lease_epoch": 1, "title": ""}')
    assert refused.value.errors[0].loc == "title"
