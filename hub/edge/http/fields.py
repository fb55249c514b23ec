"""Field types shared by the bodies: what text may contain, words of closed vocabularies, references, moments.

Everything is strict: a number in a string field is a fault, unknown words name the allowed ones, unknown fields are refused.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from hub.ids import (
    AGENT_ID,
    DAY,
    LANE_WORDS,
    NAME,
    SECOND,
    TASK_WORDS,
    AgentId,
    ChangeId,
    Lane,
    TaskId,
    TaskState,
    TaskType,
    change_ref,
    parse_change_ref,
    parse_task_ref,
    task_ref,
)
from hub.wire.git import UnsafeNameError, check_branch_name, check_url, has_controls

E = TypeVar("E", bound=StrEnum)

METADATA_BYTES = 16_384
METADATA_DEPTH = 8
FAR_US = 10 * 366 * DAY
"""No moment further ahead than about ten years: it would be a mistake of units."""


class Body(BaseModel):
    """Root of request bodies."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Out(BaseModel):
    """Root of response documents, built from records by attribute."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True)


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _one_line(text: str) -> str:
    if has_controls(text):
        raise ValueError("control, bidirectional and invisible formatting characters are not allowed in one-line text")
    return text


def _title(text: str) -> str:
    if not text.strip():
        raise ValueError("a title needs a visible character")
    return _one_line(text)


def _prose(text: str) -> str:
    if any(unicodedata.category(char) == "Cc" and char not in "\n\r\t" for char in text):
        raise ValueError("control characters other than line breaks and tabs are not allowed")
    return text


Title = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_title)]
Line = Annotated[str, Field(max_length=256), AfterValidator(_one_line)]
Note = Annotated[str, Field(max_length=1024), AfterValidator(_prose)]
Text4K = Annotated[str, Field(max_length=4096), AfterValidator(_prose)]
Description = Annotated[str, Field(max_length=10_000), AfterValidator(_prose)]
Key = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_one_line)]
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

# ── names and references ─────────────────────────────────────────────────────────────────────────────────────────────


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise ValueError(f"{what} is 1 to 64 of a-z 0-9 - _ . (got {text[:40]!r})")
        return text

    return check


def _safe(check: Callable[[str], Any]) -> Callable[[str], str]:
    def validate(text: str) -> str:
        try:
            check(text)
        except UnsafeNameError as unsafe:
            raise ValueError(str(unsafe)) from None
        return text

    return validate


def _reference(parse: Callable[[str], int]) -> Callable[[Any], Any]:
    return lambda value: parse(value) if isinstance(value, str) else value


Name = Annotated[str, AfterValidator(_matching(NAME, "a name"))]
AgentName = Annotated[AgentId, AfterValidator(_matching(AGENT_ID, "an agent's id"))]
Branch = Annotated[str, Field(max_length=200), AfterValidator(_safe(check_branch_name))]
RemoteUrl = Annotated[str, Field(max_length=2048), AfterValidator(_safe(check_url))]
TaskRef = Annotated[
    TaskId, BeforeValidator(_reference(parse_task_ref)), WithJsonSchema({"type": "string", "examples": ["t-17"]})
]
ChangeRef = Annotated[
    ChangeId, BeforeValidator(_reference(parse_change_ref)), WithJsonSchema({"type": "string", "examples": ["c-4"]})
]

# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def words(kind: type[E], *, also: Mapping[str, str] | None = None, without: Iterable[E] = ()) -> Callable[[Any], Any]:
    """A validator from text to ``kind`` that takes the words of older systems (``also``) and names what is allowed."""
    allowed = {member.value: member for member in kind if member not in frozenset(without)}
    older = also or {}

    def read(value: Any) -> Any:
        if not isinstance(value, str) or isinstance(value, kind):
            return value
        found = allowed.get(older.get(value, value))
        if found is None:
            aliases = "".join(f", {old} for {new}" for old, new in older.items())
            raise ValueError(
                f"{value[:40]!r} is not allowed; one of {', '.join(allowed)}{aliases and ' (also' + aliases[1:] + ')'}"
            )
        return found

    return read


LaneWord = Annotated[Lane, BeforeValidator(words(Lane, also=LANE_WORDS))]
StateWord = Annotated[TaskState, BeforeValidator(words(TaskState, also=TASK_WORDS))]
TypeWord = Annotated[TaskType, BeforeValidator(words(TaskType))]
NewTypeWord = Annotated[TaskType, BeforeValidator(words(TaskType, without=[TaskType.CHECK]))]
"""Types people may submit: checks are the gatekeeper's."""

# ── moments ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_RELATIVE = re.compile(r"\+(?:[0-9]{1,6}[smhd])+")
_STEP = re.compile(r"([0-9]+)([smhd])")
_UNIT_US = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": DAY}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(text: str, now: int) -> int:
    """Microseconds UTC of an RFC 3339 time or of ``+10m`` from ``now``; raises ValueError with the forms it takes."""
    if _RELATIVE.fullmatch(text):
        when = now + sum(int(count) * _UNIT_US[unit] for count, unit in _STEP.findall(text))
    else:
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            parsed = None
        if parsed is None or parsed.tzinfo is None:
            raise ValueError("write a time with its zone like 2027-01-31T09:00:00Z, or a delay like +10m or +1h30m")
        when = (parsed - _EPOCH) // timedelta(microseconds=1)
    if not 0 <= when <= now + FAR_US:
        raise ValueError("the time is before 1970 or more than ten years ahead")
    return when


def rfc3339(us: int) -> str:
    """Microseconds UTC as people and programs write them."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


When = Annotated[str, Field(max_length=64)]
"""A moment as it was written; :func:`moment` reads it when the time of the request is known."""

Moment = Annotated[str, BeforeValidator(lambda us: rfc3339(us) if isinstance(us, int) else us)]
TaskId_ = Annotated[str, BeforeValidator(lambda n: task_ref(n) if isinstance(n, int) else n)]
ChangeId_ = Annotated[str, BeforeValidator(lambda n: change_ref(n) if isinstance(n, int) else n)]

# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    if _depth(value) > METADATA_DEPTH:
        raise ValueError(f"metadata may be {METADATA_DEPTH} levels deep")
    try:
        size = len(orjson.dumps(value))
    except TypeError as unfit:
        raise ValueError(f"metadata must be plain JSON with numbers of at most 64 bits: {unfit}") from None
    if size > METADATA_BYTES:
        raise ValueError(f"metadata has {size} bytes; the limit is {METADATA_BYTES}")
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("metadata may hold finite numbers only: no NaN, no Infinity, nothing above 1.7e308") from None
    return value


def _depth(value: Any) -> int:
    """Levels of nesting, counted without recursion and no further than the limit."""
    level, found = [value], 0
    while level and found <= METADATA_DEPTH:
        found += 1
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
    return found


Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]
