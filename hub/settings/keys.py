"""The keys of the settings tree as a flat list: what a person may write, and its name everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import Field, TypeAdapter
from pydantic.fields import FieldInfo

from hub.settings.tree import HubSettings, Table

PREFIX = "AGENTCOM_"


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that can be set. ``table`` is empty for keys that stand above the tables."""

    table: str
    name: str
    field: FieldInfo

    @property
    def path(self) -> str:
        """``table.key``."""
        return f"{self.table}.{self.name}".lstrip(".")

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.path.replace(".", "_").upper()

    @property
    def adapter(self) -> TypeAdapter[Any]:
        """Judges a value by itself, without those beside it."""
        return _adapter(self.path)

    @property
    def default(self) -> Any:
        """Its value when nobody says anything."""
        return self.field.get_default(call_default_factory=True)

    @property
    def holds_path(self) -> bool:
        """Whether its value names a file or directory."""
        return Path in (self.field.annotation, *get_args(self.field.annotation))

    @property
    def holds_many(self) -> bool:
        """Whether its value is a list."""
        return get_origin(self.field.annotation) is tuple


def table_of(info: FieldInfo) -> type[Table] | None:
    """The table that a field of the tree is, or None for a plain key."""
    found = info.annotation
    return found if isinstance(found, type) and issubclass(found, Table) else None


def _keys() -> Iterator[Key]:
    fields = HubSettings.model_fields
    yield from (Key("", name, info) for name, info in fields.items() if table_of(info) is None)
    for table, info in fields.items():
        if (model := table_of(info)) is not None:
            yield from (Key(table, name, inner) for name, inner in model.model_fields.items())


KEYS: Mapping[str, Key] = {key.path: key for key in _keys()}
"""Every key by its path, in the order of the file."""
TABLES: Mapping[str, type[Table]] = {
    name: model for name, info in HubSettings.model_fields.items() if (model := table_of(info)) is not None
}


@cache
def _adapter(path: str) -> TypeAdapter[Any]:
    info = KEYS[path].field
    annotated: Any = Annotated[info.annotation, Field(), *info.metadata]
    return TypeAdapter(annotated)
