"""What a process did to its files, in order, with the moments at which somebody was promised something.

The recorder (``recorder.c``) writes the steps; whoever drives the process adds a mark when it hears an answer. A mark is what must be found
after every later power cut: a sentence, and how to look for it.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("recorder.c")
COMPILER = shutil.which("gcc") or shutil.which("cc")
SHARED = "-shm"
"""Memory that SQLite's processes share through a file. It is built anew by who opens first, and never synced: no part of what is left."""
_HEADER = struct.Struct("<IBHQQ")


class Op(StrEnum):
    """The letters of ``recorder.c``."""

    CREATED = "C"
    MADE = "M"
    WROTE = "W"
    RESIZED = "T"
    SYNCED = "S"
    RENAMED = "R"
    LINKED = "L"
    REMOVED = "U"
    MAPPED = "P"
    MARK = "!"
    BEYOND = "X"
    """Something that the recorder cannot follow: no tape."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation. ``data`` is what was written, the second name, a small file's content when it is synced, or the words of a mark."""

    op: Op
    node: int
    offset: int
    path: str
    data: bytes

    @property
    def promise(self) -> dict[str, Any]:
        """The words of a mark."""
        return _words(self.data)


@lru_cache(maxsize=100_000)
def _words(data: bytes) -> dict[str, Any]:
    words: dict[str, Any] = json.loads(data)
    return words


@dataclass(frozen=True, slots=True)
class Tape:
    """All steps, and what they left at last: the content of each file by its path."""

    steps: tuple[Step, ...]
    left: Mapping[str, bytes]

    @property
    def syncs(self) -> int:
        return sum(step.op is Op.SYNCED for step in self.steps)

    def without_syncs(self, name: str) -> Tape:
        """As if the product had forgotten to sync files of this name: what a test must see."""
        kept = (step for step in self.steps if not (step.op is Op.SYNCED and Path(step.path).name == name))
        return replace(self, steps=tuple(kept))


class Recording:
    """A log that processes and tests append to, about what is beneath ``root / only`` (not there, yet) without ``skip`` in there."""

    def __init__(self, root: Path, log: Path, *, only: str, skip: str, sync_delay_us: int = 0) -> None:
        self.root = root.resolve()
        self.log = log
        self._only = self.root / only
        self._skip = self._only / skip
        self._delay = sync_delay_us
        self._library = log.with_suffix(".so")
        assert COMPILER is not None
        subprocess.run(
            [COMPILER, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl", "-lpthread"], check=True
        )
        log.touch(0o600)

    @property
    def environ(self) -> Mapping[str, str]:
        """What makes a process record."""
        return {
            "LD_PRELOAD": str(self._library),
            "RECORD_ROOT": str(self.root),
            "RECORD_LOG": str(self.log),
            "RECORD_ONLY": str(self._only),
            "RECORD_SKIP": str(self._skip),
            "RECORD_SYNC_DELAY_US": str(self._delay),
        }

    def mark(self, said: str, **look: Any) -> None:
        """Note a promise: one write, so that it has its place among the steps."""
        self._add(Op.MARK, json.dumps({"said": said, **look}).encode())

    def make(self, name: str) -> None:
        """Make a directory in this process, which is not recorded."""
        path = self.root / name
        path.mkdir(0o700)
        self._add(Op.MADE, node=path.stat().st_ino, path=str(path).encode())

    def _add(self, op: Op, data: bytes = b"", node: int = 0, path: bytes = b"") -> None:
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        try:
            size = _HEADER.size + len(path) + len(data)
            os.write(log, _HEADER.pack(size, ord(op), len(path), node, 0) + path + data)
        finally:
            os.close(log)

    def tape(self) -> Tape:
        """What was recorded so far; fails when something could not be followed."""
        data, at, steps = self.log.read_bytes(), 0, []
        while at < len(data):
            length, op, path_bytes, node, offset = _HEADER.unpack_from(data, at)
            middle = at + _HEADER.size + path_bytes
            path = os.path.relpath(data[at + _HEADER.size : middle].decode(), self.root) if path_bytes else ""
            body = data[middle : at + length]
            if op in b"RL":
                body = os.path.relpath(body.decode(), self.root).encode()
            steps.append(Step(Op(chr(op)), node, offset, path, body))
            at += length
        assert steps, "nothing was recorded: was the library preloaded?"
        assert (beyond := [step for step in steps if step.op is Op.BEYOND]) == [], beyond
        assert all(step.path.endswith(SHARED) for step in steps if step.op is Op.MAPPED), "only an index of a WAL may be mapped"
        return Tape(tuple(steps), dict(self._left()))

    def _left(self) -> Iterator[tuple[str, bytes]]:
        for path in self._only.rglob("*"):
            if path.is_file() and not path.is_relative_to(self._skip) and not path.name.endswith(SHARED):
                yield str(path.relative_to(self.root)), path.read_bytes()
