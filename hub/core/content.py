"""What the text of a change may hide: invisible characters, secrets, tests that disappear.

Pure: reads a unified diff without context lines and reports paths and kinds, never the matched text itself (a secret
must not travel into reasons, events and logs). Bidi controls: CVE-2021-42574, "Trojan Source".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

INVISIBLE = re.compile(
    "[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]"  # bidi controls
    "|[\u200b\u2060-\u2064\ufeff\U000e0000-\U000e007f]"  # zero width, tags
    "|[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]|\r(?!$)"  # C0 and C1 except tab, form feed and line ends
)

SECRETS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a private key", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY")),
    ("an AWS key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50,})")),
    ("a GitLab token", re.compile(r"\bglpat-[A-Za-z0-9_-]{20}")),
    ("a Slack token", re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}")),
    ("a Google key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}")),
    ("an API key", re.compile(r"\bsk-(?:ant-|proj-|live-)?[A-Za-z0-9_-]{24,}|\b[rs]k_live_[A-Za-z0-9]{16,}")),
    ("an npm token", re.compile(r"\bnpm_[A-Za-z0-9]{36}\b")),
    ("an AgentCom token", re.compile(r"\bac_[a-z0-9]{4,}_[A-Za-z0-9_-]{24,}")),
    ("a JSON web token", re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}")),
    (
        "credentials in an address",
        re.compile(r"\b[a-z][a-z0-9+.-]{1,15}://[^\s/:@'\"]{1,64}:[^\s/@'\"{}$<]{6,128}@[A-Za-z0-9.-]+"),
    ),
    (
        "a literal password or key",
        re.compile(r"(?i)\b[a-z_]*(?:api_?key|secret|token|passwd|password)\b[\"']?\s*[:=]\s*[\"'][A-Za-z0-9+/_=-]{20,}[\"']"),
    ),
)
"""Kinds of secrets by the shapes their issuers document."""

_TEST_CASE = re.compile(
    r"^\s*(?:(?:async\s+)?def\s+test_\w*|func\s+Test[A-Z_]\w*|#\[(?:\w+::)?test\b|@Test\b|(?:it|test)(?:\.\w+)?\s*\(\s*[\"'`])"
)
LINE_CHARS = 16_384
"""Longest line that is searched for secrets in one piece; the rest of a longer one is searched in further pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found in the changed lines.

    ``hidden``: files with invisible characters. ``secrets``: (file, kind). ``tests_removed``: test cases deleted and not
    added again anywhere in the change.
    """

    hidden: tuple[str, ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()
    tests_removed: int = 0


NOTHING_FOUND = Findings()


def is_hidden(text: str) -> bool:
    """Whether ``text`` (a name or a line) holds characters that a reader does not see."""
    return INVISIBLE.search(text) is not None


def examine(patch: str) -> Findings:
    """Read a diff made with ``-U0``; bounded by the size of the patch its caller read."""
    hidden: dict[str, None] = {}
    secrets: dict[tuple[str, str], None] = {}
    cases = 0
    for path, sign, line in _changed_lines(patch):
        cases += (1 if sign == "-" else -1) if _TEST_CASE.match(line[:LINE_CHARS]) else 0
        if sign == "-":
            continue
        if is_hidden(line.removeprefix("\ufeff")):  # a byte order mark opens many honest files
            hidden[path] = None
        for kind in _secrets_in(line):
            secrets[path, kind] = None
    return Findings(hidden=tuple(hidden), secrets=tuple(secrets), tests_removed=max(0, cases))


def _secrets_in(line: str) -> Iterator[str]:
    for start in range(0, len(line), LINE_CHARS):
        piece = line[max(0, start - 256) : start + LINE_CHARS]  # a secret may lie across the cut
        yield from (kind for kind, pattern in SECRETS if pattern.search(piece))


def _changed_lines(patch: str) -> Iterator[tuple[str, str, str]]:
    """(path, sign, line) of each changed line.

    An added line may look like a header (``++ b/x``), so header lines count only before the first ``@@`` of a file.
    Split at line feeds alone: other separators are content.
    """
    path, header = "?", True
    for line in patch.split("\n"):
        if line.startswith("diff --git "):
            header, path = True, line.removeprefix("diff --git ")
        elif line.startswith("@@ "):
            header = False
        elif header and line.startswith("+++ b/"):
            path = line.removeprefix("+++ b/").rstrip("\t")
        elif not header and line[:1] in {"+", "-"}:
            yield path, line[0], line[1:]
