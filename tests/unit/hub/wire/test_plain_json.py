"""JSON is read strictly: what two readers could take for different things is a fault."""

import json

import pytest

from hub.wire.plain_json import read_json


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a": 1', "Expecting ',' delimiter (line 1, column 8)"),
        (b'{\n"a": 1\n"b"}', "Expecting ',' delimiter (line 3, column 1)"),
        (b'{"a": 1, "b": {"c": 2, "c": 2}}', "the member 'c' is there twice"),
        (b'{"\\u202e": 1, "\\u202e": 2}', "the member '\\u202e' is there twice"),
        (b"NaN", "NaN is no number of JSON"),
        (b"[-Infinity]", "-Infinity is no number of JSON"),
        (b"9" * 401, "a number has more than 400 digits"),
        (b"[" * 100_000, "it is nested too deep"),
        (b'"\xff"', "it is not UTF-8 (byte 1)"),
        ('"x"'.encode("utf-16"), "it is not UTF-8 (byte 0)"),
        (b"\xef\xbb\xbf{}", "Unexpected UTF-8 BOM (decode using utf-8-sig) (line 1, column 1)"),
        (b'{"\\ud800": 1}', "an escape from \\ud800 to \\udfff stands alone: half a character is no text"),
        (b'"\\uDC00\\uD800"', "an escape from \\ud800 to \\udfff stands alone: half a character is no text"),
    ],
)
def test_what_is_no_plain_json_is_said(body: bytes, words: str) -> None:
    with pytest.raises(json.JSONDecodeError) as refused:
        read_json(body)
    assert refused.value.msg == words


@pytest.mark.parametrize(
    "document", [None, True, 1.5, 2**63, "é\ud83d\ude00 \\ud800", [], {"a": [{"b": ""}]}, {"a": {"x": 1}, "b": {"x": 1}}]
)
def test_what_is_json_is_read_as_it_was_written(document: object) -> None:
    assert read_json(json.dumps(document).encode()) == json.loads(json.dumps(document))
