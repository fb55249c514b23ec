from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from sidecar.runs.process import run

ENV = {"PATH": os.environ["PATH"]}


def alive_in(directory: Path) -> list[int]:
    """Processes that carry the test's mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"PROCESS_TEST={directory}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


async def test_streams_are_kept_apart_or_merged() -> None:
    argv = ("sh", "-c", "echo out; echo err >&2; exit 3")
    apart = await run(argv, env=ENV, timeout_s=20)
    assert (apart.returncode, apart.output, apart.errors, apart.timed_out) == (3, b"out\n", b"err\n", False)
    merged = await run(argv, env=ENV, timeout_s=20, merge=True)
    assert (merged.output, merged.errors) == (b"out\nerr\n", b"")


async def test_input_larger_than_a_pipe_and_output_to_a_file() -> None:
    data = b"x" * 1_000_000
    with tempfile.TemporaryFile() as file:
        done = await run(("cat",), env=ENV, timeout_s=20, stdin=data, stdout=file)
        file.seek(0)
        assert file.read() == data
    assert done.output == b""
    cut = await run(("cat",), env=ENV, timeout_s=20, stdin=data, keep_bytes=10)
    assert (cut.output, cut.truncated) == (b"x" * 10, True)


async def test_what_cannot_start_raises() -> None:
    with pytest.raises(FileNotFoundError):
        await run(("no-such-program",), env=ENV, timeout_s=5)
    with pytest.raises(FileNotFoundError):
        await run(("true",), env=ENV, timeout_s=5, cwd=Path("/no/such/place"))


async def test_a_process_that_ignores_termination_is_killed(tmp_path: Path) -> None:
    env = {**ENV, "PROCESS_TEST": str(tmp_path)}
    script = "trap '' TERM; (trap '' TERM; exec setsid sh -c 'while :; do sleep 1; done') & while :; do sleep 1; done"
    done = await run(("sh", "-c", script), env=env, timeout_s=0.3)
    assert (done.timed_out, done.returncode) == (True, -9)
    assert alive_in(tmp_path) == []


async def test_a_child_that_empties_its_environment_is_found_as_a_descendant(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"setsid env -i {tmp_path}/child & sleep 95"
    child = tmp_path / "child"
    child.write_text(f"#!/bin/sh\necho $$ > {pid_file}\nexec /bin/sleep 94\n")
    child.chmod(0o755)
    await run(("sh", "-c", script), env=ENV, timeout_s=0.7)
    pid = int(pid_file.read_text())
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]


async def test_cancellation_leaves_nothing_alive(tmp_path: Path) -> None:
    env = {**ENV, "PROCESS_TEST": str(tmp_path)}
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    task = asyncio.create_task(run(("sh", "-c", f"setsid sleep 93 & echo > {ready}; sleep 92"), env=env, timeout_s=60))
    await asyncio.to_thread(ready.read_text)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert alive_in(tmp_path) == []


async def test_cancellation_while_starting_leaves_nothing_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command may have children before the loop learns that it was started."""
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    running = asyncio.Event()
    start = asyncio.create_subprocess_exec

    async def slow_start(*args: Any, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*args, **options)
        await asyncio.to_thread(ready.read_text)
        running.set()
        await asyncio.sleep(0.05)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slow_start)
    env = {**ENV, "PROCESS_TEST": str(tmp_path)}
    task = asyncio.create_task(run(("sh", "-c", f"setsid sleep 93 & echo > {ready}; sleep 92"), env=env, timeout_s=60))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert alive_in(tmp_path) == []


async def test_without_a_sweep_a_wanted_background_process_lives_on(tmp_path: Path) -> None:
    env = {**ENV, "PROCESS_TEST": str(tmp_path)}
    done = await run(("sh", "-c", "setsid sleep 91 >/dev/null 2>&1 & echo $!"), env=env, timeout_s=20, sweep=False)
    survivor = int(done.output)
    assert survivor in alive_in(tmp_path)
    os.kill(survivor, 9)
