"""SQLite's write-ahead log, read as bytes: whether something in the middle of it was damaged after it had been written.

SQLite takes everything up to the last commit whose checksums hold, and drops the rest without a word. After a crash that is right:
the rest is a transaction that never ended. After damage it is a loss of what was acknowledged, and nobody would hear of it. The two
differ: a commit is on disk before the first frame behind it is written, so a broken frame with a whole commit behind it *and more
behind that commit* was whole once. (Format: https://www.sqlite.org/fileformat2.html#walformat)
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
MAGIC = 0x377F0682
"""Its lowest bit says whether checksums read the words as big-endian."""
SHM_MX_FRAME = slice(16, 20)
"""Where the index of the log says how many frames SQLite took (native byte order)."""


@dataclass(frozen=True, slots=True)
class _Log:
    page_bytes: int
    salts: bytes
    big_endian: bool
    checksum: tuple[int, int]


def wal_of(path: Path) -> Path:
    """The log beside a store."""
    return path.with_name(f"{path.name}-wal")


def shm_of(path: Path) -> Path:
    """The index of the log beside a store."""
    return path.with_name(f"{path.name}-shm")


def log_length(path: Path) -> int:
    """The bytes of the log beside a store; 0 when there is none."""
    wal = wal_of(path)
    return wal.stat().st_size if wal.exists() else 0


def has_log(path: Path) -> bool:
    """Whether there is anything in the log: after a clean end there is not."""
    return log_length(path) > 0


def judge_header(path: Path) -> str | None:
    """What is wrong with the beginning of a store's log, without which SQLite ignores all of it; None if nothing is."""
    if not has_log(path):
        return None
    with wal_of(path).open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES or not head.strip(b"\0"):
        return None  # it was being begun when the power went: nothing had been written to it
    return None if _read_header(head) is not None else f"the header of its log, {wal_of(path).name}, is damaged"


def judge_rest(path: Path) -> str | None:
    """What is wrong behind the frames SQLite took; to be asked while a connection that has read from the store is open."""
    if not has_log(path):
        return None
    taken = _frames_taken(shm_of(path))
    with wal_of(path).open("rb") as file:
        head = file.read(HEADER_BYTES)
        log = _read_header(head) if len(head) == HEADER_BYTES else None
        if log is None or taken is None:
            return None
        lost = _whole_behind(file, log, taken)
    if not lost:
        return None
    return f"its log, {wal_of(path).name}, is damaged at frame {taken + 1}: {lost} whole commits behind it cannot be reached"


def _read_header(head: bytes) -> _Log | None:
    magic, _version, page_bytes, _n, *_ = struct.unpack(">8I", head)
    big_endian = bool(magic & 1)
    checksum = _checksum(head[:24], (0, 0), big_endian=big_endian)
    if magic & ~1 != MAGIC or checksum != struct.unpack(">2I", head[24:32]):
        return None
    return _Log(page_bytes, head[16:24], big_endian, checksum)


def _frames_taken(shm: Path) -> int | None:
    try:
        with shm.open("rb") as file:
            head = file.read(SHM_MX_FRAME.stop)
    except OSError:
        return None
    return int.from_bytes(head[SHM_MX_FRAME], sys.byteorder)


def _whole_behind(file: IO[bytes], log: _Log, taken: int) -> int:
    """Commits behind the first broken frame, if what follows proves that they were whole; else 0."""
    broken, commits, proven = False, 0, False
    for whole, commits_here in _frames(file, log, taken):
        if not whole:
            broken = True
        elif broken:
            proven = proven or commits > 0
            commits += commits_here
    return commits if proven else 0


def _frames(file: IO[bytes], log: _Log, taken: int) -> Iterator[tuple[bool, bool]]:
    """(whole, commits) for every frame behind those taken. A frame is judged by the checksum that the one before it carries."""
    size = FRAME_HEADER_BYTES + log.page_bytes
    before = log.checksum
    if taken:
        file.seek(HEADER_BYTES + (taken - 1) * size + 16)
        before = struct.unpack(">2I", file.read(8))
    file.seek(HEADER_BYTES + taken * size)
    while len(frame := file.read(size)) == size:
        _page, commit, *_ = struct.unpack(">2I", frame[:8])
        stored = struct.unpack(">2I", frame[16:24])
        if frame[8:16] != log.salts:  # of an earlier life of the file, or damaged: what follows tells
            whole = False
        else:
            seen = _checksum(frame[:8], before, big_endian=log.big_endian)
            whole = _checksum(frame[FRAME_HEADER_BYTES:], seen, big_endian=log.big_endian) == stored
        yield whole, whole and commit > 0
        before = stored


def _checksum(data: bytes, start: tuple[int, int], *, big_endian: bool) -> tuple[int, int]:
    s0, s1 = start
    words = struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        s0 = (s0 + first + s1) & 0xFFFFFFFF
        s1 = (s1 + second + s0) & 0xFFFFFFFF
    return s0, s1
