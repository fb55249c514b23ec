"""A workspace as a value and as it lies on disk: ``work/t-<n>-<epoch>/`` with ``tree`` and ``tmp`` (the agent's), ``view`` (our
git's notes on the tree), prompts and a record.

The record is written last, and renamed first when the workspace is removed, each atomically: a directory without one was never
given to an agent, or is already being removed. In the latter the renamed record goes last, so that a removal that was cut
short, or failed, is found and finished by a later start. Blocking file I/O: call from a thread.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import stat
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import TypeAdapter, ValidationError

from hub.ids import LeaseEpoch, TaskId, task_ref
from hub.wire.spec import Commit, RepoRef
from sidecar.files import sync_directory
from sidecar.workspace.git import WorkspaceError

LEASES = "refs/agentcom/lease"
"""Refs of a cache that live as long as a workspace: ``<LEASES>/t-<n>/<lease epoch>/<what>``."""
_RECORD = "workspace.json"
_REMOVING = "removing.json"


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
    handed over. ``conflict``: merging the base into a rework left conflict marks in the tree. ``agent``: whose lease it is,
    empty where an earlier version did not write it down. ``offered``: the leases whose salvaged work is in the clone as
    :func:`offer_ref`.
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
    agent: str = ""
    offered: tuple[LeaseEpoch, ...] = ()

    @property
    def home(self) -> Path:
        """The directory around the working directory."""
        return self.path.parent

    @property
    def view(self) -> Path:
        """Where git of ours keeps what it needs to look at the tree: a private index, and objects made from files."""
        return self.home / "view"

    @property
    def temporary(self) -> Path:
        """The agent's directory for temporary files, which goes with the workspace."""
        return self.home / "tmp"

    def prompt_file(self, round_number: int) -> Path:
        """Where the prompt of one run is written before the agent starts."""
        return self.home / f"prompt-{round_number}.md"

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


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_record: TypeAdapter[Workspace] = TypeAdapter(Workspace)


def offer_ref(task: TaskId, lease_epoch: LeaseEpoch) -> str:
    """Where a clone has the work of an earlier lease that was not applied, to look at."""
    return f"refs/agentcom/salvage/{task_ref(task)}/{lease_epoch}"


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
    sync_directory(workspace.home)


def read_record(home: Path) -> Workspace | None:
    """The complete workspace in ``home``, or None.

    Raises ``record_unreadable`` for a record that is there but makes no sense: an agent's work may lie beside it.
    """
    return _read(home / _RECORD)


def list_records(root: Path) -> tuple[Workspace, ...]:
    """Every workspace beneath ``root`` that is complete, or whose removal is not."""
    files = sorted(file for name in (_RECORD, _REMOVING) for file in (root / "work").glob(f"*/{name}"))
    return tuple(workspace for workspace in map(_read, files) if workspace is not None)


def is_orphan(workspace: Workspace, journals: Container[str]) -> bool:
    """Whether nobody can tell if it is still needed: the journal of its agent is not among those that were read."""
    return bool(workspace.agent) and workspace.agent not in journals


def _read(file: Path) -> Workspace | None:
    try:
        return _record.validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as fault:
        raise WorkspaceError("record_unreadable", f"{file} cannot be read", retryable=False) from fault


def remove_home(home: Path) -> None:
    """Remove a workspace, complete or not; no link in it is followed.

    Raises ``not_removed`` when something in it does not let itself be removed; doing it again goes on from there.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            (home / _RECORD).rename(home / _REMOVING)
        try:
            directory = os.open(home, _DIRECTORY)
        except FileNotFoundError:
            return
        try:
            _clear(directory, keep=_REMOVING)
        finally:
            os.close(directory)
        (home / _REMOVING).unlink(missing_ok=True)
        home.rmdir()
    except OSError as fault:
        raise WorkspaceError("not_removed", f"{home} cannot be removed: {fault}", retryable=True) from fault


def remove_tree(place: Path) -> None:
    """Remove a directory and all in it, as one of ours that others may have written in; raises OSError."""
    directory = os.open(place, _DIRECTORY)
    try:
        _clear(directory, keep="")
    finally:
        os.close(directory)
    place.rmdir()


def _clear(top: int, keep: str) -> None:
    """Empty a directory but for one file.

    What lies in a subdirectory's own subdirectories is moved up beside it before it goes: so depth, of which an agent can
    make any amount, costs neither stack nor descriptors, and no path becomes too long.
    """
    mark = secrets.token_hex(4)  # an earlier removal may have left names of this kind
    fresh = (f"{mark}-{n}" for n in itertools.count())
    waiting = _unlink_files(top, keep)
    while waiting:
        name = waiting.pop()
        directory = os.open(name, _DIRECTORY, dir_fd=top)
        try:
            for inner, moved in zip(_unlink_files(directory), fresh, strict=False):
                os.rename(inner, moved, src_dir_fd=directory, dst_dir_fd=top)
                waiting.append(moved)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)


def _unlink_files(directory: int, keep: str = "") -> list[str]:
    """Remove everything but directories, whose names are returned; these can be opened, moved and emptied."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if entry.name != keep]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
        # Some tools make their downloads read-only, directories included. Root needs no leave, and must not chmod by name
        # where another may put a link in its place.
        elif (
            os.geteuid() != 0 and stat.S_IMODE(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode) & 0o700 != 0o700
        ):
            os.chmod(name, 0o700, dir_fd=directory)
    return [name for name, is_directory in found if is_directory]
