"""Whether the user that agents run as could change the code that root runs here. Blocking; opens and starts nothing of it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import hub
import sidecar
from hub.wire.finding import Finding, fail, ok
from sidecar.doctor.machine import ASK_S
from sidecar.runs.account import Account, as_account

NAMED = 3
"""How many places a finding names."""
WRITABLE = 'for place; do test -w "$place" && printf "%s\\0" "$place"; done; true'
CURE = (
    "install agentcom where only root writes: python3 -m venv /opt/agentcom; "
    "and join with a PATH that has no directory which agents may write to"
)


def code(account: Account, *, places: Iterable[Path] | None = None) -> Finding:
    """The interpreter, the packages and the PATH (or ``places``), each with all directories above it."""
    chain = list(dict.fromkeys(one for place in (_places() if places is None else places) for one in _chain(place)))
    theirs = [place for place in chain if place.lstat().st_uid == account.uid]
    open_to_them = [place for place in _writable(chain, account) if place not in theirs and not _sticky(place)]
    if found := sorted({*theirs, *open_to_them}):
        names = ", ".join(map(str, found[:NAMED])) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
        return fail("code", f"root runs code from where the user {account.name} may write: {names}", CURE)
    return ok("code", f"the user {account.name} may write nothing that root runs")


def _places() -> Iterator[Path]:
    yield Path(sys.executable)
    yield Path(os.__file__).parent
    for package in (hub, sidecar):
        yield from map(Path, package.__path__)
    for entry in os.environ.get("PATH", os.defpath).split(os.pathsep):
        yield Path(entry or ".").absolute()


def _chain(place: Path) -> Iterator[Path]:
    """A place and everything above it, by its name and by where that leads: whoever may write there may replace it."""
    for way in (place, place.resolve()):
        yield from (one for one in (way, *way.parents) if os.path.lexists(one))


def _sticky(place: Path) -> bool:
    """Only owners rename what is in such a directory; a directory of the PATH is searched, so there it helps nothing."""
    return bool(place.stat().st_mode & stat.S_ISVTX) and str(place) not in os.environ.get("PATH", "").split(os.pathsep)


def _writable(places: list[Path], account: Account) -> list[Path]:
    """Asked of the system, as that user: groups, lists and file systems have their say."""
    argv = ["/bin/sh", "-c", WRITABLE, "sh", *map(str, places)]
    command, env = as_account(account, argv, {"PATH": os.defpath})
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=ASK_S, check=True, cwd="/")
    return [Path(name) for name in done.stdout.split("\0") if name]
