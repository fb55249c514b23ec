"""Check what an agent has made: run every verification of a task and say honestly how each one went.

Every check runs, whatever an earlier one said, one after the other (they share a work tree). A check that could not run is
``error``, never a pass. Commands are argument lists, never shell lines; each has a real timeout after which nothing it
started is alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hub.ids import CheckStatus, VerificationKind
from hub.wire.spec import CheckReport, Verification, VerificationReport
from sidecar.checks.detect import detect_tests
from sidecar.checks.leaks import leaks_in, leaks_in_patch
from sidecar.core.prompt import shown
from sidecar.runs.account import Account
from sidecar.runs.process import run
from sidecar.workspace.paths import NotPlainError, open_directory, read_plain
from sidecar.workspace.workdir import WorkState, remove_tree

OUTPUT_LIMIT_BYTES = 4096
"""How much of the end of a check's output is reported."""
FEEDBACK_LIMIT_CHARS = 8192
SCAN_LIMIT_BYTES = 4 * 1024 * 1024
"""Largest uncommitted file that is searched for secrets."""


_ALWAYS: Final[Mapping[str, str]] = {
    "PYTHONDONTWRITEBYTECODE": "1",  # checks must not make the tree dirty that they judge: it would end up in a salvage
    "PYTHONNOUSERSITE": "1",
}


@dataclass(frozen=True, slots=True)
class _Found:
    status: CheckStatus
    output: str = ""


@dataclass(frozen=True, slots=True)
class _Scene:
    """What a check may look at."""

    workspace: Path
    env: Mapping[str, str]
    state: WorkState | None
    account: Account | None


async def verify(
    workspace: Path,
    checks: Sequence[Verification],
    *,
    env: Mapping[str, str],
    state: WorkState | None,
    account: Account | None = None,
) -> VerificationReport:
    """Run all ``checks`` in ``workspace`` (a directory) with the environment ``env``, commands as ``account``.

    Their ``HOME`` is an empty directory made beside the workspace and removed again: what an agent left in its own, such as a
    ``usercustomize.py``, must not decide what passes.

    ``state`` is the workspace as inspected after the agent ended, None without a repository. The report passes if every check
    passed; with no checks it passes and says so by being empty. ``fix_rounds`` is the caller's to set.
    """
    with _home(workspace.parent, account) as home:
        scene = _Scene(workspace, {**_without_homes(env), **_ALWAYS, "HOME": str(home)}, state, account)
        reports = tuple([await _check(scene, check) for check in checks])
    return VerificationReport(passed=all(r.status in {CheckStatus.PASS, CheckStatus.SKIP} for r in reports), checks=reports)


@contextlib.contextmanager
def _home(beside: Path, account: Account | None) -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="checks-", dir=beside))
    try:
        if account is not None:
            os.chown(home, account.uid, account.gid)
        yield home
    finally:
        with contextlib.suppress(OSError):  # then it goes with the workspace
            remove_tree(home)


def _without_homes(env: Mapping[str, str]) -> dict[str, str]:
    """The environment without what leads past ``HOME`` into the home of somebody."""
    return {name: value for name, value in env.items() if not (name.startswith("XDG_") or name == "PYTHONUSERBASE")}


def feedback(report: VerificationReport) -> str:
    """What the agent is told about a failed report, at most 8 KiB: which checks did not pass, and the end of their output."""
    failed = [check for check in report.checks if check.status not in {CheckStatus.PASS, CheckStatus.SKIP}]
    head = (
        f"Verification did not pass: {len(failed)} of {len(report.checks)} checks. Correct the cause and commit the correction."
    )
    room = max(200, (FEEDBACK_LIMIT_CHARS - len(head)) // max(1, len(failed)) - 300)
    parts = [head]
    for check in failed:
        lines = f"\n\n## {check.kind} {check.target[:200]}: {check.status} after {check.duration_ms / 1000:.1f} s"
        parts.append(f"{lines}\n{check.output[-room:].strip() or '(no output)'}")
    return "".join(parts)[:FEEDBACK_LIMIT_CHARS]


async def _check(scene: _Scene, check: Verification) -> CheckReport:
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        found = await _RUNNERS[check.kind](scene, check)
    except (_CannotRunError, OSError) as fault:
        found = _Found(CheckStatus.ERROR, str(fault))
    return CheckReport(
        kind=check.kind,
        target=(shlex.join(check.argv) or check.target)[:4096],
        status=found.status,
        duration_ms=int((loop.time() - began) * 1000),
        output=found.output[-OUTPUT_LIMIT_BYTES:],
    )


class _CannotRunError(Exception):
    """The check itself is at fault, or something it needs is missing."""


async def _command_succeeds(scene: _Scene, check: Verification) -> _Found:
    if not check.argv:
        raise _CannotRunError("there is no command to run")
    directory = _directory(scene.workspace, check.target)
    return await _run(scene, check, check.argv, directory, {})


async def _test_passes(scene: _Scene, check: Verification) -> _Found:
    place = _inside(scene.workspace, check.target)
    file = place if await asyncio.to_thread(place.is_file) else None
    directory = scene.workspace if file else _directory(scene.workspace, check.target)
    suite = await asyncio.to_thread(detect_tests, directory, scene.env.get("PATH", os.defpath))
    if suite is None:
        raise _CannotRunError("no test suite was recognised (pytest, npm test, cargo test, go test, make test, mix test)")
    if file is not None and not suite.takes_files:
        raise _CannotRunError(f"{suite.name} cannot be given a single file")
    argv = (*suite.argv, f"./{check.target}") if file else suite.argv
    found = await _run(scene, check, argv, directory, suite.exit_codes)
    if found.status is not CheckStatus.TIMEOUT and suite.ran_nothing(found.output):
        return _Found(CheckStatus.ERROR, found.output)
    return found


async def _file_exists(scene: _Scene, check: Verification) -> _Found:
    if not check.target:
        raise _CannotRunError("there is no path to look for")
    path = _inside(scene.workspace, check.target)
    real = await asyncio.to_thread(os.path.realpath, path)
    root = await asyncio.to_thread(os.path.realpath, scene.workspace)
    if not Path(real).is_relative_to(root):
        return _Found(CheckStatus.FAIL, f"{check.target} leads out of the workspace")
    exists = await asyncio.to_thread(os.path.exists, real)
    return _Found(CheckStatus.PASS) if exists else _Found(CheckStatus.FAIL, f"{check.target} does not exist")


async def _git_clean(scene: _Scene, _: Verification) -> _Found:
    state = _state(scene)
    if not state.dirty_count:
        return _Found(CheckStatus.PASS)
    listed = "\n".join(shown(path) for path in state.dirty[:50])
    return _Found(CheckStatus.FAIL, f"{state.dirty_count} uncommitted paths; commit them or remove them:\n{listed}")


async def _no_secrets(scene: _Scene, _: Verification) -> _Found:
    state = _state(scene)
    if state.patch is None or state.dirty_count > len(state.dirty):
        raise _CannotRunError("the change is too large to be searched for secrets")
    found = await asyncio.to_thread(lambda patch: sorted(set(leaks_in_patch(patch))), state.patch)
    found += await asyncio.to_thread(_leaks_in_files, scene.workspace, state.dirty)
    if not found:
        return _Found(CheckStatus.PASS)
    listed = "\n".join(f"{shown(path)}: {kind}" for path, kind in found[:50])
    cure = "Remove them from the commits as well: a later commit that deletes a secret still publishes it."
    return _Found(CheckStatus.FAIL, f"What looks like secrets:\n{listed}\n{cure}")


_RUNNERS: Final[Mapping[VerificationKind, Callable[[_Scene, Verification], Awaitable[_Found]]]] = {
    VerificationKind.COMMAND_SUCCEEDS: _command_succeeds,
    VerificationKind.TEST_PASSES: _test_passes,
    VerificationKind.FILE_EXISTS: _file_exists,
    VerificationKind.GIT_CLEAN: _git_clean,
    VerificationKind.NO_SECRETS: _no_secrets,
}

_SHELL_CANNOT_RUN: Final[Mapping[int, CheckStatus]] = {126: CheckStatus.ERROR, 127: CheckStatus.ERROR}
"""Exit codes by which shells and env say that a command was not executable or not found (POSIX)."""


async def _run(
    scene: _Scene, check: Verification, argv: Sequence[str], directory: Path, codes: Mapping[int, CheckStatus]
) -> _Found:
    with _entered(scene.workspace, directory) as cwd:
        done = await run(
            argv,
            env=scene.env,
            cwd=cwd,
            timeout_s=check.timeout_s,
            merge=True,
            keep_bytes=OUTPUT_LIMIT_BYTES,
            sweep=True,
            account=scene.account,
        )
    output = done.output.decode(errors="replace")
    if done.timed_out:
        return _Found(CheckStatus.TIMEOUT, output)
    if done.returncode == 0:
        return _Found(CheckStatus.PASS, output)
    if done.returncode < 0:
        return _Found(CheckStatus.FAIL, f"{output}\nended by signal {-done.returncode}")
    return _Found(
        {**_SHELL_CANNOT_RUN, **codes}.get(done.returncode, CheckStatus.FAIL), output or f"exit code {done.returncode}"
    )


def _state(scene: _Scene) -> WorkState:
    if scene.state is None:
        raise _CannotRunError("there is no git repository")
    return scene.state


def _inside(workspace: Path, target: str) -> Path:
    """A path named by a check, beneath the workspace by its spelling; links are for the caller to resolve."""
    parts = Path(target).parts
    if target.startswith("/") or ".." in parts or "\0" in target:
        raise _CannotRunError(f"{target[:200]!r} is not a path inside the workspace")
    return workspace / target


def _directory(workspace: Path, target: str) -> Path:
    path = Path(os.path.realpath(_inside(workspace, target)))
    if not path.is_relative_to(os.path.realpath(workspace)) or not path.is_dir():
        raise _CannotRunError(f"{target[:200]!r} is not a directory inside the workspace")
    return path


@contextlib.contextmanager
def _entered(workspace: Path, directory: Path) -> Iterator[Path]:
    """A name of a directory that cannot come to mean another one, while a command starts there with more rights than it keeps."""
    if not Path("/proc/self/fd").is_dir():
        yield directory
        return
    parts = directory.relative_to(os.path.realpath(workspace)).parts if directory != workspace else ()
    with open_directory(workspace, parts) as fd:
        yield Path(f"/proc/self/fd/{fd}")


def _leaks_in_files(workspace: Path, paths: Sequence[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for path in paths:
        if path.endswith("/"):  # a repository of its own: never committed, never pushed
            continue
        try:
            data = read_plain(workspace, Path(path).parts, SCAN_LIMIT_BYTES + 1)
        except (OSError, NotPlainError):  # gone, a link or special: nothing of that kind holds text
            continue
        if len(data) > SCAN_LIMIT_BYTES:
            raise _CannotRunError(f"{shown(path)} is too large to be searched for secrets")
        found += ((path, kind) for kind in leaks_in(data))
    return found
