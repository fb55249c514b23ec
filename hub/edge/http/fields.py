"""Field types shared by the bodies: what text may contain, words of closed vocabularies, references, moments.

Everything is strict: a number in a string field is a fault, unknown words name the allowed ones, unknown fields are refused.
"""

from __future__ import annotations

import json
import re
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


class Body(BaseModel):
    """Root of request bodies."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Filters(BaseModel):
    """Root of what a list is asked with, in the query string. A misspelt filter is refused: ignored, it would list everything."""

    model_config = ConfigDict(extra="forbid")


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


_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Unicode's control characters (Cc) without tab, line feed and carriage return."""


def _prose(text: str) -> str:
    if _CONTROLS.search(text) is not None:
        raise ValueError("control characters other than line breaks and tabs are not allowed")
    return text


Title = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_title)]
Line = Annotated[str, Field(max_length=256), AfterValidator(_one_line)]
SomeLine = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_one_line)]
Note = Annotated[str, Field(max_length=1024), AfterValidator(_prose)]
SomeNote = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_prose)]
Text4K = Annotated[str, Field(max_length=4096), AfterValidator(_prose)]
SomeText4K = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_prose)]
Description = Annotated[str, Field(max_length=10_000), AfterValidator(_prose)]
Key = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_one_line)]

# ── names and references ─────────────────────────────────────────────────────────────────────────────────────────────


def matching(pattern: re.Pattern[str], rule: str) -> Callable[[str], str]:
    """A validator: the text matches all of the pattern, or ``rule`` is said."""

    def check(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise ValueError(f"{rule} (got {text[:40]!r})")
        return text

    return check


def _described(pattern: re.Pattern[str]) -> Any:
    """The pattern for the schema alone: the validator beside it says in words what it demands."""
    return Field(json_schema_extra={"pattern": f"^{pattern.pattern}$"})


def _safe(check: Callable[[str], Any]) -> Callable[[str], str]:
    def validate(text: str) -> str:
        try:
            check(text)
        except UnsafeNameError as unsafe:
            raise ValueError(str(unsafe)) from None
        return text

    return validate


def _reference(parse: Callable[[str], int], example: str) -> Callable[[Any], Any]:
    def read(value: Any) -> int:
        if not isinstance(value, str):
            raise ValueError(f"a reference is text; write {example}")  # noqa: TRY004  pydantic collects ValueError alone
        return parse(value)

    return read


_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TOKEN_ID = re.compile(r"[0-9a-f]{8}")
_INSTALL_ID = re.compile(r"[0-9a-f]{32}")
_TASK = re.compile(r"(?:t-)?[1-9][0-9]{0,17}")
_CHANGE = re.compile(r"(?:c-)?[1-9][0-9]{0,17}")

Name = Annotated[
    str,
    _described(NAME),
    AfterValidator(matching(NAME, "a name is 1 to 64 of a-z 0-9 - _ . and begins with a letter or digit")),
]
AgentName = Annotated[
    AgentId, _described(AGENT_ID), AfterValidator(matching(AGENT_ID, "an agent's id is 1 to 64 of a-z 0-9 - _ ."))
]
Sha = Annotated[str, _described(_SHA), AfterValidator(matching(_SHA, "a commit's id is 40 or 64 of 0-9 a-f"))]
Digest = Annotated[str, _described(_DIGEST), AfterValidator(matching(_DIGEST, "a SHA-256 is 64 of 0-9 a-f"))]
Branch = Annotated[str, Field(max_length=200), AfterValidator(_safe(check_branch_name))]
RemoteUrl = Annotated[str, Field(max_length=2048), AfterValidator(_safe(check_url))]
TokenId = Annotated[str, _described(_TOKEN_ID), AfterValidator(matching(_TOKEN_ID, "a token's id is 8 of 0-9 a-f"))]
InstallId = Annotated[
    str, _described(_INSTALL_ID), AfterValidator(matching(_INSTALL_ID, "an installation's id is 32 of 0-9 a-f"))
]
TaskRef = Annotated[
    TaskId,
    BeforeValidator(_reference(parse_task_ref, "t-17")),
    WithJsonSchema({"type": "string", "pattern": f"^{_TASK.pattern}$", "examples": ["t-17"]}),
]
ChangeRef = Annotated[
    ChangeId,
    BeforeValidator(_reference(parse_change_ref, "c-4")),
    WithJsonSchema({"type": "string", "pattern": f"^{_CHANGE.pattern}$", "examples": ["c-4"]}),
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
    if when < 0:
        raise ValueError("the time is before 1970")
    return when


def _readable(text: str) -> str:
    moment(text, 0)
    return text


def rfc3339(us: int) -> str:
    """Microseconds UTC as people and programs write them."""
    return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


When = Annotated[str, Field(max_length=64), AfterValidator(_readable)]
"""A moment as it was written, in a form that :func:`moment` can read when the time of the request is known."""

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
