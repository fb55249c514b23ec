"""An agent's clone is looked at without being entered through anything that leads out of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import pytest

from sidecar.workspace import gitdir
from sidecar.workspace.git import WorkspaceError
from sidecar.workspace.gitdir import OBJECT_DEPTH, check_objects


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / ".git" / "objects" / "ab").mkdir(parents=True)
    (tmp_path / "tree" / ".git" / "objects" / "ab" / "cdef").touch()
    return tmp_path / "tree"


def test_a_directory_swapped_for_a_link_after_it_was_listed_is_not_listed_elsewhere(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects, outside = tree / ".git" / "objects", tmp_path / "outside"
    outside.mkdir()
    (outside / "of-somebody-else").mkdir()
    scandir, seen = os.scandir, []

    def swapping(place: str | int):
        listing = list(scandir(place))
        seen.extend(entry.name for entry in listing)
        if (objects / "ab").is_dir() and not (objects / "ab").is_symlink():
            (objects / "ab").rename(tmp_path / "aside")
            (objects / "ab").symlink_to(outside)
        return _Listing(listing)

    monkeypatch.setattr(gitdir.os, "scandir", swapping)
    with pytest.raises(WorkspaceError) as refused:
        check_objects(tree, tmp_path)
    assert refused.value.code == "unsafe_objects"
    assert seen == ["ab"]


class _Listing(list[os.DirEntry[str]]):
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_what_git_makes_passes_and_what_is_nested_without_end_does_not(tree: Path, tmp_path: Path) -> None:
    objects = tree / ".git" / "objects"
    (objects / "info" / "commit-graphs").mkdir(parents=True)
    assert check_objects(tree, tmp_path) == objects
    (objects / "/".join("x" * (OBJECT_DEPTH + 1))).mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="nested too deep"):
        check_objects(tree, tmp_path)
