"""What a doctor's check found: data with its cure, the same shape at the hub, beside the agents, and in between.

Examiners live in the room whose facts they know; each tells findings and changes nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hub.ids import FindingState


@dataclass(frozen=True, slots=True)
class Finding:
    """``check`` is a stable word, ``found`` the fact, ``fix`` what to do about it; ``fixable``: ``--fix`` does exactly that."""

    check: str
    state: FindingState
    found: str
    fix: str | None = None
    fixable: bool = False


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, FindingState.OK, found)


def warn(check: str, found: str, fix: str, *, fixable: bool = False) -> Finding:
    """It works, and may not for long."""
    return Finding(check, FindingState.WARN, found, fix, fixable)


def fail(check: str, found: str, fix: str, *, fixable: bool = False) -> Finding:
    """It does not work, or not safely."""
    return Finding(check, FindingState.FAIL, found, fix, fixable)


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """Those that stop something."""
    return [finding for finding in findings if finding.state is FindingState.FAIL]
