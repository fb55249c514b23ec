"""Whether the git of this machine can do what the forge asks of it."""

from __future__ import annotations

import re

from hub.forge.base import ForgeError
from hub.forge.git import Git
from hub.wire.finding import Finding, fail, ok

OLDEST = (2, 38)
"""The first git with ``merge-tree --write-tree``."""
_VERSION = re.compile(r"git version (\d+)\.(\d+)")
_CURE = "install git 2.38 or newer: older ones cannot merge without a work tree"


async def examine_git(git: Git) -> list[Finding]:
    """The version of git."""
    try:
        said = (await git.plumb(None, "--version")).text
    except ForgeError as fault:
        return [fail("git", fault.message, _CURE)]
    return [judge_git(said)]


def judge_git(said: str) -> Finding:
    """By what ``git --version`` said."""
    found = _VERSION.match(said)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        return fail("git", said[:100] or "it does not say its version", _CURE)
    return ok("git", said.removeprefix("git version ").join(("git ", "")))
