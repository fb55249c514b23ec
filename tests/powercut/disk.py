"""A disk that a power cut can hit at any step of a tape: what is left of files and names, by the rules a file system guarantees.

Of data, what was written before the last ``fsync`` of its file is left; the rest is gone or, as chance has it, there in part: any
writes of it in any order, cut at sectors of 512 bytes. A write leaves what is beside it alone (SQLite's "powersafe overwrite", which
every disk of today keeps). Of names, two rules:

- ``STRICT``, what POSIX promises: a name is left when its directory was synced after it was made;
- ``ORDERED``, what ext4, XFS and Btrfs do: names are journalled in order, so that any sync leaves every name made before it.

A rename is one step: it happened or it did not. Shared memory (SQLite's ``-shm``) is never left: it is built anew by who opens first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from random import Random

from tests.powercut.tape import SHARED, Op, Step

SECTOR = 512


class Names(Enum):
    """When a name is durable."""

    STRICT = auto()
    ORDERED = auto()


@dataclass(slots=True)
class File:
    """Content now, what is durable of it, and the changes between: at an offset these bytes, or (None) the file ends there."""

    now: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def change(self, offset: int, data: bytes | None) -> None:
        _apply(self.now, offset, data)
        self.pending.append((offset, data))

    def sync(self, content: bytes) -> None:
        """``content``, if it is known, is what became durable, however it was written."""
        if content:
            self.now[:] = self.durable[:] = content
            self.pending.clear()
        for offset, data in self.pending:
            _apply(self.durable, offset, data)
        self.pending.clear()

    def left(self, chance: Random | None) -> bytes:
        """The content after a power cut; ``chance`` lets some of what was not synced survive."""
        content = bytearray(self.durable)
        if chance is not None:
            for offset, data in _survivors(self.pending, chance):
                _apply(content, offset, data)
        return bytes(content)


@dataclass(slots=True)
class Directory:
    """Names now, and those that are durable."""

    now: dict[str, File | Directory] = field(default_factory=dict)
    durable: dict[str, File | Directory] = field(default_factory=dict)


Change = tuple[tuple[Directory, str, "File | Directory | None"], ...]
"""Names that change in one step: in a directory, a name, what it means from then on (None: nothing)."""


class Disk:
    """The files beneath the root of a tape; at first there is none. :meth:`take` goes on by a step."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._root = Directory()
        self._nodes: dict[int, File | Directory] = {}
        self._pending: list[Change] = []

    def take(self, step: Step) -> None:
        """One step happens."""
        match step.op:
            case Op.CREATED:
                self._bear(step, File())
            case Op.MADE:
                self._bear(step, Directory())
            case Op.WROTE | Op.RESIZED:
                file = self._nodes[step.node]
                assert isinstance(file, File)
                file.change(step.offset, step.data if step.op is Op.WROTE else None)
            case Op.RENAMED:
                (old, old_name), (new, new_name) = self._at(step.path), self._at(step.data.decode())
                self._rename((old, old_name, None), (new, new_name, old.now[old_name]))
            case Op.LINKED:
                old, old_name = self._at(step.path)
                self._rename((*self._at(step.data.decode()), old.now[old_name]))
            case Op.REMOVED:
                self._rename((*self._at(step.path), None))
            case Op.SYNCED:
                self._sync(step)
            case _:
                pass

    def cut(self, to: Path, chance: Random | None = None) -> None:
        """Write what a power cut now leaves to ``to``, an empty directory. ``chance``: some of the rest survives, too."""
        kept = [change for change in self._pending if chance is not None and chance.random() < 0.5]
        late: dict[tuple[int, str], File | Directory | None] = {}
        for change in kept:
            for directory, name, meant in change:
                late[id(directory), name] = meant
        self._write(self._root, to, late, chance)

    def files(self) -> dict[str, bytes]:
        """Everything as the processes see it, without shared memory."""
        return {path: bytes(file.now) for path, file in _walk(self._root, "")}

    def _bear(self, step: Step, child: File | Directory) -> None:
        self._nodes[step.node] = child
        self._rename((*self._at(step.path), child))

    def _rename(self, *change: tuple[Directory, str, File | Directory | None]) -> None:
        for directory, name, meant in change:
            _mean(directory.now, name, meant)
        self._pending.append(change)

    def _sync(self, step: Step) -> None:
        node = self._root if step.path == "." else self._nodes[step.node]
        if isinstance(node, File):
            node.sync(step.data)
        settled = [
            change
            for change in self._pending
            if self._names is Names.ORDERED or any(directory is node for directory, _, _ in change)
        ]
        for change in settled:
            for directory, name, meant in change:
                _mean(directory.durable, name, meant)
        self._pending = [change for change in self._pending if change not in settled]

    def _at(self, path: str) -> tuple[Directory, str]:
        *parents, name = Path(path).parts
        directory = self._root
        for parent in parents:
            child = directory.now[parent]
            assert isinstance(child, Directory)
            directory = child
        return directory, name

    def _write(
        self, directory: Directory, to: Path, late: dict[tuple[int, str], File | Directory | None], chance: Random | None
    ) -> None:
        names = dict(directory.durable)
        for (where, name), meant in late.items():
            if where == id(directory):
                _mean(names, name, meant)
        for name, child in names.items():
            if isinstance(child, Directory):
                (to / name).mkdir(mode=0o700)
                self._write(child, to / name, late, chance)
            elif not name.endswith(SHARED):
                (to / name).write_bytes(child.left(chance))
                (to / name).chmod(0o600)


def _mean(names: dict[str, File | Directory], name: str, meant: File | Directory | None) -> None:
    if meant is None:
        names.pop(name, None)
    else:
        names[name] = meant


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
    end = offset + len(data or b"")
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if data:
        content[offset:end] = data


def _survivors(pending: list[tuple[int, bytes | None]], chance: Random) -> Iterator[tuple[int, bytes | None]]:
    """A beginning of the changes, or any of them in any order, and of a write any sectors."""
    if chance.random() < 0.5:
        kept = pending[: chance.randint(0, len(pending))]
        torn = len(kept) - 1
    else:
        kept = [change for change in pending if chance.random() < 0.5]
        chance.shuffle(kept)
        torn = -1
    for index, (offset, data) in enumerate(kept):
        if data is None or (torn >= 0 and index != torn):
            yield offset, data
            continue
        for sector in _sectors(offset, data):
            if chance.random() < 0.7:
                yield sector


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        size = min(SECTOR - (offset + at) % SECTOR, len(data) - at)
        yield offset + at, data[at : at + size]
        at += size


def _walk(directory: Directory, at: str) -> Iterator[tuple[str, File]]:
    for name, child in directory.now.items():
        path = f"{at}{name}"
        if isinstance(child, Directory):
            yield from _walk(child, path + os.sep)
        elif not name.endswith(SHARED):
            yield path, child
