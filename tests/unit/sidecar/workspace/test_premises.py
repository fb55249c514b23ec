"""Which directories a sidecar takes for its own, and what it changes in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.app import own_state
from sidecar.runs.account import Account
from sidecar.settings import SettingsError
from sidecar.workspace.premises import open_premises, state_faults

NOBODY = Account("nobody", 65534, 65534, Path("/nonexistent"))
CACHE = "workspaces/repos/0123.git"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory as a sidecar leaves it."""
    directory = tmp_path / "state"
    with own_state(directory):
        for below in ("agents/a/runs/1-1-0", CACHE, "workspaces/work/t-1-1/tree"):
            (directory / below).mkdir(parents=True)
        (directory / "agents" / "a" / "journal").write_bytes(b"")
    return directory


def refusal(state: Path) -> str:
    with pytest.raises(SettingsError) as refused, own_state(state):
        pass
    return str(refused.value)


def test_a_directory_of_its_own_is_taken_again_and_a_new_one_is_made(state: Path, tmp_path: Path) -> None:
    assert state_faults(state) == []
    assert state_faults(tmp_path / "not" / "yet") == []


@as_root
@pytest.mark.parametrize(
    "place", [".", "install_id", "lock", "agents", "agents/a", "agents/a/journal", "workspaces", CACHE, "workspaces/work/t-1-1"]
)
def test_what_was_another_users_is_never_taken_over(state: Path, place: str) -> None:
    """Its owner could have written into a cache what makes root's git run a program."""
    os.chown(state / place, NOBODY.uid, NOBODY.gid)
    assert "was another user's (uid 65534): name another state_dir" in refusal(state)


@as_root
def test_what_an_agent_owns_below_its_workspace_is_no_fault(state: Path) -> None:
    os.chown(state / "workspaces" / "work" / "t-1-1" / "tree", NOBODY.uid, NOBODY.gid)
    (state / "workspaces" / "work" / "t-1-1" / "tree" / "link").symlink_to("/")
    open_premises(state, NOBODY)
    assert state_faults(state) == []


@as_root
@pytest.mark.parametrize("place", [".", "workspaces", CACHE])
def test_root_does_not_work_where_others_may_write(state: Path, place: str) -> None:
    (state / place).chmod(0o777)
    assert "others may write" in refusal(state)


@pytest.mark.parametrize("place", ["lock", "agents", "workspaces", CACHE, "agents/a/journal"])
def test_a_link_in_place_of_anything_of_ours_is_refused(state: Path, tmp_path: Path, place: str) -> None:
    aside = tmp_path / "aside"
    (state / place).rename(aside)
    (state / place).symlink_to(aside)
    assert f"{place} is a link" in refusal(state)


def test_a_directory_full_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "no install_id, and holds notes.txt" in refusal(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_start_that_was_cut_short_is_taken_up(tmp_path: Path) -> None:
    for name in ("lock", ".install_id.new", "join.lock"):
        (tmp_path / name).touch()
    assert state_faults(tmp_path) == []


@as_root
def test_only_files_of_the_sidecar_are_closed(state: Path) -> None:
    (state / "token").touch(0o644)
    (state / "read-me.txt").touch(0o644)
    open_premises(state, NOBODY)
    assert (state / "token").stat().st_mode & 0o777 == 0o600
    assert (state / "read-me.txt").stat().st_mode & 0o777 == 0o644
