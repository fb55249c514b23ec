"""What every refusal owes whoever made the mistake, and everybody else: said once, for all doors."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.living_hub import LivingHub

_POWERFUL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def powerful(text: str) -> set[str]:
    """Characters with power over a terminal, or that nobody sees."""
    return {char for char in text if unicodedata.category(char) in _POWERFUL and char not in "\n\t"}


def check_words(text: str, hub: LivingHub) -> None:
    """An answer shows neither the inside of the hub nor a secret, and repeats nothing with power over a reader's terminal."""
    assert "Traceback" not in text, text
    assert not powerful(text), f"{powerful(text)} in {text!a}"
    assert not [name for name, token in hub.tokens.items() if token in text], "a token is repeated"


@contextmanager
def nothing_changes(hub: LivingHub) -> Iterator[None]:
    """What is done inside leaves every committed row as it was, and nothing in the hub's log that a person would have to look at."""
    before = hub.state()
    yield
    after = hub.state()
    changed = [table for table in after if after[table] != before.get(table)]
    assert not changed, f"rows changed in {changed}"
    complaints = hub.complaints()
    assert not complaints, complaints


def places(errors: list[dict[str, Any]]) -> list[str]:
    """Where the faults are, sorted; each with words of its own."""
    assert all(error["msg"] and error["type"] for error in errors)
    return sorted(error["loc"] for error in errors)
