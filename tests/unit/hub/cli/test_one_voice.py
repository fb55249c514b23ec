"""There is one way to the terminal, ``hub.cli.render``, so that foreign text cannot get around it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hub.cli import render
from hub.wire import text

ROOM = Path(render.__file__).parent
FILES = sorted(path for path in ROOM.rglob("*.py") if path != Path(render.__file__))
SPEAKERS = {"print", "echo", "secho", "write", "writelines", "echo_via_pager", "input", "prompt", "confirm"}
ALLOWED = {("demo/show.py", "console(stderr=self._to_stderr).print(table)")}
"""The demo's last table, of its own words and of cells that ``clean`` has seen."""


def spoken(source: str) -> list[str]:
    """Everything that puts words on a stream, or gets hold of one, as it is written."""
    return [ast.unparse(node) for node in ast.walk(ast.parse(source)) if _speaks(node)]


def _speaks(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name in SPEAKERS
        case ast.ImportFrom(module="rich", names=names):
            return any(one.name == "print" for one in names)
        case ast.Assign(value=ast.Attribute(attr="stdout" | "stderr")):
            return True
    return False


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOM)))
def test_no_command_speaks_around_the_renderer(path: Path) -> None:
    name = str(path.relative_to(ROOM))
    assert [call for call in spoken(path.read_text()) if (name, call) not in ALLOWED] == []


@pytest.mark.parametrize(
    "source",
    ["print(title)", "typer.echo(title)", "sys.stdout.write(title)", "Console().print(title)", "click.secho(x)", "from rich import print",
     "out = sys.stderr"],
)  # fmt: skip
def test_speaking_is_noticed(source: str) -> None:
    assert spoken(source)


def test_there_is_one_function_that_makes_text_harmless() -> None:
    judging = [
        path.name for path in ROOM.rglob("*.py") if "unicodedata" in path.read_text() or "isprintable" in path.read_text()
    ]
    assert judging == []
    assert render.clean is text.clean, "the sidecar's commands use it, too"
