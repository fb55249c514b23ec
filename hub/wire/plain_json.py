"""JSON as both ends of the HTTP API read it: UTF-8 and nothing else, each member once, no number or text that JSON does not have.

Python's own reader would take NaN, UTF-16, half a surrogate pair and the last of two members of one name: what the writer meant would
then be a guess. Here each of these is a fault that says what and where.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

DIGITS = 400
"""Of one whole number: more than the largest finite float has."""


def read_json(body: bytes) -> Any:
    """The document in some bytes; raises :class:`json.JSONDecodeError`, whose message says what is wrong and where, if that is known."""
    try:
        text = body.decode()
    except UnicodeDecodeError as fault:
        raise _fault(f"it is not UTF-8 (byte {fault.start})") from None
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_int=_int)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()
    except json.JSONDecodeError as fault:
        raise _fault(f"{fault.msg} (line {fault.lineno}, column {fault.colno})") from None
    except UnicodeEncodeError:
        raise _fault("an escape from \\ud800 to \\udfff stands alone: half a character is no text") from None
    except RecursionError:
        raise _fault("it is nested too deep") from None
    except ValueError as fault:
        raise _fault(str(fault)) from None
    return found


def _fault(words: str) -> json.JSONDecodeError:
    return json.JSONDecodeError(words, "", 0)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the member {next(name for name in names if names.count(name) > 1)[:64]!r} is there twice")
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _int(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number has more than {DIGITS} digits")
    return int(digits)
