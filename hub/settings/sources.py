"""Where values come from: flags, the environment, a TOML file. Each source gives values with their origins, and tells its own faults."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from platformdirs import user_config_path

from hub.settings.keys import KEYS, PREFIX, TABLES, Key

FLAGS: Mapping[str, str] = {
    "listen.host": "--host",
    "listen.port": "--port",
    "data_dir": "--data-dir",
    "log.format": "--json-logs",
}
ELSEWHERE = frozenset(
    PREFIX + name
    for name in (
        *("CONFIG", "URL", "TOKEN", "TOKEN_FILE", "ENROL"),  # of the command line
        *("TASK", "LEASE_EPOCH", "ACCESS", "RUN", "JOB", "RUN_LOG", "MOCK"),  # of agents and their keepers
    )
)
"""Variables that mean something to another program of ours."""

_TABLE = re.compile(r"\s*\[\s*([\w.-]+)\s*\]")
_ASSIGNMENT = re.compile(r"\s*([\w.-]+)\s*=")


def default_file() -> Path:
    """The file that is read when none is named, if it is there."""
    return user_config_path("agentcom") / "hub.toml"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from; ``place`` is the flag, the variable, or file and line."""

    kind: Literal["flag", "environment", "file", "default"]
    place: str = "default"

    def __str__(self) -> str:
        """What a person looks for."""
        return self.place


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where it was said, about which key, in words that name the cure."""

    place: str
    key: str
    said: str

    def __str__(self) -> str:
        """One fault as text; the words may have several lines."""
        return f"{self.place}: {self.key}: {self.said}" if self.key else f"{self.place}: {self.said}"


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody gave it. ``is_text``: written by a source that knows no types."""

    value: object
    origin: Origin
    is_text: bool = False


@dataclass(slots=True)
class Source:
    """What one source says: values by key, what is wrong in it, and what is only strange."""

    given: dict[str, Given] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def from_flags(flags: Mapping[str, object]) -> Source:
    """Values by key; those that are None were not given."""
    return Source({key: Given(value, Origin("flag", FLAGS.get(key, key))) for key, value in flags.items() if value is not None})


def from_environment(environ: Mapping[str, str]) -> Source:
    """``AGENTCOM_TABLE_KEY``. Lists are separated by commas; an empty variable counts as not set; strangers are warnings."""
    source = Source()
    variables = {key.variable: key for key in KEYS.values()}
    for name in sorted(name for name in environ if name.startswith(PREFIX)):
        if (key := variables.get(name)) is not None:
            if environ[name].strip():
                value = _typed(key, _words(key, environ[name]), Path())
                source.given[key.path] = Given(value, Origin("environment", name), is_text=True)
        elif name not in ELSEWHERE:
            meant = nearest(name.removeprefix(PREFIX).lower().replace("_", "."))
            hint = f"did you mean {KEYS[meant].variable}?" if meant else "`agentcom config show` names those there are"
            source.warnings.append(f"{name} means nothing to the hub; {hint}")
    return source


def from_file(path: Path) -> Source:
    """A TOML file. Relative paths in it start at its directory; what nobody knows is a fault that names what was probably meant."""
    source = Source()
    try:
        text = path.read_text("utf-8")
        data = tomllib.loads(text)
    except OSError as fault:
        source.faults.append(Fault(str(path), "", f"cannot be read: {fault.strerror}"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        source.faults.append(Fault(str(path), "", f"is no TOML: {fault}"))
    else:
        _File(path, _lines(text), source).read(data)
    return source


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    lines: Mapping[str, int]
    source: Source

    def read(self, data: Mapping[str, object]) -> None:
        for name, value in data.items():
            if name not in TABLES:
                self._take(name, value)
            elif isinstance(value, dict):
                for inner, one in value.items():
                    self._take(f"{name}.{inner}", one)
            else:
                self._complain(name, f"is a table; write its keys under [{name}]")

    def _take(self, name: str, value: object) -> None:
        key = KEYS.get(name)
        if key is None:
            self._complain(name, f"unknown key; {_meant(name)}")
        else:
            typed = _typed(key, value, self.path.resolve().parent)
            self.source.given[name] = Given(typed, Origin("file", self._place(name)))

    def _complain(self, name: str, said: str) -> None:
        self.source.faults.append(Fault(self._place(name), name, said))

    def _place(self, name: str) -> str:
        line = self.lines.get(name) or self.lines.get(name.partition(".")[0])
        return f"{self.path}:{line}" if line else str(self.path)


def _lines(text: str) -> dict[str, int]:
    """The line on which each key and table of a file begins. tomllib does not tell; TOML allows each only once."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _TABLE.match(line):
            table = header[1]
            found.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            found.setdefault(f"{table}.{assignment[1]}".lstrip("."), number)
    return found


def _meant(name: str) -> str:
    if "." not in name and (tables := difflib.get_close_matches(name, TABLES, n=1)):
        return f"did you mean [{tables[0]}]?"
    if (meant := nearest(name)) is not None:
        return f"did you mean {meant}?"
    table = name.partition(".")[0] if "." in name else ""
    beside = [key.name for key in KEYS.values() if key.table == table]
    return f"there are {', '.join([*beside, *(f'[{one}]' for one in TABLES if not table)])}"


def nearest(name: str) -> str | None:
    """The key that was probably meant by ``name``: the same word in another table, or one that is written almost like it."""
    word = name.rpartition(".")[2]
    known = {key.name: path for path, key in KEYS.items()}
    tails = {path: path.replace("_", ".") for path in KEYS}
    for path, tail in tails.items():
        if word == KEYS[path].name or name.replace("_", ".") == tail:
            return path
    if close := difflib.get_close_matches(name.replace("_", "."), tails.values(), n=1, cutoff=0.7):
        return next(path for path, tail in tails.items() if tail == close[0])
    if close := difflib.get_close_matches(word, known, n=1, cutoff=0.75):
        return known[close[0]]
    return None


def _words(key: Key, text: str) -> object:
    return tuple(word.strip() for word in text.split(",") if word.strip()) if key.holds_many else text.strip()


def _typed(key: Key, value: object, base: Path) -> object:
    """TOML and the environment have neither paths nor tuples: make those of strings and lists where the key wants them."""
    if key.holds_path and isinstance(value, str) and value:
        return base / Path(value).expanduser()
    if key.holds_many and isinstance(value, list):
        return tuple(value)
    return value
