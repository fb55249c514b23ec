"""Secrets are found wherever they lie in a large change, and nothing else is."""

from __future__ import annotations

import pytest

from sidecar.checks.leaks import OVERLAP_BYTES, WINDOW_BYTES, leaks_in, leaks_in_patch

KEY = b"AKIA" + b"Q" * 16


@pytest.mark.parametrize("shift", [-len(KEY), -len(KEY) + 1, -7, 0, 1, OVERLAP_BYTES - 20, OVERLAP_BYTES - 3, OVERLAP_BYTES])
def test_a_secret_is_found_on_both_sides_of_a_window_and_across_it(shift: int) -> None:
    data = b" " * (WINDOW_BYTES + shift) + KEY
    assert list(leaks_in(data)) == ["AWS access key"]
    assert list(leaks_in(data + b" " * WINDOW_BYTES)) == ["AWS access key"]


def test_the_end_of_a_window_is_not_the_end_of_a_word() -> None:
    longer = b" " * (WINDOW_BYTES + OVERLAP_BYTES - len(KEY)) + KEY + b"Q" * 50
    assert list(leaks_in(longer)) == []


def test_no_search_is_longer_than_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search holds the interpreter: one over a whole change would stop the beats."""
    spans: list[int] = []

    class Pattern:
        def search(self, data: bytes, at: int, end: int) -> None:
            spans.append(end - at)

    monkeypatch.setattr("sidecar.checks.leaks._COMPILED", (("any", Pattern()),))
    assert list(leaks_in_patch(b"diff --git a/x b/x\n+" + b"a" * (4 * WINDOW_BYTES))) == []
    assert len(spans) == 5
    assert max(spans) <= WINDOW_BYTES + OVERLAP_BYTES
