"""The risk tier of a change: deterministic, explained, and 3 whenever something is not known.

Pure. ``assess`` turns measured facts and the repository's policy into a tier and the sentences that justify it; nothing
else in the project decides a tier. Source: semantics, "Risk tier". What the facts mean is decided here, how they are
measured is the forge's business, and what a tier permits is decided in ``hub.core.review``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from hub.core.content import NOTHING_FOUND, Findings, is_hidden
from hub.core.errors import Fault, Refused
from hub.core.paths import is_manifest, is_test, protected_as
from hub.ids import Tier

Glob = Annotated[str, Field(min_length=1, max_length=200)]
Limit = Annotated[int, Field(ge=0, le=1_000_000)]

MODE_ABSENT = "000000"
MODE_FILE = "100644"
MODE_EXECUTABLE = "100755"
MODE_SYMLINK = "120000"
MODE_SUBMODULE = "160000"
NAMED = 5
"""Paths named in one reason; the rest is counted."""


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a repository's operator decided. Counts are lines unless they say files.

    ``rewrite_percent`` is of the old file's lines. ``protected`` globs are added to :data:`hub.core.paths.PROTECTED`,
    ``unprotected`` ones are exempt from it. ``max_rework`` bounds how often a change is returned before a person must
    decide (never more than 3: semantics).
    """

    auto_merge_tier1: bool = False
    merge: Literal["merge", "squash"] = "merge"
    tier1_lines: Limit = 20
    tier1_files: Limit = 3
    tier3_deleted: Limit = 300
    rewrite_lines: Limit = 100
    rewrite_percent: Annotated[int, Field(ge=1, le=100)] = 50
    protected: Annotated[tuple[Glob, ...], Field(max_length=128)] = ()
    unprotected: Annotated[tuple[Glob, ...], Field(max_length=128)] = ()
    max_rework: Annotated[int, Field(ge=0, le=3)] = 3


_policy: TypeAdapter[Policy] = TypeAdapter(Policy)


def parse_policy(text: str) -> Policy:
    """Read a repository's policy document (``{}`` is the default).

    Raises :class:`Refused` 422 ``invalid_policy`` with every fault.
    """
    try:
        return _policy.validate_json(text)
    except ValidationError as invalid:
        faults = tuple(
            Fault(".".join(("policy", *map(str, error["loc"]))), error["type"], error["msg"]) for error in invalid.errors()
        )
        raise Refused(422, "invalid_policy", "the repository's policy is not valid", faults=faults) from invalid


class Verified(StrEnum):
    """What is known about the tree that would be merged."""

    PASSED = "passed"
    REQUIRED = "required"
    """Registered checks run on the merge candidate, and only their pass lets it merge."""
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFact:
    """One changed file. ``status`` is git's letter (A M D R C T); ``old_lines`` is None when it was not needed or not known."""

    path: str
    status: str
    added: int
    deleted: int
    old_mode: str
    new_mode: str
    binary: bool = False
    old_path: str | None = None
    old_lines: int | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path it touches: a rename touches two."""
        return (self.path,) if self.old_path is None or self.old_path == self.path else (self.old_path, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the forge measured between two trees. ``complete`` is False when the change was too large to be read whole."""

    files: tuple[FileFact, ...] = ()
    findings: Findings = NOTHING_FOUND
    complete: bool = True

    @property
    def added(self) -> int:
        """Added lines in all."""
        return sum(file.added for file in self.files)

    @property
    def deleted(self) -> int:
        """Deleted lines in all."""
        return sum(file.deleted for file in self.files)


NOTHING_MEASURED = Measured()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ripple:
    """A path of this change that somebody else touches or names (``by``: ``c-4`` or ``t-17``)."""

    path: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeFacts:
    """All that the tier depends on. ``registered``: checks registered with the repository are among those that passed.

    ``verification_note`` says how the verification is known. ``unknown`` lists whatever could not be found out, as sentences.
    """

    measured: Measured
    verification: Verified
    registered: bool
    verification_note: str = ""
    ripple: tuple[Ripple, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The tier and why: every reason of the deciding tier, as sentences with data."""

    tier: Tier
    reasons: tuple[str, ...]


def assess(facts: ChangeFacts, policy: Policy) -> Assessment:
    """Decide the tier. Total: any facts give a tier, and what is not known gives 3."""
    high = tuple(_high(facts, policy))
    if high:
        return Assessment(tier=Tier.HIGH, reasons=high)
    medium = tuple(_medium(facts, policy))
    if medium:
        return Assessment(tier=Tier.MEDIUM, reasons=medium)
    size = f"{_lines(facts.measured)} in {_count(len(facts.measured.files), 'file')}"
    how = facts.verification_note or "verified by registered checks"
    return Assessment(tier=Tier.LOW, reasons=(f"{size}, nothing protected; {how}",))


def _high(facts: ChangeFacts, policy: Policy) -> Iterator[str]:
    yield from facts.unknown
    yield from _unverified(facts)
    yield from _places(facts, policy)
    yield from _kinds(facts.measured)
    yield from _contents(facts.measured)
    yield from _sizes(facts.measured, policy)


def _unverified(facts: ChangeFacts) -> Iterator[str]:
    note = f": {facts.verification_note}" if facts.verification_note else ""
    if facts.verification is Verified.FAILED:
        yield f"verification failed{note}"
    elif facts.verification not in {Verified.PASSED, Verified.REQUIRED}:
        yield f"not verified{note}"


def _places(facts: ChangeFacts, policy: Policy) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for file in facts.measured.files:
        for path in file.paths:
            why = protected_as(path, added=policy.protected, exempt=policy.unprotected)
            if why is not None:
                by_reason.setdefault(why, []).append(path)
    for why, paths in by_reason.items():
        yield f"touches {_named(paths)} ({why})"
    others: dict[str, list[str]] = {}
    for ripple in facts.ripple:
        others.setdefault(ripple.by, []).append(ripple.path)
    for by, paths in others.items():
        yield f"{by} also touches or names {_named(paths)}"


def _kinds(measured: Measured) -> Iterator[str]:
    kinds: dict[str, list[str]] = {}
    for file in measured.files:
        for kind in _kinds_of(file):
            kinds.setdefault(kind, []).append(file.path)
    for kind, paths in kinds.items():
        yield f"{kind}: {_named(paths)}"


def _kinds_of(file: FileFact) -> Iterator[str]:
    modes = {file.old_mode, file.new_mode}
    if MODE_SYMLINK in modes:
        yield "symbolic link"
    if MODE_SUBMODULE in modes:
        yield "submodule"
    if modes - {MODE_ABSENT, MODE_FILE, MODE_EXECUTABLE, MODE_SYMLINK, MODE_SUBMODULE}:
        yield "unknown file mode"
    if (file.new_mode == MODE_EXECUTABLE) != (file.old_mode == MODE_EXECUTABLE) and file.new_mode != MODE_ABSENT:
        yield "executable bit changed"
    if file.binary:
        yield "binary content"
    if file.status not in {"A", "M", "D", "R", "C", "T"}:
        yield f"unknown kind of change {file.status!r}"
    if any(is_hidden(path) for path in file.paths):
        yield "invisible characters in a file name"


def _contents(measured: Measured) -> Iterator[str]:
    findings = measured.findings
    if not measured.complete:
        yield "larger than what is examined: its content is not known"
    if findings.hidden:
        yield f"invisible or bidirectional control characters in {_named(findings.hidden)}"
    for path, kind in findings.secrets[:NAMED]:
        yield f"what looks like {kind} in {_shown(path)}"
    if len(findings.secrets) > NAMED:
        yield f"{len(findings.secrets) - NAMED} more places that look like secrets"
    gone = [file.old_path or file.path for file in measured.files if _drops_test(file)]
    if gone:
        yield f"deletes tests: {_named(gone)}"
    if findings.tests_removed:
        yield f"removes {_count(findings.tests_removed, 'test case')}"


def _drops_test(file: FileFact) -> bool:
    if file.status == "D":
        return is_test(file.path)
    return file.status == "R" and file.old_path is not None and is_test(file.old_path) and not is_test(file.path)


def _sizes(measured: Measured, policy: Policy) -> Iterator[str]:
    if measured.deleted >= policy.tier3_deleted:
        yield f"deletes {_count(measured.deleted, 'line')} (limit {policy.tier3_deleted})"
    for file in measured.files:
        if file.status not in {"M", "R", "T"} or file.deleted == 0:
            continue
        if file.old_lines is None:
            if file.deleted * 100 >= policy.rewrite_lines * policy.rewrite_percent:
                yield f"how much of {_shown(file.path)} is rewritten is not known"
        elif file.old_lines >= policy.rewrite_lines and file.deleted * 100 >= file.old_lines * policy.rewrite_percent:
            yield f"rewrites {file.deleted * 100 // file.old_lines} % of {_shown(file.path)} ({file.old_lines} lines)"


def _medium(facts: ChangeFacts, policy: Policy) -> Iterator[str]:
    measured = facts.measured
    changed = measured.added + measured.deleted
    if changed > policy.tier1_lines:
        yield f"{_count(changed, 'changed line')} (limit {policy.tier1_lines} for tier 1)"
    if len(measured.files) > policy.tier1_files:
        yield f"{_count(len(measured.files), 'file')} (limit {policy.tier1_files} for tier 1)"
    manifests = [path for file in measured.files for path in file.paths if is_manifest(path)]
    if manifests:
        yield f"may change dependencies: {_named(manifests)}"
    if not facts.registered:
        yield "none of the passed checks is registered with the repository"


def _lines(measured: Measured) -> str:
    return _count(measured.added + measured.deleted, "changed line")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _named(paths: tuple[str, ...] | list[str]) -> str:
    unique = list(dict.fromkeys(paths))
    rest = f" and {len(unique) - NAMED} more" if len(unique) > NAMED else ""
    return ", ".join(_shown(path) for path in unique[:NAMED]) + rest


def _shown(path: str) -> str:
    """A path as a reader may see it: names are data, and an invisible character must not rearrange the sentence."""
    shown = path if path.isprintable() and not is_hidden(path) else ascii(path)
    return shown if len(shown) <= 120 else f"{shown[:117]}…"
