"""Run git for the sidecar: the hardened command line of ``hub.wire.git``, real timeouts, and errors that carry a code.

The only place of the sidecar that starts git. Everything here is trusted git: it works on a cache of our own or on a clone
that no agent has touched yet, never with an agent's configuration.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Self

from hub.wire.git import git_argv, git_env
from sidecar.runs.account import Account
from sidecar.runs.process import Finished, run

OUTPUT_LIMIT_BYTES = 32 * 1024 * 1024
"""Most output of one command that is read; more is an error, never silently cut."""
MEMORY_LIMIT_BYTES = 2 * 1024**3
"""Most memory of one local command, where ``prlimit`` exists: a few kilobytes of an agent's trees can name any number of paths."""
MESSAGE_CHARS = 1000


class WorkspaceError(Exception):
    """A workspace operation failed. ``code`` is stable; ``retryable`` says whether another attempt, or agent, may succeed."""

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """Starts git commands with this process's environment (``environ``) reduced to what each needs.

    With an ``account`` they have that user's rights and no more: so does what reads files that user owns.
    """

    environ: Mapping[str, str]
    timeout_s: float
    account: Account | None = None

    async def run(
        self,
        git_dir: Path,
        *args: str,
        work_tree: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | IO[bytes] = b"",
        stdout: IO[bytes] | None = None,
        ok: Sequence[int] = (0,),
        limit_bytes: int = OUTPUT_LIMIT_BYTES,
    ) -> Finished:
        """Run one local command; raises :class:`WorkspaceError` ``git_failed`` unless its exit code is in ``ok``.

        With the first byte beyond ``limit_bytes`` of output the command ends, and ``git_output_too_large`` is raised.
        """
        env = {**git_env(self.environ), **(env or {})}
        argv = git_argv(*args, git_dir=str(git_dir), work_tree=None if work_tree is None else str(work_tree))
        argv = [*_memory_limit(env.get("PATH")), *argv]
        if stdout is not None:
            done = await self._start(argv, env=env, cwd=work_tree, stdin=stdin, stdout=stdout)
        else:
            with _Capture(limit_bytes) as capture:
                done = await self._start(argv, env=env, cwd=work_tree, stdin=stdin, stdout=capture.writer)
                done = replace(done, output=capture.rest())
            if capture.overflowed:
                raise WorkspaceError("git_output_too_large", f"git {args[0]} printed more than can be read", retryable=False)
        if done.timed_out:
            raise WorkspaceError("git_timeout", f"git {args[0]} took longer than {self.timeout_s:.0f} s", retryable=True)
        if done.returncode not in ok:
            raise WorkspaceError("git_failed", f"git {args[0]}: {_words(done)}", retryable=True)
        return done

    async def text(self, git_dir: Path, *args: str) -> str:
        """The output of a local command, stripped."""
        return (await self.run(git_dir, *args)).output.decode(errors="replace").strip()

    async def talk(self, git_dir: Path, *args: str, allow_file: bool) -> bytes:
        """Run one command that talks to a remote, with the operator's credentials; raises what :func:`remote_error` says."""
        done = await self._start(
            git_argv(*args, git_dir=str(git_dir)), env=git_env(self.environ, credentials=True, allow_file=allow_file)
        )
        if done.timed_out:
            raise WorkspaceError("remote_unreachable", f"no answer within {self.timeout_s:.0f} s", retryable=True)
        if done.returncode != 0:
            raise remote_error(args[0], _words(done))
        return done.output

    async def _start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: bytes | IO[bytes] = b"",
        stdout: IO[bytes] | None = None,
    ) -> Finished:
        try:
            # An ordinary end sweeps nothing: a credential daemon or a shared ssh connection is the operator's wish.
            return await run(
                argv,
                env=env,
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                timeout_s=self.timeout_s,
                keep_bytes=OUTPUT_LIMIT_BYTES,
                sweep=False,
                account=self.account,
            )
        except (FileNotFoundError, NotADirectoryError) as fault:
            if cwd is not None and str(fault.filename) == str(cwd):
                raise WorkspaceError("workspace_gone", "the working directory is gone", retryable=True) from fault
            raise WorkspaceError("git_missing", "git was not found on PATH", retryable=True) from fault


class _Capture:
    """The output of one command. One byte over the limit and nobody reads any more, which ends git at once (SIGPIPE)."""

    def __init__(self, limit_bytes: int) -> None:
        self.overflowed = False
        self._limit_bytes = limit_bytes
        self._kept = bytearray()
        self._reader, writer = os.pipe()
        self.writer = os.fdopen(writer, "wb", buffering=0)
        os.set_blocking(self._reader, False)

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._reader, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()
        self._close()

    def rest(self) -> bytes:
        """All output, once the command has ended."""
        self.writer.close()
        while self._reader >= 0 and self._read():
            pass
        return bytes(self._kept)

    def _read(self) -> bool:
        """Take what is there; False if that is nothing."""
        try:
            chunk = os.read(self._reader, 65_536)
        except BlockingIOError:
            return False
        self._kept += chunk
        if len(self._kept) > self._limit_bytes:
            self.overflowed = True
            self._kept.clear()
        if self.overflowed or not chunk:
            self._close()
        return bool(chunk)

    def _close(self) -> None:
        if self._reader >= 0:
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1


@functools.cache
def _memory_limit(path: str | None) -> tuple[str, ...]:
    """What to put before a git command so that the kernel bounds its memory; nothing where that, or git, is missing.

    The limit is on data: packs are mapped, may be larger than any memory, and do not count.
    """
    prlimit = shutil.which("prlimit", path=path)
    return () if prlimit is None or shutil.which("git", path=path) is None else (prlimit, f"--data={MEMORY_LIMIT_BYTES}")


_REMOTE_ERRORS: Sequence[tuple[re.Pattern[str], str, bool]] = (
    (re.compile(r"No space left on device"), "disk_full", True),
    (re.compile(r"couldn't find remote ref"), "ref_missing", True),
    (re.compile(r"fsck error|bad object|index-pack failed"), "bad_objects", False),
    (re.compile(r"cannot lock ref|failed to update ref"), "push_failed", True),
    (re.compile(r"\[(?:remote )?rejected\]|pre-receive hook declined"), "rejected", False),
    (
        re.compile(r"Authentication failed|Permission denied|could not read (?:Username|Password)|Host key verif| 40[13]\b"),
        "auth_failed",
        True,
    ),
)


def remote_error(command: str, words: str) -> WorkspaceError:
    """Turn what git said about a remote into a code: the first row of the table that matches, else by the command.

    An unknown fault of a fetch is ``remote_unreachable``, of a push ``push_failed``; both are worth another try.
    """
    for pattern, code, retryable in _REMOTE_ERRORS:
        if pattern.search(words):
            return WorkspaceError(code, f"git {command}: {words}", retryable=retryable)
    unreachable = command != "push" or re.search(r"unable to access|Could not (?:resolve|read from)|does not appear", words)
    return WorkspaceError("remote_unreachable" if unreachable else "push_failed", f"git {command}: {words}", retryable=True)


def _words(done: Finished) -> str:
    """What a failed command said, shortened from the front: git's reason comes last."""
    said = done.output[-MESSAGE_CHARS:] + b"\n" + done.errors[-MESSAGE_CHARS:]
    return said.decode(errors="replace").strip()[-MESSAGE_CHARS:] or f"exit code {done.returncode}"
