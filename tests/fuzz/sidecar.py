"""What a sidecar reads that may be torn, or an agent's: its journal, spools, a shim's commands, output, the files of a clone."""

from __future__ import annotations

import asyncio
import atexit
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hub.ids import LeaseEpoch, TaskId
from sidecar.core.records import Assigned, Exited, Removed, Seen, decode, encode
from sidecar.journal import Journal, JournalError, live_keys
from sidecar.runs import sweep
from sidecar.runs.run import Run, _has_ended, read_spool
from sidecar.runs.shim import Shim
from sidecar.runs.spool import Lines
from sidecar.runtimes.command import CommandReader, SuccessRule
from sidecar.settings import SettingsError, load
from sidecar.workspace.git import WorkspaceError
from sidecar.workspace.gitdir import read_head
from tests.fuzz.inputs import Bytes, near
from tests.fuzz.place import PLACE

RECORDS = [
    b'{"k":"assigned","task":1,"lease_epoch":1}',
    b'{"k":"accepted","task":1,"lease_epoch":1,"spec":{"task":1,"lease_epoch":1,"title":"t"}}',
    b'{"k":"woken","task":1,"lease_epoch":1,"run_id":"1-1-0","round":0,"cause":"first"}',
    b'{"k":"removed","task":1,"lease_epoch":1}',
    b'{"k":"parked","task":2,"lease_epoch":1}',
    b'{"k":"seen","cids":[1,2]}',
    b'{"k":"unheard of","task":2,"lease_epoch":3}',
]


class _Disk:
    """Files without syncing them: here it would only take time."""

    def open(self, path: Path) -> Any:
        return path.open("a+b", buffering=0)

    def create(self, path: Path) -> Any:
        path.unlink(missing_ok=True)
        return self.open(path)

    def sync(self, file: Any) -> None:
        pass

    def replace(self, new: Path, path: Path) -> None:
        new.replace(path)


def journal(data: bytes) -> None:
    """Opened, and opened again with the same records; or refused, and left as it is. What is appended is there."""
    path = PLACE / "journal"
    path.write_bytes(before := _file(data))
    try:
        held = _held(path)
    except JournalError:
        assert path.read_bytes() == before, "a damaged file is evidence"
        return
    assert live_keys(path) == {record.key for record in held if not isinstance(record, Seen)}
    assert _held(path) == held
    one = Assigned(task=TaskId(9), lease_epoch=LeaseEpoch(9))
    opened = Journal(path, _Disk())
    opened.append(one)
    opened.append(Removed(task=TaskId(9), lease_epoch=LeaseEpoch(9)))
    opened.close()
    assert [record for record in _held(path) if isinstance(record, Seen) or record.key != one.key] == [
        record for record in held if isinstance(record, Seen) or record.key != one.key
    ]


def _held(path: Path) -> list[Any]:
    opened = Journal(path, _Disk())
    try:
        return list(opened.records)
    finally:
        opened.close()


def _file(data: bytes) -> bytes:
    """Noise; or, from a first byte of 128 on, whole records, with noise as their bodies and between them."""
    if not data or data[0] < 128:
        return data
    return b"".join(_records(Bytes(data[1:])))


def _records(source: Bytes) -> Iterator[bytes]:
    while source.more:
        match source.number() % 4:
            case 0:
                yield _framed(source.piece())
            case 1:
                yield source.piece()
            case _:
                yield _framed(source.one_of(RECORDS))


def _framed(body: bytes) -> bytes:
    return struct.pack(">II", len(body), zlib.crc32(body)) + body


def record(data: bytes) -> None:
    """A record that is written back the same, or a ValueError."""
    with suppress(ValueError):
        found = decode(near(data, RECORDS))
        assert decode(encode(found)) == found


def spool(data: bytes) -> None:
    """Whatever is left of a spool, its events are numbered objects in order, the end behind all others."""
    (PLACE / "events.jsonl").write_bytes(near(data, [b'{"n": 1, "out": "x"}\n{"n": 2, "exit": 0, "stopped": null}\n']))
    (PLACE / "run.json").write_bytes(data)
    Run(PLACE)._read_bounds()
    events = read_spool(PLACE)
    assert all(type(n) is int and isinstance(event, dict) for n, event in events)
    _has_ended(PLACE)


ORDER = {"argv": ["true"], "cwd": "/", "env": {}, "mark": "m", "stdin": "", "keep_stdin": True, "become": None}
COMMANDS = [
    b'{"cmd":"extend","soft_boot_us":5000000000000000,"hard_boot_us":6000000000000000}\n',
    b'{"cmd":"stop","grace_ms":1000}\n',
    b'{"cmd":"send","key":"q","text":"x"}\n',
    b'{"cmd":"status"}\n',
    b'{"cmd":"events"}\n',
]


_LOOP = asyncio.new_event_loop()
atexit.register(_LOOP.close)


class _Words:
    """The spool and the client's end of a shim: what is written is counted."""

    said = 0

    def add(self, event: dict[str, Any]) -> None:
        self.said += 1

    def write(self, data: bytes) -> None:
        self.said += 1

    def close(self) -> None:
        pass


def shim(data: bytes) -> None:
    """Any bytes on a shim's socket: a later command is still obeyed, and the deadline is held."""
    lines = near(data, COMMANDS) if len(data) % 2 else b"".join(near(piece, COMMANDS) for piece in data.split(b"\n"))
    _LOOP.run_until_complete(_spoken(lines))


async def _spoken(lines: bytes) -> None:
    words: Any = _Words()
    far = 1 << 60
    shim = Shim({**ORDER, "soft_boot_us": far, "hard_boot_us": far, "wall_boot_us": far}, words)
    shim._kill_everything = lambda: sweep.Swept(0, ())  # type: ignore[method-assign]
    reader = asyncio.StreamReader(limit=1 << 20)
    reader.feed_data(lines.replace(b'"events"', b'"even"') + b'\n{"cmd":"send","key":"the last","text":"x"}\n')
    reader.feed_eof()
    await shim._serve(reader, words)
    assert "the last" in shim._sent
    assert min(shim._soft_us, shim._hard_us) >= far, "a deadline is never shortened"
    watch = asyncio.ensure_future(shim._hold_deadline())
    await asyncio.sleep(0)
    assert not watch.done(), watch
    watch.cancel()
    await asyncio.wait({watch})


SAID = [
    b'{"outcome":"failed","code":"c","message":"m","retryable":false}\n',
    b'{"usage":{"input":1,"output":2,"cost":0.5,"model":"m"}}\n',
    b'{"question":{"qid":"q","text":"?","options":["a"]}}\n',
    b'{"text":"x"}\n',
]


def output(data: bytes) -> None:
    """Whatever an agent prints, in whatever pieces, its end can be written down and read back."""
    source = Bytes(near(data, SAID))
    reader = CommandReader(SuccessRule(kind="outcome"), jsonl=True)
    lines = Lines(lambda line: reader.feed({"out": line}) and None)
    while source.more:
        lines.data_received(source.piece() if source.number() % 8 else b"\n")
        lines.data_received(source.take(64))
    lines.connection_lost(None)
    end = reader.end({"exit": 0, "signal": None, "stopped": None}, PLACE)
    exited = Exited(task=TaskId(1), lease_epoch=LeaseEpoch(1), run_id="r", stopped=None, end=end)
    assert decode(encode(exited)) == exited


def head(data: bytes) -> None:
    """The HEAD of a clone that an agent wrote: an id, nothing, or a fault of the workspace."""
    git = PLACE / "tree" / ".git"
    git.mkdir(parents=True, exist_ok=True)
    first, _, second = data.partition(b"\0")
    (git / "HEAD").write_bytes(near(first, [b"ref: refs/heads/main\n"]))
    (git / "packed-refs").write_bytes(near(second, [b"a" * 40 + b" refs/heads/main\n"]))
    with suppress(WorkspaceError):
        found = read_head(PLACE / "tree")
        assert found is None or (set(found) <= set("0123456789abcdef") and len(found) in {40, 64})


def settings(data: bytes) -> None:
    """A configuration, or all that is wrong with it."""
    example = b'hub_url = "ws://127.0.0.1:1/ws"\ntoken_file = "t"\nstate_dir = "s"\n[[agents]]\nid = "a"\nruntime = "mock"\n'
    path = PLACE / "sidecar.toml"
    path.write_bytes(near(data, [example]))
    path.chmod(0o600)
    with suppress(SettingsError):
        load(path)
