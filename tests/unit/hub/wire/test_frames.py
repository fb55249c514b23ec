"""Golden frames of ``agentcom.v1``: what was once sent is understood for ever, by both sides.

The files under tests/compat are written once per released version and never changed; a frame type or field that is missing there is a
test that fails, not a file that is regenerated.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest

from hub.wire import frames
from hub.wire.codec import Unsupported, decode_from_hub, decode_from_sidecar, encode

GOLDEN = Path(__file__).parents[3] / "compat" / "frames" / "v1"
FILES = sorted(GOLDEN.glob("*.json"))
DECODE = {"sidecar": decode_from_sidecar, "hub": decode_from_hub}


def decode(path: Path, body: Any) -> Any:
    return DECODE[path.name.partition(".")[0]](orjson.dumps(body))


def test_every_frame_type_of_each_side_has_a_golden_file() -> None:
    sides = {"sidecar": get_args(frames.FromSidecar), "hub": get_args(frames.FromHub)}
    wanted = {f"{side}.{kind.__dataclass_fields__['t'].default}" for side, kinds in sides.items() for kind in kinds}
    assert {path.stem for path in FILES} == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_frame_survives_decoding_and_encoding(path: Path) -> None:
    body = orjson.loads(path.read_bytes())
    frame = decode(path, body)
    assert known(orjson.loads(encode(frame)), body) == body
    assert decode(path, orjson.loads(encode(frame))) == frame


def known(value: Any, to: Any) -> Any:
    """The same, as a peer of that version reads it: fields that were added since, and say nothing, are left out."""
    if isinstance(value, dict) and isinstance(to, dict):
        return {name: known(inner, to.get(name)) for name, inner in value.items() if name in to or inner not in (None, [])}
    return value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_unknown_fields_are_ignored_at_every_depth(path: Path) -> None:
    body = orjson.loads(path.read_bytes())
    assert decode(path, grown(body)) == decode(path, body)


def grown(value: Any, key: str = "") -> Any:
    """The same, from a peer that knows more."""
    if isinstance(value, dict) and key != "metadata":
        return {name: grown(inner, name) for name, inner in value.items()} | {"later": {"x": [1]}}
    if isinstance(value, list):
        return [grown(item) for item in value]
    return value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_names_every_field(path: Path) -> None:
    frame = decode(path, orjson.loads(path.read_bytes()))
    assert set(orjson.loads(path.read_bytes())) == {field.name for field in fields(frame)}
    assert is_dataclass(frame)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_the_required_fields_are_needed(path: Path) -> None:
    """A peer of this version may leave out whatever has a default."""
    body = orjson.loads(path.read_bytes())
    frame = decode(path, body)
    required = {field.name for field in fields(frame) if not has_default(field)} | {"t"}
    decode(path, {name: value for name, value in body.items() if name in required})
    for name in required - {"t"}:
        with pytest.raises(ValueError, match="invalid"):
            decode(path, {key: value for key, value in body.items() if key in required - {name}})


def has_default(field: Any) -> bool:
    from dataclasses import MISSING

    return field.default is not MISSING or field.default_factory is not MISSING


@pytest.mark.parametrize("kind", sorted(frames.LATER))
def test_what_arrives_later_is_unsupported_and_names_its_frame(kind: str) -> None:
    for side in DECODE.values():
        with pytest.raises(Unsupported) as refused:
            side(orjson.dumps({"t": kind, "id": 12}))
        assert (refused.value.re, refused.value.code) == (12, "unsupported")


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem.partition(".")[2] not in ("ok", "error")], ids=lambda p: p.stem
)
def test_neither_side_takes_the_others_frames(path: Path) -> None:
    other = decode_from_hub if path.name.startswith("sidecar") else decode_from_sidecar
    with pytest.raises(Unsupported):
        other(path.read_bytes())
