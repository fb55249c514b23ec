"""A workspace goes, whatever an agent made of it; what stays is found again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hub.ids import LeaseEpoch, TaskId
from sidecar.workspace import workdir
from sidecar.workspace.git import WorkspaceError
from sidecar.workspace.workdir import Workspace, home_of, list_records, read_record, remove_home, write_record


def make(root: Path) -> Workspace:
    home = home_of(root, TaskId(1), LeaseEpoch(1))
    (home / "tree").mkdir(parents=True)
    workspace = Workspace(path=home / "tree", task=TaskId(1), lease_epoch=LeaseEpoch(1), branch="b")
    write_record(workspace)
    return workspace


def test_directories_deeper_than_any_stack_or_path_are_removed(tmp_path: Path) -> None:
    workspace = make(tmp_path)
    at = os.open(workspace.path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=at)
        below = os.open("deep", os.O_RDONLY, dir_fd=at)
        os.close(os.open("file", os.O_CREAT, dir_fd=below))
        os.close(at)
        at = below
    os.close(at)
    remove_home(workspace.home)
    assert not workspace.home.exists()


def test_read_only_directories_are_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    workspace = make(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (workspace.path / "link").symlink_to(outside)
    inner = workspace.path / "module" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    inner.chmod(0o500)
    inner.parent.chmod(0o000)
    remove_home(workspace.home)
    assert not workspace.home.exists()
    assert outside.stat().st_mode & 0o777 == 0o500


def test_a_removal_that_fails_is_found_and_finished_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = make(tmp_path)
    (workspace.path / "somebody elses").write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr(workdir.os, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError(1, "not yours")))
        with pytest.raises(WorkspaceError) as fault:
            remove_home(workspace.home)
    assert (fault.value.code, fault.value.retryable) == ("not_removed", True)
    assert read_record(workspace.home) is None, "what is left is nobody's workspace"
    assert list_records(tmp_path) == (workspace,)
    remove_home(workspace.home)
    assert list_records(tmp_path) == ()
    assert not workspace.home.exists()
    remove_home(workspace.home)
