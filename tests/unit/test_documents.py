"""The documents say what the code says: links lead somewhere, and the written protocol has every frame, field, limit and code."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from hub import ids
from hub.core.lease import Terms
from hub.core.reconcile import RULES
from hub.core.risk import Policy
from hub.wire import frames, spec
from hub.wire.codes import Close, is_terminal

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = ROOT / "hub" / "wire" / "PROTOCOL.md"
DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
ADRS = sorted((ROOT / "ops" / "adr").glob("[0-9]*.md"))

VOCABULARIES = (
    ids.Lane,
    ids.TaskType,
    ids.Access,
    ids.Phase,
    ids.AgentState,
    ids.Outcome,
    ids.Verdict,
    ids.HeldVerdict,
    ids.ControlKind,
    ids.VerificationKind,
    ids.CheckStatus,
)
NAMED = {
    "Task": frames.Task,
    "Epoch": frames.Epoch,
    "AgentName": frames.AgentName,
    "Name": spec.Name,
    "Registered": frames.Registered,
    "Mark": frames.Mark,
    "Line": spec.Line,
    "Note": spec.Note,
    "Text4K": spec.Text4K,
    "Text64K": spec.Text64K,
    "Sha": spec.Sha,
    "Digest": spec.Digest,
    "Count": spec.Count,
}
"""Types the document defines once and calls by name."""
FRAMES = {typing.get_args(typing.get_type_hints(frame)["t"])[0]: frame for frame in typing.get_args(frames.Frame)}
VALUES: dict[str, type] = {
    name: cls
    for module in (frames, spec)
    for name, cls in vars(module).items()
    if isinstance(cls, type)
    and dataclasses.is_dataclass(cls)
    and cls.__module__ == module.__name__
    and cls not in FRAMES.values()
}


# ── how the document writes a type ─────────────────────────────────────────────────────────────────────────────────────


def hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def own_fields(cls: Any) -> list[dataclasses.Field[Any]]:
    """The fields of a frame without those of the envelope and without its type."""
    common = {"t"} if cls is frames.Envelope else {"t", *(field.name for field in dataclasses.fields(frames.Envelope))}
    return [field for field in dataclasses.fields(cls) if field.name not in common]


def notation(hint: Any) -> str:
    for name, alias in NAMED.items():
        if hint == alias:
            return name
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        base, *extras = typing.get_args(hint)
        return _limited(notation(base), extras)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(notation(part) for part in typing.get_args(hint) if part is not types.NoneType)
    if origin is tuple:
        return f"list of {notation(typing.get_args(hint)[0])}"
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(hint))
    if origin is dict:
        return "object"
    if isinstance(hint, typing.NewType):
        return notation(hint.__supertype__)
    plain = {str: "string", int: "integer", bool: "boolean", float: "number"}
    return plain.get(hint) or hint.__name__


def _limited(text: str, extras: list[Any]) -> str:
    bounds = [bound for extra in extras for bound in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
    found: dict[str, Any] = {}
    for bound in bounds:
        found |= {
            key: value
            for key in ("ge", "le", "min_length", "max_length", "pattern")
            if (value := getattr(bound, key, None)) is not None
        }
    low, high = found.get("ge", found.get("min_length")), found.get("le", found.get("max_length"))
    if "pattern" in found:
        pattern = str(found["pattern"]).replace("|", "\\|")
        return f"{text} matching `{pattern}`"
    if text.startswith("list of "):
        least = "" if low is None else f"{low}–"
        return text.replace("list of ", f"list of {least or '≤ '}{high} ", 1)
    if low is not None and high is not None:
        return f"{text} {low}–{'2^53' if high == 2**53 else high}"
    return f"{text} ≤ {high}" if high is not None else f"{text} ≥ {low}"


def default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if value is dataclasses.MISSING:
        return "required"
    if value is None:
        return "–"
    return "all defaults" if dataclasses.is_dataclass(value) else f"`{json.dumps(value)}`"


# ── reading the document ───────────────────────────────────────────────────────────────────────────────────────────────


def section(title: str) -> str:
    """The text under a heading up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PROTOCOL.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None, f"PROTOCOL.md has no section {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row in a text, without heads and rules."""
    found = []
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found[1:]


# ── the protocol ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [*FRAMES, *VALUES])
def test_each_field_is_documented_with_its_type_and_default(name: str) -> None:
    cls = FRAMES.get(name) or VALUES[name]
    title = "3 Transport" if cls is frames.Envelope else name
    documented = {cells[0]: cells[1:3] for cells in rows(section(title))} if own_fields(cls) else {}
    expected = {f"`{field.name}`": [notation(hints(cls)[field.name]), default(field)] for field in own_fields(cls)}
    assert documented == expected


def test_every_frame_is_in_the_table_with_its_direction() -> None:
    heard, said = (set(typing.get_args(union)) for union in (frames.FromSidecar, frames.FromHub))
    documented = {re.sub(r"[\[\]`]|\(.*\)", "", cells[1]): cells[0] for cells in rows(section("5 Frames"))[: len(FRAMES)]}
    both = {True: "both", False: ""}
    assert documented == {
        name: both[frame in heard and frame in said] or ("S→H" if frame in heard else "H→S") for name, frame in FRAMES.items()
    }


def test_every_named_type_is_defined() -> None:
    defined = {name.strip() for cells in rows(section("5 Frames"))[len(FRAMES) :] for name in cells[0].split(",")}
    assert set(NAMED) <= defined


def test_every_vocabulary_is_complete() -> None:
    documented = {cells[0]: cells[1] for cells in rows(section("Vocabularies"))}
    assert documented == {words.__name__: ", ".join(f"`{word.value}`" for word in words) for words in VOCABULARIES}


def test_every_close_code_is_documented() -> None:
    assert {(int(cells[0]), cells[1]) for cells in rows(section("11 Close codes"))} == {
        (code.value, code.name) for code in Close
    }
    assert all(is_terminal(code) == (code >= 4500) for code in Close)


def test_reserved_types_are_listed() -> None:
    reserved = section("13 Versions").partition("reserved and answered `unsupported`")[2]
    assert set(re.findall(r"`(\w+)`", reserved)) == frames.LATER


def test_the_table_of_reconciliation_is_the_rules() -> None:
    documented = [(cells[0], cells[1], cells[2]) for cells in rows(section("8 Reconnect and reconcile"))]
    assert [rule for *_, rule in documented] == [rule.name for rule in RULES.values()]
    assert len({(has, says) for has, says, _ in documented}) == len(RULES)
    has, says = ({key[i]: documented[n][i] for n, key in enumerate(RULES)} for i in (0, 1))
    assert documented == [(has[key[0]], says[key[1]], rule.name) for key, rule in RULES.items()]


def test_the_numbers_of_the_lease_are_those_of_the_code() -> None:
    defaults = {cells[0]: cells[2] for cells in rows(section("6 Assignment and lease"))}
    terms = Terms()
    assert defaults["the hub gives the task away"] == f"{terms.hold_us // ids.SECOND} s"
    assert defaults["offer sent again, and a frame resent, `resend_ms`"] == f"{terms.resend_us // ids.SECOND} s"
    assert defaults["agent counts as present for a claim"] == f"{terms.fresh_us // ids.SECOND} s"
    assert defaults["offer withdrawn, `accept_ms`"] == f"{terms.accept_us // ids.SECOND} s"
    assert defaults["lost link shows as reconnecting before offline"] == f"{terms.grace_us // ids.SECOND} s"
    assert defaults["lease term, `lease_ms`"] == f"{terms.lease_us // ids.SECOND} s"


# ── links ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def anchors(path: Path) -> set[str]:
    """The anchors a forge makes of the headings."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "ops" / "adr" / "README.md").read_text("utf-8")
    assert ADRS
    assert [path.name for path in ADRS] == re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", index)


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.name)
def test_a_decision_fits_on_a_page_and_says_what_one_must_know(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Status", "Context", "Decision", "Consequences", "Evidence"]
    assert text.startswith(f"# {int(path.name[:4])}. ")
    assert len(text.splitlines()) <= 60


def test_every_key_of_checks_and_policy_is_explained_with_its_default() -> None:
    text = (ROOT / "ops" / "docs" / "installation.md").read_text("utf-8")
    part = text.partition("**Checks** run")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in part.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    policy = {field.name: field.default for field in dataclasses.fields(Policy)}
    assert named == {*policy, *(field.name for field in dataclasses.fields(spec.Verification))}
    for row in rows:
        keys = re.findall(r"`(\w+)`", row[0])
        if keys[0] in policy:
            said = [json.loads(value) for value in row[1].replace("`", "").split(", ")]
            assert said == [list(policy[key]) if policy[key] == () else policy[key] for key in keys][: len(said)]
