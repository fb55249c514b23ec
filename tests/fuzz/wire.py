"""What both ends read of each other: frames, specs, documents, names of git, addresses, foreign text."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hub.wire import frames
from hub.wire.address import is_loopback
from hub.wire.codec import FrameError, decode_from_hub, decode_from_sidecar, decode_spec, encode, encode_spec
from hub.wire.git import UnsafeNameError, check_branch_name, check_ref_name, check_url
from hub.wire.plain_json import read_json
from hub.wire.text import clean
from tests.fuzz.inputs import near

RELEASES = Path(__file__).parents[1] / "compat" / "releases"
GOLDEN = [
    json.dumps(body).encode()
    for path in sorted(path for side in ("hub", "sidecar") for path in RELEASES.glob(f"*/{side}/*.json"))
    for body in json.loads(path.read_bytes()).values()
]
SPEC = b'{"task":1,"lease_epoch":1,"title":"t","verification":[{"kind":"test_passes"}],"metadata":{"a":[1.5,null]}}'


def frame(data: bytes) -> None:
    """A frame that comes back the same, or a frame error that can be told."""
    data = near(data, GOLDEN)
    for decode in (decode_from_sidecar, decode_from_hub):
        _same_or_told(data, decode)
        with suppress(UnicodeDecodeError):
            _same_or_told(data.decode(), decode)


def _same_or_told(data: bytes | str, decode: Callable[[bytes | str], frames.Frame]) -> None:
    try:
        found = decode(data)
    except FrameError as fault:
        encode(frames.Error(re=fault.re, code=fault.code, message=str(fault)[:1024], errors=fault.errors))
    else:
        assert decode(encode(found)) == found


def spec(data: bytes) -> None:
    """The same of a spec."""
    with suppress(FrameError):
        found = decode_spec(near(data, [SPEC]))
        assert decode_spec(encode_spec(found)) == found


def document(data: bytes) -> None:
    """A document that means the same to any other reader of JSON, or a fault that says what is wrong."""
    try:
        found = read_json(near(data, [SPEC, b'[1e999, "\\ud83d\\ude00"]']))
    except json.JSONDecodeError as fault:
        assert fault.msg
        return
    written = json.dumps(found, ensure_ascii=False)
    assert json.loads(written) == found or "Infinity" in written


def name(data: bytes) -> None:
    """A name or an address passes unchanged, and then has nothing in it that git, a path or a terminal would take for more."""
    text = data.decode(errors="surrogateescape")
    is_loopback(text)
    for check in (check_branch_name, check_ref_name, check_url):
        with suppress(UnsafeNameError):
            check(text)
            assert not text.startswith("-")
            assert clean(text) == text
            if check is not check_url:
                assert ".." not in text and not any(char in text for char in " ~^:?*[\\\n\0")


def text(data: bytes) -> None:
    """Cleaned text has no power over a terminal, and cleaning it again changes nothing."""
    for lines in (False, True):
        shown = clean(data.decode(errors="surrogateescape"), lines=lines)
        allowed = "\n\t\u200c\u200d" if lines else "\u200c\u200d"
        assert not [
            char for char in shown if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and char not in allowed
        ]
        assert clean(shown, lines=lines) == shown
