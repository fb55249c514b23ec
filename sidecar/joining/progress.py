"""What joining has done on a machine, on disk: for a ``join`` that goes on where another stopped, and for ``leave``."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sidecar.files import make_directory, write_durably
from sidecar.workspace.premises import state_faults

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """``hub`` is its address; ``user`` the one made for agents, if one was; ``unit`` the service's file, if there is one."""

    hub: str
    name: str
    token_id: str
    hub_id: str
    agents: tuple[str, ...]
    config: str
    user: str = ""
    unit: str = ""


class InUse(Exception):
    """Another ``join`` or ``leave`` is at work here."""

    code = "join_running"
    retryable = True


def read(path: Path) -> Progress | None:
    """What was done; None when nothing was, or the file is not one of ours (then it is written anew)."""
    try:
        known = json.loads(path.read_text())
        if known.pop("version", None) != VERSION:
            return None
        return Progress(**{**known, "agents": tuple(known["agents"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write(path: Path, progress: Progress) -> None:
    """Remember it."""
    write_durably(path, json.dumps({"version": VERSION, **asdict(progress)}, indent=2) + "\n")


@contextlib.contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Be the only one who joins or leaves with this state directory, which is made; raises :class:`InUse`.

    Where it cannot be made, or is somebody else's, nobody can join either: the first step says why.
    """
    try:
        if state_faults(state_dir):
            yield
            return
        make_directory(state_dir)
        lock = os.open(state_dir / "join.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as fault:
        raise InUse(f"another join or leave is at work in {state_dir}; wait for it") from fault
    finally:
        os.close(lock)
