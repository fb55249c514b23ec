"""Frames of ``agentcom.v1``: full ones, made from their declarations, through the codec; what a peer may leave out, and what it may add.

What released versions say is compared in ``tests/compat``.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import orjson
import pytest

from hub.wire import frames
from hub.wire.codec import Unsupported, decode_from_hub, decode_from_sidecar, encode
from tests.support.scripts import script

DECODE = {"sidecar": decode_from_sidecar, "hub": decode_from_hub}
_kinds, _full = script("compat").kinds(), script("shapes").full
FRAMES = {f"{side}.{name}": orjson.loads(encode(_full(kind))) for side in DECODE for name, kind in _kinds[side].items()}
"""By side and type."""


def decode(name: str, body: Any) -> Any:
    return DECODE[name.partition(".")[0]](orjson.dumps(body))


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_survives_decoding_and_encoding(name: str) -> None:
    frame = decode(name, FRAMES[name])
    assert orjson.loads(encode(frame)) == FRAMES[name]


@pytest.mark.parametrize("name", FRAMES)
def test_unknown_fields_are_ignored_at_every_depth(name: str) -> None:
    assert decode(name, grown(FRAMES[name])) == decode(name, FRAMES[name])


def grown(value: Any, key: str = "") -> Any:
    """The same, from a peer that knows more."""
    if isinstance(value, dict) and key != "metadata":
        return {name: grown(inner, name) for name, inner in value.items()} | {"later": {"x": [1]}}
    if isinstance(value, list):
        return [grown(item) for item in value]
    return value


@pytest.mark.parametrize("name", FRAMES)
def test_only_the_required_fields_are_needed(name: str) -> None:
    """A peer of this version may leave out whatever has a default."""
    body = FRAMES[name]
    required = {field.name for field in fields(decode(name, body)) if not has_default(field)} | {"t"}
    decode(name, {key: value for key, value in body.items() if key in required})
    for key in required - {"t"}:
        with pytest.raises(ValueError, match="invalid"):
            decode(name, {other: value for other, value in body.items() if other in required - {key}})


def has_default(field: Any) -> bool:
    from dataclasses import MISSING

    return field.default is not MISSING or field.default_factory is not MISSING


@pytest.mark.parametrize("kind", sorted(frames.LATER))
def test_what_arrives_later_is_unsupported_and_names_its_frame(kind: str) -> None:
    for side in DECODE.values():
        with pytest.raises(Unsupported) as refused:
            side(orjson.dumps({"t": kind, "id": 12}))
        assert (refused.value.re, refused.value.code) == (12, "unsupported")


@pytest.mark.parametrize("name", [name for name in FRAMES if name.partition(".")[2] not in ("ok", "error")])
def test_neither_side_takes_the_others_frames(name: str) -> None:
    other = decode_from_hub if name.startswith("sidecar") else decode_from_sidecar
    with pytest.raises(Unsupported):
        other(orjson.dumps(FRAMES[name]))
