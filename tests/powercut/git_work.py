"""The hub's clone of a remote while its writes are recorded, git's among them: made, and fetched into again and again.

``python -m tests.powercut.git_work ROOT URL`` makes one fetch, as the hub does after each start.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hub.forge.base import ForgeError, Remote
from hub.forge.git import Git
from hub.forge.local import LocalForge
from tests.powercut.tape import Recording, Step, Tape
from tests.support.repos import git, make_remote

CLONES = "clones"
BRANCH = "main"


def fetch(root: Path, url: str) -> str | None:
    """What the remote's base is, by a forge that has just been started; raises ForgeError."""
    forge = LocalForge(root=root / CLONES, git=Git(environ=os.environ))
    return asyncio.run(forge.fetch(Remote(name="site", url=url), BRANCH))


def record_fetches(place: Path, *, fetches: int) -> tuple[Tape, str]:
    """Each fetch brings a commit. The remote's address comes with the tape."""
    remote = make_remote(place, {"first": "x\n"})
    root = place / "root"
    root.mkdir()
    recording = Recording(root, place / "tape", only=CLONES, skip="none")
    environ = {**os.environ, **recording.environ, "PATH": _recording_git(place / "bin", recording)}
    for number in range(fetches):
        sha = remote.commit({f"file {number}": f"{number}\n" * (number + 1)}, f"feat: {number}")
        argv = [sys.executable, "-m", "tests.powercut.git_work", str(root), remote.url]
        fetched = subprocess.run(argv, env=environ, check=True, capture_output=True, text=True).stdout.strip()
        assert fetched == sha
        recording.mark(f"fetch {number}")
    return recording.tape(), remote.url


def judge_clone(url: str, root: Path, told: Sequence[Step]) -> list[str]:
    """What is wrong with the clones beneath ``root``: the next fetch must work, and find nothing broken."""
    try:
        fetch(root, url)
    except ForgeError as fault:
        return [f"after {len(told)} steps: {fault}"]
    found = git("fsck", "--full", "--no-dangling", cwd=root / CLONES / "site.git", check=False)
    return [found] if "error" in found or "missing" in found else []


def _recording_git(directory: Path, recording: Recording) -> str:
    """A path on which git is one that records: the hub passes nothing else of its environment on."""
    directory.mkdir()
    words = " ".join(f"{name}='{value}'" for name, value in recording.environ.items())
    program = directory / "git"
    program.write_text(f'#!/bin/sh\nexec env {words} {shutil.which("git")} "$@"\n')
    program.chmod(0o700)
    return f"{directory}:{os.environ['PATH']}"


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1]), sys.argv[2]))
