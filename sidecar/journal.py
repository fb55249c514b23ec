"""The durable memory of one agent: an append-only file of checksummed records.

Each record is a frame of 4 bytes length, 4 bytes CRC-32 and JSON. :meth:`Journal.append` returns when the record is on
the disk. A file that ends in the middle of a record lost a write that nobody was promised: it is cut there at opening.
Damage with whole records behind it is something else, a fault of the disk, and never repaired by forgetting them. When
settled records outweigh the live ones the file is rewritten beside itself and renamed into place.

Blocking by design: the agent's one writer calls it from a thread, in order.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import orjson
import structlog

from hub.ids import LeaseEpoch, TaskId
from sidecar.core.records import RECORD_BYTES, SEEN_CONTROLS, Commanded, JournalRecord, Key, Removed, Seen, decode, encode
from sidecar.files import sync_directory

log = structlog.get_logger(__name__)

COMPACT_BYTES = 262_144
"""A smaller file is never rewritten."""

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
ROOM_BYTES = 16 * 1024 * 1024
"""With less room on its disk nothing new is begun: a spec and a result are a quarter of a MiB each, and a workspace is more."""

_HEADER = struct.Struct(">II")


class Disk(Protocol):
    """The file operations the journal depends on; tests put a disk here that loses what was not synced."""

    def open(self, path: Path) -> BinaryIO:
        """Open for reading and appending, creating it durably if needed."""
        ...

    def create(self, path: Path) -> BinaryIO:
        """Open a new, empty file, whatever was there."""
        ...

    def sync(self, file: BinaryIO) -> None:
        """Return when everything written to the file is on the disk."""
        ...

    def replace(self, new: Path, path: Path) -> None:
        """Rename durably."""
        ...


class RealDisk:
    """The operating system's files."""

    def open(self, path: Path) -> BinaryIO:
        """Open for reading and appending; a new file's name is durable, too."""
        fresh = not path.exists()
        file = _open(path)
        if fresh:
            sync_directory(path.parent)
        return file

    def create(self, path: Path) -> BinaryIO:
        """Open a new, empty file; its name becomes durable when it replaces another."""
        path.unlink(missing_ok=True)
        return _open(path)

    def sync(self, file: BinaryIO) -> None:
        """fsync."""
        os.fsync(file.fileno())

    def replace(self, new: Path, path: Path) -> None:
        """Rename, then make the directory entry durable."""
        new.replace(path)
        sync_directory(path.parent)


class JournalError(OSError):
    """The journal cannot be written or read; the agent must stop, since nothing may happen without a record."""

    code = "journal_failed"
    retryable = False


class JournalFull(JournalError):
    """There is no room for a record, and nothing of it is in the file: the same record can be appended again later."""

    code = "journal_full"
    retryable = True


class Journal:
    """The records of one agent. :attr:`records` are those of live assignments, in order."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self._path = path
        self._disk = disk or RealDisk()
        self._lock = threading.Lock()  # a cancelled append still runs in its thread
        self._live: dict[Key, list[JournalRecord]] = {}
        self._seen: deque[int] = deque(maxlen=SEEN_CONTROLS)
        self._file = self._disk.open(path)
        self._bytes = self._load()

    @property
    def records(self) -> Iterator[JournalRecord]:
        """What a holder is restored from: the controls seen, then each live assignment's records in order."""
        yield Seen(cids=tuple(self._seen))
        for records in self._live.values():
            yield from records

    def append(self, record: JournalRecord) -> None:
        """Make one record durable.

        Raises :class:`JournalFull`; any other :class:`JournalError`, after which the journal must not be used any more; or
        :class:`~sidecar.core.records.RecordError`, before anything was written.
        """
        with self._lock:
            try:
                self._bytes += self._write_whole(record)
                self._disk.sync(self._file)
                self._remember(record)
                if isinstance(record, Removed) and self._bytes > COMPACT_BYTES:
                    self._compact()
            except JournalFull:
                raise
            except OSError as fault:
                raise JournalError(*fault.args) from fault

    def _write_whole(self, record: JournalRecord) -> int:
        """Write a record, or take back what there was room for: what follows must not come after half of one."""
        try:
            return self._write(self._file, record)
        except OSError as fault:
            if fault.errno not in NO_SPACE:
                raise
            self._file.truncate(self._bytes)
            raise JournalFull(*fault.args) from fault

    def close(self) -> None:
        """Close the file, once a record that is being written is durable."""
        with self._lock:
            self._file.close()

    def _load(self) -> int:
        self._file.seek(0)
        data = self._file.read()
        end = 0
        unreadable: set[Key] = set()
        for offset, body in _whole(data):
            self._take(body, unreadable)
            end = offset
        if _has_whole(data, end):
            raise self._damaged(data, end)
        if end < len(data):
            self._file.truncate(end)
            self._disk.sync(self._file)
        for key in unreadable:
            removed = Removed(task=key.task, lease_epoch=key.lease_epoch)
            end += self._write(self._file, removed)
            self._disk.sync(self._file)
            self._remember(removed)
        return end

    def _take(self, body: bytes, unreadable: set[Key]) -> None:
        """Remember one record. An assignment with one that makes no sense is given up: to the hub it is a lost one, which
        it hands out again, while going on without a step of its life could repeat what must not be repeated.
        """
        try:
            record = decode(body)
        except ValueError as fault:
            log.warning("record_unreadable", journal=str(self._path), reason=str(fault)[:1000])
            if (key := _key_of(body)) is not None:
                unreadable.add(key)
            return
        if isinstance(record, Removed):
            unreadable.discard(record.key)
        self._remember(record)

    def _damaged(self, data: bytes, at: int) -> JournalError:
        """Keep the evidence where nothing appends to it."""
        copy = self._path.with_suffix(".damaged")
        with self._disk.create(copy) as file:
            file.write(data)
            self._disk.sync(file)
        self._file.close()
        return JournalError(
            f"{self._path} is damaged at byte {at}, with whole records after it; a copy is in {copy}. Restore the file, or "
            "delete it to start without what this agent held: the hub then gives that work to others"
        )

    def _remember(self, record: JournalRecord) -> None:
        match record:
            case Removed():
                self._live.pop(record.key, None)
            case Seen():
                self._seen.extend(record.cids)
            case _:
                if isinstance(record, Commanded):
                    self._seen.append(record.control.cid)
                self._live.setdefault(record.key, []).append(record)

    def _compact(self) -> None:
        new = self._path.with_suffix(".new")
        file = self._disk.create(new)
        try:
            size = sum(self._write(file, record) for record in self.records)
        except OSError as fault:
            file.close()
            if fault.errno not in NO_SPACE:
                raise
            return  # as it is the file is whole, too; the next one that is settled tries again
        self._disk.sync(file)
        self._disk.replace(new, self._path)
        self._file.close()
        self._file, self._bytes = file, size

    @staticmethod
    def _write(file: BinaryIO, record: JournalRecord) -> int:
        body = encode(record)
        data = _HEADER.pack(len(body), zlib.crc32(body)) + body
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, "there was room for a part only")
        return len(data)


def has_room(directory: Path) -> bool:
    """Whether work may be begun that has to be written down there."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize >= ROOM_BYTES


def live_keys(path: Path) -> frozenset[Key]:
    """The assignments that a journal holds, read without touching it: a sidecar may be writing.

    Raises :class:`JournalError` when the file is missing, cannot be read, or is damaged: then nobody knows what it holds.
    """
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise JournalError(f"{path} cannot be read: {fault.strerror}") from fault
    live: set[Key] = set()
    end = 0
    for offset, body in _whole(data):
        end = offset
        if (key := _key_of(body)) is not None:
            (live.discard if _is_removal(body) else live.add)(key)
    if _has_whole(data, end):
        raise JournalError(f"{path} is damaged at byte {end}, with whole records after it")
    return frozenset(live)


def read_journals(agents: Path) -> tuple[dict[str, frozenset[Key]], tuple[str, ...]]:
    """What every agent beneath ``agents`` holds, configured or not, and what is wrong with journals that do not tell."""
    held: dict[str, frozenset[Key]] = {}
    faults: list[str] = []
    for home in sorted(path for path in agents.glob("*") if path.is_dir()):
        try:
            held[home.name] = live_keys(home / "journal")
        except JournalError as fault:
            faults.append(str(fault))
    return held, tuple(faults)


def _whole(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """The bodies of whole records with the offset after each, up to the first damage."""
    while at + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, at)
        body = data[at + _HEADER.size : at + _HEADER.size + length] if 0 < length <= RECORD_BYTES else b""
        if not body or len(body) < length or zlib.crc32(body) != checksum:
            return
        at += _HEADER.size + length
        yield at, body


def _has_whole(data: bytes, after: int) -> bool:
    """Whether a whole record begins somewhere behind ``after``: then what is there is no write that was cut short.

    A length starts with a zero byte and JSON has none, so there are few places to look at.
    """
    at = data.find(b"\0", after)
    while at >= 0:
        if next(_whole(data, at), None) is not None:
            return True
        at = data.find(b"\0", at + 1)
    return False


def _key_of(body: bytes) -> Key | None:
    """The assignment that a record which cannot be decoded is about, if it says so."""
    try:
        match orjson.loads(body):
            case {"task": int(task), "lease_epoch": int(lease_epoch)}:
                return Key(TaskId(task), LeaseEpoch(lease_epoch))
    except orjson.JSONDecodeError:
        pass
    return None


def _is_removal(body: bytes) -> bool:
    try:
        return isinstance(decode(body), Removed)
    except ValueError:
        return False


def _open(path: Path) -> BinaryIO:
    """Unbuffered, and readable by its owner alone: specs and results are nobody else's business."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    return os.fdopen(handle, "a+b", buffering=0)  # short writes are checked below
