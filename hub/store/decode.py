"""Rows to domain values: a frozen dataclass whose fields are named like the columns; columns it does not name are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import TypeAdapter

from hub.store.base import Record

T = TypeVar("T")


def decoder(cls: type[T]) -> Callable[[Record], T]:
    """A function that reads one row as ``cls``: 0/1 as bool, text as enum or, where the field is ``Json``, parsed.

    A row that does not fit raises pydantic's ValidationError: the schema's constraints were bypassed, which is a defect.
    """
    adapter = TypeAdapter(cls)

    def read(row: Record) -> T:
        return adapter.validate_python(dict(row))

    return read
