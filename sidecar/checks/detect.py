"""Recognise a project's test suite by its files, of which only plain ones count. Blocking file I/O: call from a thread."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hub.ids import CheckStatus
from sidecar.workspace.paths import NotPlainError, read_plain

READ_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """How to run a test suite. ``exit_codes`` are those that do not simply mean failed tests."""

    name: str
    argv: tuple[str, ...]
    exit_codes: Mapping[int, CheckStatus] = field(default_factory=dict)
    takes_files: bool = False
    idle: str = r"(?!)"

    def ran_nothing(self, output: str) -> bool:
        """Whether the end of the output says that no test ran at all, whatever the exit code was (``idle`` is a pattern)."""
        return re.search(rf"(?:{self.idle})\s*\Z", output) is not None


def detect_tests(directory: Path, search_path: str) -> Suite | None:
    """The first suite of the table that the files of ``directory`` speak of; ``search_path`` is where Python is looked for."""
    for applies, suite in _SUITES:
        if applies(directory):
            return suite if suite.name != "pytest" else _pytest(search_path)
    return None


def _pytest(search_path: str) -> Suite:
    python = next((name for name in ("python", "python3") if shutil.which(name, path=search_path)), "python")
    return Suite(
        name="pytest",
        # No cache directory: a check leaves the tree as it found it.
        argv=(python, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        # 3 internal error, 4 usage error, 5 no tests collected (pytest's ExitCode).
        exit_codes={3: CheckStatus.ERROR, 4: CheckStatus.ERROR, 5: CheckStatus.ERROR},
        takes_files=True,
        idle="No module named pytest",
    )


def _has_pytest(directory: Path) -> bool:
    if (directory / "pytest.ini").is_file() or (directory / "conftest.py").is_file():
        return True
    sections = {"pyproject.toml": r"^\[tool\.pytest", "tox.ini": r"^\[pytest\]", "setup.cfg": r"^\[tool:pytest\]"}
    if any(re.search(pattern, _text(directory, name), re.MULTILINE) for name, pattern in sections.items()):
        return True
    places = (directory, directory / "tests", directory / "test")
    return any(next(place.glob(pattern), None) for place in places for pattern in ("test_*.py", "*_test.py"))


def _has_npm(directory: Path) -> bool:
    try:
        package = json.loads(_text(directory, "package.json"))
        script = package.get("scripts", {}).get("test", "")
    except (ValueError, AttributeError, RecursionError):
        return False
    return isinstance(script, str) and bool(script) and "no test specified" not in script


def _has_file(name: str) -> Callable[[Path], bool]:
    return lambda directory: (directory / name).is_file()


def _has_make(directory: Path) -> bool:
    names = ("GNUmakefile", "makefile", "Makefile")
    return any(re.search(r"^test\s*:(?!=)", _text(directory, name), re.MULTILINE) for name in names)


def _text(directory: Path, name: str) -> str:
    try:  # a link may lead to a device that never answers, and to what the agent itself could not read
        return read_plain(directory, (name,), READ_LIMIT_BYTES).decode(errors="replace")
    except (OSError, NotPlainError):
        return ""


_MAKE_IDLE: Final = r"make: (?:'test' is up to date\.|Nothing to be done for 'test'\.)"
"""A directory called test, and a target not declared phony: make succeeds without doing anything."""

_SUITES: Final[tuple[tuple[Callable[[Path], bool], Suite], ...]] = (
    (_has_pytest, Suite(name="pytest", argv=())),
    (_has_npm, Suite(name="npm test", argv=("npm", "test", "--silent"))),
    (_has_file("Cargo.toml"), Suite(name="cargo test", argv=("cargo", "test", "--quiet"))),
    (_has_file("go.mod"), Suite(name="go test", argv=("go", "test", "./..."))),
    (_has_make, Suite(name="make test", argv=("make", "test"), idle=_MAKE_IDLE)),
    (_has_file("mix.exs"), Suite(name="mix test", argv=("mix", "test"))),
)
