"""Values of a declared shape: full ones with every field, minimal ones with what is required alone, and one for each closed word.

Made from the declarations themselves, so that a frame or field which is added tomorrow is covered without anybody thinking of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

TEXTS = ("a word", "word", "a" * 40, "b" * 64, "retryable", "standard", "2026-01-01T00:00:00Z")
"""Tried in this order where a text must have a certain form."""


def full(kind: type[Any]) -> Any:
    """With a value in every field, also the optional ones."""
    return next(iter(_dataclass(kind)))


def minimal(kind: type[Any]) -> Any:
    """With its required fields alone; the others have their defaults."""
    hints = get_type_hints(kind, include_extras=True)
    required = [field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING]
    return kind(**{name: next(values(hints[name])) for name in required})


def variants(kind: type[Any]) -> Iterator[Any]:
    """Full ones, in which every closed word (of an enum, a literal, a union) occurs at least once, at any depth."""
    yield from _dataclass(kind)


def values(annotation: Any) -> Iterator[Any]:
    """At least one value that the declaration admits; all of them where they are few."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _admitted(annotation, values(parts[0]))
    elif origin in (Union, UnionType):
        for part in parts:
            if part is not NoneType:
                yield from values(part)
        if NoneType in parts:
            yield None
    elif origin is Literal:
        yield from parts
    elif origin is tuple:
        yield from ((value,) for value in values(parts[0]))
    elif origin is dict or annotation is Any:
        yield {"key": [1, None, "text"]}
    elif isinstance(annotation, NewType):
        yield from values(annotation.__supertype__)
    elif is_dataclass(annotation):
        yield from _dataclass(annotation)  # type: ignore[arg-type]  # a class, not an instance
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from annotation
    else:
        yield from {str: TEXTS, int: (3, 0), bool: (True,), float: (0.5,)}[annotation]


def _admitted(annotation: Any, found: Iterator[Any]) -> Iterator[Any]:
    """Those that the constraints admit; of plain texts and numbers the first alone."""
    adapter, given = TypeAdapter(annotation), 0
    for value in found:
        try:
            adapter.validate_python(value)
        except ValidationError:
            continue
        given += 1
        yield value
        if isinstance(value, (str, int, float)) and not isinstance(value, Enum):
            return
    assert given, f"no value known for {annotation}"


def _dataclass(kind: type[Any]) -> Iterator[Any]:
    hints = get_type_hints(kind, include_extras=True)
    every = {field.name: list(_few(values(hints[field.name]))) for field in fields(kind)}
    first = kind(**{name: found[0] for name, found in every.items()})
    yield first
    for name, found in every.items():
        yield from (replace(first, **{name: other}) for other in found[1:])


def _few(found: Iterator[Any]) -> Iterator[Any]:
    """Plain texts and numbers say nothing new after the first."""
    plain = False
    for value in found:
        if isinstance(value, (str, int, float, bool)) and not isinstance(value, Enum):
            # the words of a literal are plain, too: they are told apart by who declares them
            if plain and value in TEXTS:
                continue
            plain = True
        yield value
