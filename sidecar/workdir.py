"""A workspace as a value and as it lies on disk: ``work/t-<n>-<epoch>/`` with ``tree`` (the agent's), ``index`` and a record.

The record is written last and removed first, each atomically: a directory without one was never given to an agent, or is
already being removed. Blocking file I/O: call from a thread.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError

from hub.ids import LeaseEpoch, TaskId, task_ref
from hub.wire.spec import Commit, RepoRef
from sidecar.git import WorkspaceError

LEASES = "refs/agentcom/lease"
"""Refs of a cache that live as long as a workspace: ``<LEASES>/t-<n>/<lease epoch>/<what>``."""
_RECORD = "workspace.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class GitIdentity:
    """Who commits."""

    name: str
    email: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Where an agent works for one lease.

    ``path`` is its working directory. ``base_sha`` is the tip of the base branch at preparation (None: the repository is
    empty; of a ``check``: the first parent of the commit checked). ``start_sha`` is where HEAD stood when the workspace was
    handed over. ``conflict``: merging the base into a rework left conflict marks in the tree.
    """

    path: Path
    task: TaskId
    lease_epoch: LeaseEpoch
    branch: str
    repo: RepoRef | None = None
    base_sha: str | None = None
    start_sha: str | None = None
    conflict: bool = False
    check: bool = False

    @property
    def home(self) -> Path:
        """The directory around the working directory."""
        return self.path.parent

    def lease_ref(self, *what: str) -> str:
        """The cache's ref of this lease for ``what``; without it, the prefix of them all."""
        return "/".join((LEASES, task_ref(self.task), str(self.lease_epoch), *what))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkState:
    """What is in a workspace, read without running anything in it.

    ``commits`` are those of base..HEAD, oldest first, the newest 256; ``advanced``: HEAD moved since the hand-over;
    ``contains_base``: the base is in HEAD's history. ``dirty`` lists uncommitted paths (embedded repositories end in a
    slash), at most 256 of ``dirty_count``. ``patch`` is what the commits add and remove, None if over 16 MiB.
    """

    head_sha: str | None
    commits: tuple[Commit, ...] = ()
    advanced: bool = False
    contains_base: bool = True
    dirty: tuple[str, ...] = ()
    dirty_count: int = 0
    patch: bytes | None = b""


_record: TypeAdapter[Workspace] = TypeAdapter(Workspace)


def home_of(root: Path, task: TaskId, lease_epoch: LeaseEpoch) -> Path:
    """The directory of one lease's workspace."""
    return root / "work" / f"{task_ref(task)}-{lease_epoch}"


def write_record(workspace: Workspace) -> None:
    """Declare the workspace complete, durably."""
    fresh = workspace.home / f"{_RECORD}.new"
    with fresh.open("wb") as file:
        file.write(orjson.dumps(_record.dump_python(workspace, mode="json")))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(workspace.home / _RECORD)
    _sync_directory(workspace.home)


def read_record(home: Path) -> Workspace | None:
    """The complete workspace in ``home``, or None.

    Raises ``record_unreadable`` for a record that is there but makes no sense: an agent's work may lie beside it.
    """
    try:
        return _record.validate_json((home / _RECORD).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as fault:
        raise WorkspaceError("record_unreadable", f"{home / _RECORD} cannot be read", retryable=False) from fault


def list_records(root: Path) -> tuple[Workspace, ...]:
    """Every complete workspace beneath ``root``."""
    found = (read_record(record.parent) for record in sorted((root / "work").glob(f"*/{_RECORD}")))
    return tuple(workspace for workspace in found if workspace is not None)


def remove_home(home: Path) -> None:
    """Remove a workspace, complete or not; no link in it is followed."""
    (home / _RECORD).unlink(missing_ok=True)
    try:
        shutil.rmtree(home)
    except FileNotFoundError:
        return
    except PermissionError:  # some tools make their downloads read-only, directories included
        for directory, _, _ in os.walk(home):
            Path(directory).chmod(0o700)
        shutil.rmtree(home)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
