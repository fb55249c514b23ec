"""What root runs must not be the agents' to write."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.doctor.code import code
from sidecar.runs.account import Account
from tests.support.newcomer import IS_ROOT, open_directory

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="only root changes users")


@pytest.fixture
def place() -> Iterator[Path]:
    with open_directory() as place:
        yield place


@pytest.fixture
def nobody() -> Account:
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def program(directory: Path) -> Path:
    directory.mkdir(parents=True)
    path = directory / "python"
    path.write_text("")
    path.chmod(0o755)
    return path


def test_what_only_root_writes_is_fit_to_run_also_below_a_sticky_directory(place: Path, nobody: Account) -> None:
    assert code(nobody, places=[program(place / "bin"), place / "bin"]).state == "ok"


@pytest.mark.parametrize(
    "what", ["the file", "its directory", "a directory above", "what it links to", "a closed file of theirs"]
)
def test_a_place_that_agents_may_write_is_named_with_the_cure(what: str, place: Path, nobody: Account) -> None:
    path = program(place / "above" / "bin")
    wrong = {"its directory": path.parent, "a directory above": place / "above"}.get(what, path)
    if what == "what it links to":
        wrong = program(place / "theirs")
        path.unlink()
        path.symlink_to(wrong)
    if what == "a closed file of theirs":
        os.chown(wrong, nobody.uid, nobody.gid)
        wrong.chmod(0o500)
    else:
        wrong.chmod(0o777)
    found = code(nobody, places=[path])
    assert (found.state, str(wrong) in found.found) == ("fail", True)
    assert "/opt/agentcom" in (found.fix or "")


def test_the_path_counts_also_where_it_is_sticky(place: Path, nobody: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    place.chmod(0o1777)
    assert code(nobody, places=[program(place / "bin")]).state == "ok"
    monkeypatch.setenv("PATH", f"{place}:/bin")
    assert str(place) in code(nobody).found
