"""Projects and repositories: edits name the version they read, and the scheduler hears of them in order."""

import asyncio

import pytest

from hub.core.commands import Registry
from hub.core.errors import HubError, Refused
from hub.edge.http.projects import ProjectOut
from hub.edge.http.registry import Registrar
from hub.ids import Scope
from hub.store import projects
from tests.support.doors import MemoryReader

PROJECTS, REPOS = "/api/v1/projects", "/api/v1/repos"


def unfit(status: int, code: str) -> HubError:
    """A refusal of the forge."""
    fault = HubError(f"it is {code}")
    fault.status, fault.code = status, code
    return fault


async def test_creating_a_project_tells_the_scheduler(house):
    house.rows.repository("site")
    body = {"id": "web", "repos": ["site", "site"], "default_repo": "site", "dispatch": "manual"}
    async with house.client() as client:
        answer = await client.post(PROJECTS, json=body)
        again = await client.post(PROJECTS, json=body)
        listed = (await client.get(PROJECTS)).json()["projects"]
    assert answer.status_code == 201
    assert answer.json()["repos"] == ["site"]
    assert answer.json()["name"] == "web"
    assert (again.status_code, again.json()["code"]) == (409, "project_exists")
    assert listed == [answer.json()]
    assert house.conductor.commands == [Registry(actor="admin", projects={"web": (False, "manual")}, repos={"site": False})]
    assert [event.kind for event in house.conductor.events] == ["project.created"]


async def test_a_project_with_unknown_repositories_is_refused_with_every_fault(house):
    async with house.client() as client:
        answer = await client.post(PROJECTS, json={"id": "web", "repos": ["a", "b"], "default_repo": "c"})
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["errors"]] == ["repos.0", "repos.1", "default_repo"]
    assert house.conductor.commands == []
    assert house.conductor.events == []


async def test_a_stale_edit_is_412_with_the_current_record(house):
    house.rows.project("web", version=3)
    async with house.client() as client:
        stale = await client.patch(f"{PROJECTS}/web", json={"name": "Mine"}, headers={"If-Match": '"2"'})
        fresh = await client.patch(f"{PROJECTS}/web", json={"name": "Mine"}, headers={"If-Match": '"3"'})
    assert stale.status_code == 412
    assert stale.json()["current"]["version"] == 3
    assert stale.json()["current"]["name"] == "web"
    assert stale.json()["current"]["updated_at"] == "2027-01-15T08:00:00Z", "as a reading of it shows it"
    assert (fresh.json()["name"], fresh.json()["version"]) == ("Mine", 4)


async def test_an_edit_without_version_is_428(house):
    house.rows.project("web")
    async with house.client() as client:
        answer = await client.patch(f"{PROJECTS}/web", json={"name": "Mine"})
        named = await client.patch(f"{PROJECTS}/web", json={"name": "Mine", "version": 1})
        odd = await client.patch(f"{PROJECTS}/web", json={"name": "Mine"}, headers={"If-Match": "*"})
    assert (answer.status_code, answer.json()["code"]) == (428, "version_required")
    assert named.status_code == 200
    assert odd.status_code == 422


async def test_absent_fields_stay_and_null_takes_the_default_repository_away(house):
    house.rows.repository("site")
    house.rows.project("web", default_repo="site", description="old")
    house.rows.insert("project_repository", project="web", repo="site")
    async with house.client() as client:
        kept = (await client.patch(f"{PROJECTS}/web", json={"name": "N", "version": 1})).json()
        taken = (await client.patch(f"{PROJECTS}/web", json={"default_repo": None, "version": 2})).json()
        emptied = (await client.patch(f"{PROJECTS}/web", json={"repos": [], "version": 3})).json()
    assert (kept["default_repo"], kept["description"], kept["repos"]) == ("site", "old", ["site"])
    assert taken["default_repo"] is None
    assert emptied["repos"] == []


@pytest.mark.parametrize(("noun", "name"), [(PROJECTS, "web"), (REPOS, "site")])
async def test_pausing_needs_no_version_and_repeating_it_changes_nothing(house, noun, name):
    house.rows.repository("site")
    house.rows.project("web")
    async with house.client(Scope.OPERATOR) as client:
        first = (await client.post(f"{noun}/{name}/pause")).json()
        second = (await client.post(f"{noun}/{name}/pause")).json()
        resumed = (await client.post(f"{noun}/{name}/resume")).json()
        missing = await client.post(f"{noun}/nothing/pause")
    assert first["paused"]
    assert first["version"] == second["version"] == 2
    assert (resumed["paused"], resumed["version"]) == (False, 3)
    assert missing.status_code == 404
    assert len(house.conductor.events) == 2
    assert house.conductor.commands[0].repos == {"site": noun == REPOS}


async def test_registering_a_repository_probes_it_first(house):
    body = {
        "name": "site",
        "url": "/srv/site.git",
        "policy": {"auto_merge_tier1": True},
        "checks": [{"kind": "command_succeeds", "argv": ["make", "test"]}],
    }
    async with house.client() as client:
        house.unfit = Refused(422, "repository_unusable", "its base is checked out", hint="make it bare")
        refused = await client.post(REPOS, json=body)
        house.unfit = None
        answer = await client.post(REPOS, json=body)
    assert (refused.status_code, refused.json()["hint"]) == (422, "make it bare")
    assert house.probed == [("site", "/srv/site.git", "main")] * 2
    assert answer.json()["policy"] == {"auto_merge_tier1": True}
    assert answer.json()["checks"] == [{"kind": "command_succeeds", "argv": ["make", "test"]}]
    assert len(house.conductor.commands) == 1


@pytest.mark.parametrize(
    "url",
    ["ext::sh -c id", "--upload-pack=x", "https://ann:secret@host/x.git", "ftp://host/x", "relative/path", "a\nb", ""],
)
async def test_addresses_that_must_not_reach_git_are_refused_without_being_repeated(house, url):
    async with house.client() as client:
        answer = await client.post(REPOS, json={"name": "x", "url": url})
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["errors"]] == ["url"]
    assert "secret" not in answer.text
    assert house.probed == []


async def test_a_policy_is_checked_with_everything_else_before_it_is_stored(house):
    body = {"name": "X", "url": "/srv/x.git", "policy": {"tier1_lines": "many", "odd{}": 1}}
    async with house.client() as client:
        answer = await client.post(REPOS, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert {error["loc"]: error["msg"] for error in answer.json()["errors"]} == {
        "name": "a name is 1 to 64 of a-z 0-9 - _ . and begins with a letter or digit (got 'X')",
        "policy.tier1_lines": "Input should be a valid integer",
        "policy.odd{}": "there is no such field",
    }


@pytest.mark.parametrize(
    ("fault", "status", "locs"),
    [
        (unfit(422, "base_missing"), 422, ["base"]),
        (unfit(422, "not_a_repository"), 422, ["url"]),
        (unfit(503, "remote_unavailable"), 422, ["url"]),
        (unfit(503, "git_not_started"), 503, []),
    ],
)
async def test_what_a_forge_says_against_a_repository_names_the_field(house, fault, status, locs):
    house.unfit = fault
    async with house.client() as client:
        answer = await client.post(REPOS, json={"name": "x", "url": "/srv/x.git"})
    assert (answer.status_code, answer.json()["code"]) == (status, fault.code)
    assert [error["loc"] for error in answer.json()["errors"]] == locs


async def test_updating_a_repository_probes_only_a_new_place(house):
    house.rows.repository("site")
    async with house.client() as client:
        policy = await client.patch(f"{REPOS}/site", json={"policy": {}, "version": 1})
        moved = await client.patch(f"{REPOS}/site", json={"base": "dev", "version": 2})
        stale = await client.patch(f"{REPOS}/site", json={"base": "dev", "version": 2})
    assert policy.status_code == moved.status_code == 200
    assert house.probed == [("site", "/srv/site.git", "dev")] * 2
    assert moved.json()["base"] == "dev"
    assert stale.status_code == 412


class SlowFirstReader(MemoryReader):
    """Its first answer is old by the time it arrives."""

    delay = 50

    async def all(self, query, /, **params):
        found = await super().all(query, **params)
        delay, self.delay = self.delay, 0
        for _ in range(delay):
            await asyncio.sleep(0)
        return found


async def test_the_scheduler_hears_of_concurrent_edits_in_commit_order(house):
    house.rows.project("web")
    registrar = Registrar(house.conductor, SlowFirstReader(house.connection))
    pause = registrar.edit("ann", projects.pause("ann", "web", paused=True), ProjectOut.of)
    resume = registrar.edit("eve", projects.pause("eve", "web", paused=False), ProjectOut.of)
    await asyncio.gather(pause, resume)
    assert [command.projects["web"][0] for command in house.conductor.commands] == [True, False]
