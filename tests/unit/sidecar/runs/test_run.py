"""What is read of a run's directory may be what a loss of power left of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sidecar.runs.run import Run, read_spool
from sidecar.runs.shim import Shim


@pytest.mark.parametrize(
    "torn", [b"5", b'"x"', b"[1]", b"null", b'{"n": "5"}', b'{"n": true}', b'{"n": 2, "ou', b"\0\0\0", b""]
)
def test_what_is_left_of_a_torn_line_is_no_event_whatever_it_means_as_json(torn: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b'{"n": 1, "out": "a"}\n' + torn + b'\n{"n": 3, "out": "b"}\n')
    assert read_spool(tmp_path) == [(1, {"out": "a"}), (3, {"out": "b"})]


@pytest.mark.parametrize(
    "torn", [b"", b"5", b"[]", b"{}", b'{"hard_boot_us": 1}', b'{"hard_boot_us": null, "wall_boot_us": 1}']
)
def test_an_order_that_is_not_whole_bounds_nothing_and_fails_nothing(torn: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(torn)
    Run(tmp_path)._read_bounds()


@pytest.mark.parametrize("number", ["1e999", "9" * 400, "1e308"])
async def test_no_number_in_a_command_ends_the_watch_over_the_deadline(number: str) -> None:
    shim = Shim({"soft_boot_us": 1 << 60, "hard_boot_us": 1 << 60, "wall_boot_us": 1 << 60}, _Nothing())
    reader = asyncio.StreamReader()
    for command in ('"extend", "soft_boot_us": 0, "hard_boot_us": %s', '"stop", "grace_ms": %s'):
        reader.feed_data(b'{"cmd": ' + (command % number).encode() + b"}\n")
    reader.feed_data(b"[" * 60_000 + b'\n{"cmd": "stop", "grace_ms": 0}\n')
    reader.feed_eof()
    await shim._serve(reader, _Nothing())
    assert shim._stopped == "stop", "what comes after is obeyed"
    shim._kill_us = None
    watch = asyncio.ensure_future(shim._hold_deadline())
    await asyncio.sleep(0)
    assert not watch.done()
    watch.cancel()


class _Nothing:
    """A spool, and a client's socket, that take everything."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None
