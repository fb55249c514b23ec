"""A disk for the journal that loses what was not synced, and may keep part of the last write, as a power cut does."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO


@dataclass
class Node:
    """The content of a file, whatever its name is."""

    written: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


class _File(io.RawIOBase):
    def __init__(self, disk: FakeDisk, node: Node) -> None:
        self.disk = disk
        self.node = node
        self.at = 0

    def write(self, data) -> int:
        if self.disk.full:
            raise OSError(28, "no space left on device")
        self.node.written += data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        assert size == -1
        data = bytes(self.node.written[self.at :])
        self.at = len(self.node.written)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0
        self.at = offset
        return offset

    def truncate(self, size: int | None = None) -> int:
        assert size is not None
        del self.node.written[size:]
        return size


class FakeDisk:
    """``crash(keep)`` forgets everything not synced, but for the first ``keep`` bytes of it."""

    def __init__(self) -> None:
        self.nodes: dict[Path, Node] = {}
        self.full = False

    def open(self, path: Path) -> BinaryIO:
        return _File(self, self.nodes.setdefault(path, Node()))  # type: ignore[return-value]

    def create(self, path: Path) -> BinaryIO:
        self.nodes[path] = Node()
        return self.open(path)

    def sync(self, file: BinaryIO) -> None:
        assert isinstance(file, _File)
        file.node.durable = bytes(file.node.written)

    def replace(self, new: Path, path: Path) -> None:
        self.nodes[path] = self.nodes.pop(new)

    def crash(self, keep: int = 0) -> None:
        for path, node in list(self.nodes.items()):
            written = bytes(node.written)
            unsynced = written[len(node.durable) :] if written.startswith(node.durable) else b""
            left = node.durable + unsynced[:keep]
            self.nodes[path] = Node(bytearray(left), left)

    def after_power_cut(self, path: Path) -> FakeDisk:
        """Another disk that holds what would be left of one file."""
        other = FakeDisk()
        left = self.nodes.get(path, Node()).durable
        other.nodes[path] = Node(bytearray(left), left)
        return other
