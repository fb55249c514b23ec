"""What is taken away and, above all, what is not: nothing is deleted on missing data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from hub.forge.base import Remote, RemoteUnavailable
from hub.services import leftovers as module
from hub.services.leftovers import Leftovers
from hub.wire.finding import Finding
from tests.support.doors import SHA, House

OTHER = "f" * 40


class FakeForge:
    """Remotes as dictionaries of heads; remembers what was taken away."""

    def __init__(self) -> None:
        self.remotes: dict[str, dict[str, str] | Exception] = {}
        self.clones: list[str] = []
        self.deleted: list[tuple[str, Sequence[tuple[str, str]]]] = []
        self.forgotten: list[str] = []

    async def heads(self, remote: Remote, prefix: str) -> Mapping[str, str]:
        found = self.remotes.get(remote.name, {})
        if isinstance(found, Exception):
            raise found
        return {name: sha for name, sha in found.items() if name.startswith(prefix)}

    def kept(self) -> Sequence[str]:
        return self.clones

    async def delete(self, remote: Remote, branches: Sequence[tuple[str, str]]) -> None:
        self.deleted.append((remote.name, branches))

    async def forget(self, name: str) -> None:
        self.forgotten.append(name)


class Scene:
    """A store with the repository ``site``, and a forge."""

    def __init__(self, house: House) -> None:
        self.rows = house.rows
        self.forge = FakeForge()
        self.leftovers = Leftovers(house.doors.reader, {"local": self.forge})  # type: ignore[dict-item]
        self.rows.repository("site")

    def change(self, n: int, *, task: str, change: str, **more: Any) -> None:
        self.rows.task(n, state=task, lease_epoch=1, repo="site")
        self.rows.change(n, n, state=change, **more)

    def remote(self, *branches: str, sha: str = SHA) -> None:
        self.forge.remotes["site"] = dict.fromkeys(branches, sha)

    async def findings(self) -> dict[str, list[Finding]]:
        found: dict[str, list[Finding]] = {}
        for one in await self.leftovers.examine():
            found.setdefault(one.check, []).append(one)
        return found

    async def mended(self) -> tuple[list[str], list[str]]:
        """Branches and clones that were taken away."""
        await self.leftovers.mend()
        return [name for _, branches in self.forge.deleted for name, _ in branches], self.forge.forgotten


@pytest.fixture
def scene() -> Iterator[Scene]:
    house = House()
    yield Scene(house)
    house.close()


# ── branches ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_branch_of_a_merged_change_is_taken_away_only_as_it_was_seen(scene: Scene) -> None:
    scene.change(1, task="done", change="merged")
    scene.remote("agentcom/t-1/1")
    (found,) = (await scene.findings())["branches of site"]
    assert (found.state, found.fixable) == ("warn", True)
    assert "agentcom/t-1/1" in found.found
    await scene.leftovers.mend()
    assert scene.forge.deleted == [("site", [("agentcom/t-1/1", SHA)])]


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("in_review", "open"),
        ("in_review", "merging"),
        ("in_review", "merged"),
        ("queued", "rework"),
        ("working", "rework"),
        ("done", "merging"),
        ("dead", "open"),
    ],
)
async def test_what_is_not_over_is_needed(scene: Scene, task: str, change: str) -> None:
    scene.change(1, task=task, change=change)
    scene.remote("agentcom/t-1/1")
    (found,) = (await scene.findings())["branches of site"]
    assert (found.state, found.found) == ("ok", "1 in use")
    assert await scene.mended() == ([], [])


@pytest.mark.parametrize(
    ("task", "change"), [("dead", "closed"), ("cancelled", "closed"), ("dead", "rework"), ("done", "closed")]
)
async def test_work_that_was_never_merged_is_left_to_a_person(scene: Scene, task: str, change: str) -> None:
    scene.change(1, task=task, change=change)
    scene.remote("agentcom/t-1/1")
    (found,) = (await scene.findings())["branches of site"]
    assert (found.state, found.fixable) == ("warn", False)
    assert "git push /srv/site.git --delete agentcom/t-1/1" in (found.fix or "")
    assert await scene.mended() == ([], [])


async def test_a_version_that_was_replaced_by_a_merged_one_is_spent(scene: Scene) -> None:
    scene.change(1, task="done", change="rework")
    scene.remote("agentcom/t-1/1")
    assert await scene.mended() == (["agentcom/t-1/1"], [])


@pytest.mark.parametrize("state", ["merged", "rework", "closed"])
async def test_a_candidate_of_a_change_that_is_over_is_spent(scene: Scene, state: str) -> None:
    scene.change(4, task="in_review", change=state, candidate_sha=OTHER)
    scene.remote("agentcom/candidate/4", sha=OTHER)
    assert await scene.mended() == (["agentcom/candidate/4"], [])


async def test_a_candidate_that_is_being_checked_is_needed(scene: Scene) -> None:
    scene.change(4, task="in_review", change="checking", candidate_sha=SHA)
    scene.remote("agentcom/candidate/4")
    assert await scene.mended() == ([], [])


@pytest.mark.parametrize(
    "branch",
    [
        "agentcom/t-99/1",
        "agentcom/t-1/2",
        "agentcom/candidate/99",
        "agentcom/candidate/1",
        "agentcom/salvage/t-1/1",
        "agentcom/t-1",
        "agentcom/t-01/1",
        "agentcom/mine",
        f"agentcom/t-{'9' * 30}/1",
    ],
)
async def test_a_branch_that_no_row_knows_is_left_alone(scene: Scene, branch: str) -> None:
    scene.change(1, task="done", change="merged")
    scene.remote(branch)
    (found,) = (await scene.findings())["branches of site"]
    assert (found.state, found.found) == ("ok", "0 in use, 1 that this hub does not know")
    assert await scene.mended() == ([], [])


async def test_a_branch_of_another_hub_with_the_same_number_is_left_alone(scene: Scene) -> None:
    scene.change(1, task="done", change="merged", candidate_sha=SHA)
    scene.remote("agentcom/t-1/1", "agentcom/candidate/1", sha=OTHER)
    assert await scene.mended() == ([], [])


async def test_a_change_of_another_repository_proves_nothing_about_this_one(scene: Scene) -> None:
    scene.rows.repository("other")
    scene.rows.task(1, state="done", lease_epoch=1, repo="other")
    scene.rows.change(1, 1, state="merged", repo="other")
    scene.remote("agentcom/t-1/1")
    assert await scene.mended() == ([], [])


async def test_an_unreachable_remote_is_a_warning_and_nothing_is_deleted(scene: Scene) -> None:
    scene.rows.repository("quick")
    scene.change(1, task="done", change="merged")
    scene.forge.remotes["site"] = RemoteUnavailable("connection refused")
    found = await scene.findings()
    assert "not known: connection refused" in found["branches of site"][0].found
    assert found["branches of quick"][0].state == "ok", "one that is away does not hide the others"
    assert await scene.mended() == ([], [])


async def test_a_remote_that_hangs_is_given_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(remote: Remote, prefix: str) -> Mapping[str, str]:
        raise TimeoutError

    monkeypatch.setattr(scene.forge, "heads", hang)
    monkeypatch.setattr(module, "ASK_S", 7)
    assert "no answer within 7 s" in (await scene.findings())["branches of site"][0].found
    assert await scene.mended() == ([], [])


async def test_many_branches_are_looked_at_in_pieces(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BRANCHES", 2)
    for n in (1, 2, 3):
        scene.change(n, task="done", change="merged")
    scene.remote("agentcom/t-1/1", "agentcom/t-2/1", "agentcom/t-3/1")
    assert len((await scene.mended())[0]) == 2


# ── clones ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_clone_of_a_repository_that_is_registered_no_longer_is_dropped(scene: Scene) -> None:
    scene.forge.clones = ["old", "site"]
    (found,) = (await scene.findings())["clones"]
    assert (found.state, found.found, found.fixable) == ("warn", "no longer registered: old", True)
    assert await scene.mended() == ([], ["old"])


async def test_an_empty_list_of_repositories_is_no_reason_to_drop_clones(scene: Scene) -> None:
    scene.rows.connection.execute("DELETE FROM repository")
    scene.forge.clones = ["old", "site"]
    (found,) = (await scene.findings())["clones"]
    assert (found.state, found.fixable) == ("warn", False)
    assert await scene.mended() == ([], [])


@pytest.mark.parametrize(("task", "change"), [("queued", None), ("waiting", None), ("done", "open")])
async def test_a_clone_that_live_work_names_is_kept(scene: Scene, task: str, change: str | None) -> None:
    scene.rows.task(1, state=task, repo="old")
    if change is not None:
        scene.rows.change(1, 1, state=change, repo="old")
    scene.forge.clones = ["old"]
    assert (await scene.findings())["clones"][0].fixable is False
    assert await scene.mended() == ([], [])
