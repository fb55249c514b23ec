"""How a check says that something does not hold."""

from __future__ import annotations


class Violation(AssertionError):
    """An invariant does not hold; named by its number (I1 … I17, L1 … L4)."""

    def __init__(self, invariant: str, what: str) -> None:
        super().__init__(f"{invariant}: {what}")
        self.invariant, self.what = invariant, what


def must(holds: object, invariant: str, what: object = "") -> None:
    """Raise :class:`Violation` unless it holds."""
    if not holds:
        raise Violation(invariant, str(what))
