"""Start git for the hub: the hardened command line of ``hub.wire.git``, real timeouts, bounded output.

The only place of the hub that starts a process. Two doors: ``plumb`` for commands on the hub's own bare clones, which see neither
credentials nor configuration of the operator, and ``talk`` for those that speak to a remote.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hub.forge.base import ForgeError, GitNotStarted
from hub.wire.git import git_argv, git_env

OUTPUT_BYTES = 16 * 1024 * 1024
"""Most output that is kept of one command, unless the caller asks for less."""
MESSAGE_CHARS = 1_000
"""What is kept of git's own words in an error."""
_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended. ``truncated``: it was stopped because it printed more than was asked for."""

    code: int
    output: bytes
    errors: str
    truncated: bool = False
    timed_out: bool = False

    @property
    def text(self) -> str:
        """The output as text, stripped."""
        return self.output.decode(errors="replace").strip()

    @property
    def words(self) -> str:
        """What git said, shortened from the front: its reason comes last."""
        said = f"{self.output[-MESSAGE_CHARS:].decode(errors='replace')}\n{self.errors}"
        return said.strip()[-MESSAGE_CHARS:] or f"exit code {self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """Runs git with ``environ`` reduced to what each command needs. Timeouts in seconds: one for plumbing, one for remotes."""

    environ: Mapping[str, str]
    plumb_timeout_s: float = 60.0
    talk_timeout_s: float = 120.0

    async def plumb(
        self,
        git_dir: Path | None,
        *args: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        ok: Sequence[int] = (0,),
        limit_bytes: int = OUTPUT_BYTES,
    ) -> Done:
        """Run a local command; raises ForgeError ``git_failed`` unless it ends with a code in ``ok`` or was cut at the limit."""
        done = await _start(
            git_argv(*args, git_dir=None if git_dir is None else str(git_dir)),
            env={**git_env(self.environ), **(env or {})},
            stdin=stdin,
            timeout_s=self.plumb_timeout_s,
            limit_bytes=limit_bytes,
        )
        if done.timed_out:
            raise ForgeError(f"git {args[0]} took longer than {self.plumb_timeout_s:.0f} s", code="git_timeout")
        if done.code not in ok and not done.truncated:
            raise ForgeError(f"git {args[0]}: {done.words}", code="git_failed")
        return done

    async def talk(self, git_dir: Path | None, *args: str, allow_file: bool) -> Done:
        """Run a command that speaks to a remote, with the operator's credentials; its end is the caller's to judge."""
        return await _start(
            git_argv(*args, git_dir=None if git_dir is None else str(git_dir)),
            env=git_env(self.environ, credentials=True, allow_file=allow_file),
            stdin=b"",
            timeout_s=self.talk_timeout_s,
            limit_bytes=OUTPUT_BYTES,
        )


async def _start(argv: Sequence[str], *, env: Mapping[str, str], stdin: bytes, timeout_s: float, limit_bytes: int) -> Done:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env),
            cwd="/",  # no repository is ever found by accident
            start_new_session=True,  # a transport helper dies with its git
        )
    except FileNotFoundError as missing:
        raise ForgeError("git was not found on PATH", code="git_missing") from missing
    except OSError as trouble:
        raise GitNotStarted(f"git could not be started: {trouble.strerror or trouble}") from trouble
    try:
        return await _communicate(process, stdin, timeout_s, limit_bytes)
    finally:
        # After an ordinary end nothing is swept: a credential daemon or a shared ssh connection is the operator's wish.
        if process.returncode is None:
            _kill(process)
            await process.wait()


async def _communicate(process: asyncio.subprocess.Process, stdin: bytes, timeout_s: float, limit_bytes: int) -> Done:
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = bytearray(), bytearray()
    try:
        async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
            if process.stdin is not None:
                group.create_task(_feed(process.stdin, stdin), name="git-stdin")
            group.create_task(_tail(process.stderr, errors), name="git-stderr")
            full = await _head(process.stdout, output, limit_bytes)
            if full:
                _kill(process)
        code, timed_out = await process.wait(), False
    except TimeoutError:
        code, full, timed_out = -signal.SIGKILL, False, True
    words = errors.decode(errors="replace").strip()
    return Done(code=code, output=bytes(output), errors=words, truncated=full, timed_out=timed_out)


async def _feed(pipe: asyncio.StreamWriter, data: bytes) -> None:
    # git may end without reading: its exit code tells (uvloop says RuntimeError for a pipe that closed before the write)
    with suppress(BrokenPipeError, ConnectionResetError, RuntimeError):
        pipe.write(data)
        await pipe.drain()
        pipe.close()
        await pipe.wait_closed()


async def _head(pipe: asyncio.StreamReader, into: bytearray, limit_bytes: int) -> bool:
    """Keep the first bytes; True as soon as there are more."""
    while chunk := await pipe.read(_CHUNK_BYTES):
        room = limit_bytes - len(into)
        into += chunk[:room]
        if len(chunk) > room:
            return True
    return False


async def _tail(pipe: asyncio.StreamReader, into: bytearray) -> None:
    while chunk := await pipe.read(_CHUNK_BYTES):
        into += chunk
        del into[: -4 * MESSAGE_CHARS]


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
