"""The settings as a document: the commented file that ``agentcom config init`` writes, and values as documents write them."""

from __future__ import annotations

import json
from typing import Any

from hub.settings.keys import KEYS, TABLES, Key

COLUMN = 42
"""Where comments begin, unless a line is longer."""
HEAD = """\
# Every key of the hub's configuration with its default; what is commented out has none, or one of this machine.
# Judge it with: agentcom config check --config hub.toml
# Flags and AGENTCOM_<TABLE>_<KEY> in the environment win over this file; relative paths start at its directory.
"""


def commented_file() -> str:
    """The whole file: every key with its default and one comment."""
    lines = [HEAD, *(_line(key) for key in KEYS.values() if not key.table)]
    for name, model in TABLES.items():
        said = (model.__doc__ or "").partition(".")[0]
        lines += ["", f"{f'[{name}]':<{COLUMN}}# {said[0].lower()}{said[1:]}"]
        lines += [_line(key) for key in KEYS.values() if key.table == name]
    return "\n".join(lines) + "\n"


def _line(key: Key) -> str:
    fixed = key.field.default_factory is None and key.default is not None
    value = toml(key.default if fixed else (key.field.examples or [""])[0])
    setting = f"{key.name} = {value}" if fixed else f"# {key.name} = {value}"
    return f"{setting:<{COLUMN}}# {key.field.description}"


def toml(value: Any) -> str:
    """A value of a key as TOML writes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(toml(one) for one in value)}]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False)


def plain(value: Any) -> Any:
    """A value of a key as JSON has it."""
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)
