"""One tree from many sources: flags over environment over file over defaults, with the origin of each value and all faults at once."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hub.core.errors import HubError
from hub.settings.keys import KEYS, TABLES
from hub.settings.sources import Fault, Given, Origin, from_environment, from_file, from_flags
from hub.settings.tree import RULE, HubSettings

DEFAULT = Origin("default")
_WORDS = {
    "is_instance_of": "Input should be a path, written as a string",
    "tuple_type": 'Input should be a list, written as ["100.64.0.0/10"]',
}
"""What the library says in the words of Python, in those of the file."""


class SettingsError(HubError):
    """The settings cannot be used. ``faults`` lists everything that is wrong with them."""

    code = "bad_settings"

    def __init__(self, faults: list[Fault], warnings: list[str]) -> None:
        super().__init__("the settings cannot be used:\n" + "\n".join(textwrap.indent(str(fault), "  ") for fault in faults))
        self.faults = faults
        self.warnings = warnings


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings, the file that was read, where each key's value comes from, and what was strange on the way."""

    settings: HubSettings
    file: Path | None
    origins: Mapping[str, Origin]
    warnings: list[str]

    def value(self, path: str) -> Any:
        """The effective value of a key."""
        found: Any = self.settings
        for name in path.split("."):
            found = getattr(found, name)
        return found


def resolve(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> Resolved:
    """Read every source and make one tree; raises :class:`SettingsError`. Values that another source overrules are judged, too."""
    sources = [from_flags(flags or {}), from_environment(environ or {})]
    if file is not None:
        sources.append(from_file(file))
    faults = [fault for source in sources for fault in source.faults]
    warnings = [warning for source in sources for warning in source.warnings]
    chosen: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for source in reversed(sources):
        for path, given in source.given.items():
            try:
                chosen[path] = KEYS[path].adapter.validate_python(given.value, strict=not given.is_text)
                origins[path] = given.origin
            except ValidationError as wrong:
                faults += [_fault(path, given, error) for error in wrong.errors()]
    # with one of them missing, keys say nothing about each other
    doubtful = {fault.key.partition(".")[0] for fault in faults if fault.key in KEYS}
    settings = _tree({path: value for path, value in chosen.items() if path not in doubtful}, origins, doubtful, faults)
    if faults or settings is None:
        raise SettingsError(faults, warnings)
    return Resolved(settings, file, {path: origins.get(path, DEFAULT) for path in KEYS}, warnings)


def _tree(
    chosen: Mapping[str, Any], origins: Mapping[str, Origin], doubtful: set[str], faults: list[Fault]
) -> HubSettings | None:
    parts: dict[str, Any] = {path: value for path, value in chosen.items() if not KEYS[path].table}
    for name, model in TABLES.items():
        if name in doubtful:
            continue
        values = {KEYS[path].name: value for path, value in chosen.items() if KEYS[path].table == name}
        try:
            parts[name] = model.model_validate(values)
        except ValidationError as wrong:
            for error in wrong.errors():
                if error["type"] != RULE:
                    raise
                for key, said in error["ctx"]["faults"]:
                    path = f"{name}.{key}"
                    faults.append(Fault(str(origins.get(path, DEFAULT)), path, said))
    return None if faults else HubSettings.model_validate(parts)


def _fault(path: str, given: Given, error: Any) -> Fault:
    said = _WORDS.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    at = next((f"entry {part + 1}: " for part in error["loc"] if isinstance(part, int)), "")
    return Fault(str(given.origin), path, at + said)
