"""Whether the git of a machine will do."""

from __future__ import annotations

import pytest

from hub.forge.base import ForgeError
from hub.forge.doctor import examine_git, judge_git


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("git version 2.39.5", "ok"),
        ("git version 2.38.0", "ok"),
        ("git version 3.0.0 (Apple Git-1)", "ok"),
        ("git version 2.37.9", "fail"),
        ("git version 1.99.0", "fail"),
        ("command not found", "fail"),
        ("", "fail"),
    ],
)
def test_git_is_judged_by_its_version(said: str, state: str) -> None:
    found = judge_git(said)
    assert found.state == state
    assert (found.fix is not None) == (state == "fail")


async def test_no_git_at_all_is_a_finding() -> None:
    class NoGit:
        async def plumb(self, *_: object) -> object:
            raise ForgeError("git was not found on PATH", code="git_missing")

    (found,) = await examine_git(NoGit())  # type: ignore[arg-type]
    assert (found.state, found.found) == ("fail", "git was not found on PATH")
