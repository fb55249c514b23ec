"""What people hand to a command beside words: files and JSON. Each fault is a :class:`BadInput`, so that a command can tell all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hub.cli.exits import Exit
from hub.cli.session import fail
from hub.wire.plain_json import read_json

T = TypeVar("T")

MAX_BYTES = 1_048_576
"""The hub takes no larger body."""


class BadInput(ValueError):
    """A file or an argument that cannot be used; the message names it."""


class Inputs:
    """Reads what a command was given, remembers every fault, and ends the command with all of them."""

    def __init__(self) -> None:
        self._faults: list[str] = []

    def take(self, read: Callable[[], T], instead: T) -> T:
        """What ``read`` returns, or ``instead`` while its fault is kept for :meth:`check`."""
        try:
            return read()
        except BadInput as fault:
            self._faults.append(str(fault))
            return instead

    def check(self) -> None:
        """End the command as wrong usage if anything was wrong."""
        if len(self._faults) == 1:
            fail(Exit.USAGE, self._faults[0])
        if self._faults:
            errors = [{"loc": "", "msg": fault} for fault in self._faults]
            fail(Exit.USAGE, f"{len(errors)} inputs cannot be used", errors=errors)


def read_file(source: str) -> bytes:
    """A file, or standard input for ``-``; no larger than the hub takes."""
    if not source:
        raise BadInput("a file is named behind the @, like @notes.md")
    try:
        if source == "-":
            found = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                found = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as fault:
        raise BadInput(f"{source} cannot be read: {getattr(fault, 'strerror', None) or fault}") from None
    if len(found) > MAX_BYTES:
        raise BadInput(f"{source} is larger than {MAX_BYTES} bytes, the most the hub takes")
    return found


def read_text(source: str) -> str:
    """A text file."""
    try:
        return read_file(source).decode()
    except UnicodeDecodeError as fault:
        raise BadInput(f"{source} is not text in UTF-8 (byte {fault.start})") from None


def read_document(source: str) -> Any:
    """A JSON file."""
    return _parsed(source, read_file(source))


def read_argument(option: str, text: str | None) -> Any:
    """JSON in an argument, or in the file it names as ``@FILE``."""
    if text is None:
        return None
    return _parsed(option, read_file(text[1:]) if text.startswith("@") else text.encode())


def _parsed(what: str, body: bytes) -> Any:
    try:
        return read_json(body)
    except ValueError as fault:
        raise BadInput(f"{what} is not valid JSON: {getattr(fault, 'msg', fault)}") from None
