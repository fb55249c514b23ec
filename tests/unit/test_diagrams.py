"""The generated parts of the documents are what the tables of the rules say."""

from __future__ import annotations

import importlib.util
import re
from enum import StrEnum
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    """The script is no package: it is loaded from its file."""
    found = importlib.util.spec_from_file_location("diagrams", ROOT / "ops" / "diagrams.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


diagrams = load()


class Light(StrEnum):
    RED = "red"
    GREEN = "green"
    OFF = "off"
    BROKEN = "broken"


LIGHTS = {
    Light.RED: frozenset({Light.GREEN, Light.OFF}),
    Light.GREEN: frozenset({Light.RED, Light.OFF}),
    Light.OFF: frozenset({Light.RED}),
    Light.BROKEN: frozenset(),
}


def edges(text: str) -> set[tuple[str, str]]:
    return set(re.findall(r"^  (\w+) --> (\w+)$", text, re.MULTILINE))


def test_the_documents_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert diagrams.main(["--check"]) == 0, capsys.readouterr().err


def test_a_document_that_is_out_of_date_is_named_and_then_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "STATES.md"
    document.write_text("# Mine\n\n<!-- generated: agent -->\nold\n<!-- end -->\n\nStays.\n")
    monkeypatch.setattr(diagrams, "ROOT", tmp_path)
    monkeypatch.setattr(diagrams, "DOCUMENTS", (document,))
    assert diagrams.main(["--check"]) == 1
    assert "STATES.md is out of date" in capsys.readouterr().err
    assert "old" in document.read_text()
    assert diagrams.main([]) == 0
    assert document.read_text().startswith("# Mine\n")
    assert document.read_text().endswith("\n\nStays.\n")
    assert "idle --> assigned" in document.read_text()
    assert diagrams.main(["--check"]) == 0


def test_a_block_nobody_generates_is_a_fault() -> None:
    with pytest.raises(KeyError):
        diagrams.render("<!-- generated: nonsense -->\n<!-- end -->")


def test_an_edge_every_live_state_has_is_said_once_and_ends_are_words() -> None:
    text = diagrams.machine(LIGHTS, start=Light.RED, live=[Light.RED, Light.GREEN], once=[Light.OFF, Light.BROKEN])
    assert edges(text) == {("red", "green"), ("green", "red")}
    assert "Not drawn: every live state may become `off`." in text
    assert "After `off` only `red` may follow." in text
    assert "After `broken` nothing follows." in text


def test_an_edge_that_one_live_state_lacks_is_drawn() -> None:
    lacking = LIGHTS | {Light.GREEN: frozenset({Light.RED})}
    text = diagrams.machine(lacking, start=Light.RED, live=[Light.RED, Light.GREEN], once=[Light.OFF])
    assert edges(text) == {("red", "green"), ("red", "off"), ("green", "red")}
    assert "Not drawn" not in text


@pytest.mark.parametrize("name", ["task", "agent", "change"])
def test_the_table_below_a_diagram_is_complete(name: str) -> None:
    table = {
        "task": diagrams.task.TRANSITIONS,
        "agent": diagrams.agent.TRANSITIONS,
        "change": diagrams.change.TRANSITIONS,
    }[name]
    shown = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", diagrams.BLOCKS[name](), re.MULTILINE))
    assert {state: set(re.findall(r"`(\w+)`", after)) for state, after in shown.items()} == {
        state.value: {to.value for to in after} for state, after in table.items()
    }
