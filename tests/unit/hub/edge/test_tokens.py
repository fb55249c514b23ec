"""Tokens, enrolment and probes over HTTP: who gets in, with what, and for how long."""

import hashlib
import secrets

import httpx2
import pytest

from hub.core.commands import Submit
from hub.edge.http.tokens import TokenOut
from hub.ids import Scope, TaskType
from tests.support.doors import AUTH, NOW, RECORDS, House

INSTALL = "1" * 32


def who(house: House, token: str) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(house.app), base_url="http://hub", headers=headers)


async def issue(house: House, **body) -> dict:
    async with house.client() as admin:
        answer = await admin.post("/api/v1/tokens", json={"name": "ann", "scopes": ["observer"]} | body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def code_of(house: House) -> str:
    async with house.client() as admin:
        answer = await admin.post("/api/v1/enrolments", json={})
    assert answer.status_code == 201, answer.text
    return answer.json()["code"]


def machine(**body) -> dict:
    return {"install_id": INSTALL, "secret_sha256": "a" * 64, "agents": ["m1-1"], "hostname": "m1"} | body


async def enrol(house: House, code: str, **body) -> httpx2.Response:
    async with who(house, code) as client:
        return await client.post("/api/v1/enrol", json=machine(**body))


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_issued_token_opens_what_it_names_and_its_text_is_told_once(house):
    issued = await issue(house, name="ann", scopes=["submitter"])
    async with who(house, issued["token"]) as ann, house.client() as admin:
        me = (await ann.get("/api/v1/whoami")).json()
        assert (me["name"], me["scopes"], me["person"], me["token_id"]) == ("ann", ["submitter"], True, issued["id"])
        assert (await ann.post("/api/v1/tokens", json={"name": "eve", "scopes": ["admin"]})).status_code == 403
        listed = (await admin.get("/api/v1/tokens")).text
    secret = issued["token"].split("_", 2)[2]  # a secret may have underscores of its own
    assert issued["id"] in listed
    assert secret not in listed
    stored = house.connection.execute("SELECT * FROM token WHERE id = ?", (issued["id"],)).fetchone()
    assert secret not in "".join(str(value) for value in stored)
    assert hashlib.sha256(secret.encode()).hexdigest() not in "".join(str(value) for value in stored)
    assert "digest" not in TokenOut.model_fields


async def test_a_revoked_token_opens_nothing_and_what_it_opened_is_closed(house):
    issued = await issue(house)
    async with who(house, issued["token"]) as ann, house.client() as admin:
        assert (await ann.get("/api/v1/whoami")).status_code == 200
        ended = await admin.delete(f"/api/v1/tokens/{issued['id']}")
        assert (ended.json()["live"], ended.json()["revoked_by"]) == (False, "admin")
        assert (await ann.get("/api/v1/whoami")).status_code == 401
        again = await admin.delete(f"/api/v1/tokens/{issued['id']}")
        assert (again.status_code, again.json()["revoked_by"]) == (200, "admin")
    assert issued["id"] in house.revoked
    assert [event.kind for event in house.conductor.events].count("token.revoked") == 1


async def test_the_last_administrator_cannot_be_revoked(house):
    [admin_id] = [record.id for record in RECORDS if record.name == "admin"]
    async with house.client() as admin:
        refused = await admin.delete(f"/api/v1/tokens/{admin_id}")
        assert (refused.status_code, refused.json()["code"]) == (409, "last_admin")
        await issue(house, name="root2", scopes=["admin"])
        assert (await admin.delete(f"/api/v1/tokens/{admin_id}")).status_code == 200
        assert (await admin.get("/api/v1/tokens")).status_code == 401


async def test_an_unknown_token_cannot_be_revoked(house):
    async with house.client() as admin:
        assert (await admin.delete("/api/v1/tokens/00000000")).json()["code"] == "unknown_token"
        assert (await admin.delete("/api/v1/tokens/ZZ")).status_code == 422


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"scopes": []}, "at least 1"),
        ({"scopes": ["root"]}, "'root' is not a scope; one of admin, operator, approver, submitter, observer, agent:<id>"),
        ({"scopes": ["agent"]}, "is not a scope"),
        ({"scopes": ["agent:"]}, "is not a scope"),
        ({"scopes": ["agent:../x"]}, "is not a scope"),
        ({"scopes": ["enrol"]}, "codes for machines are made by POST /api/v1/enrolments"),
        ({"scopes": ["agent:w1", "approver"]}, "must not be within an agent's reach"),
        ({"scopes": ["agent:*", "admin"]}, "must not be within an agent's reach"),
        ({"name": "hub"}, "appears as 'hub'"),
        ({"name": "Ann\x1b[31m"}, "a name is"),
        ({"expires_s": 1}, "greater than or equal to 60"),
        ({"expires_s": 10**12}, "less than or equal"),
    ],
)
async def test_a_token_that_makes_no_sense_is_refused_with_the_reason(house, body, said):
    async with house.client() as admin:
        answer = await admin.post("/api/v1/tokens", json={"name": "ann", "scopes": ["observer"]} | body)
    assert answer.status_code == 422
    assert any(said in fault["msg"] for fault in answer.json()["errors"]), answer.text


async def test_an_expired_token_is_listed_as_ended(house):
    issued = await issue(house, expires_s=60)
    house.connection.execute("UPDATE token SET ends_at = ? WHERE id = ?", (NOW, issued["id"]))
    async with house.client() as admin:
        [shown] = [token for token in (await admin.get("/api/v1/tokens")).json()["tokens"] if token["id"] == issued["id"]]
    assert (shown["live"], shown["revoked_by"]) == (False, None)


# ── enrolment ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_machine_joins_with_a_code_and_a_secret_it_never_sends(house):
    secret = secrets.token_urlsafe(32)
    answer = await enrol(
        house,
        await code_of(house),
        secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
        agents=["m1-1", "m1-2", "m1-1"],
    )
    assert answer.json() | {"token_id": None} == {
        "token_id": None,
        "name": "machine:m1",
        "agents": ["m1-1", "m1-2"],
        "hub_id": "hub-1",
    }
    async with house.client() as admin:
        listed = {token["name"]: token["used"] for token in (await admin.get("/api/v1/tokens")).json()["tokens"]}
    assert (listed["enrolment"], listed["machine:m1"]) == (True, False)
    async with who(house, f"ac_{answer.json()['token_id']}_{secret}") as sidecar:
        me = (await sidecar.get("/api/v1/whoami")).json()
        assert (me["name"], me["scopes"], me["person"]) == ("machine:m1", ["agent:m1-1", "agent:m1-2"], False)
        assert (await sidecar.get("/api/v1/tasks")).status_code == 403


async def test_a_repeated_registration_gives_the_same_answer_and_no_second_token(house):
    code = await code_of(house)
    first = await enrol(house, code)
    again = await enrol(house, code)
    grown = await enrol(house, code, agents=["m1-1", "m1-2"])
    assert first.json() == again.json()
    assert grown.json()["token_id"] == first.json()["token_id"]
    identity = AUTH._known[first.json()["token_id"]][1]
    assert identity.agents == {"m1-1", "m1-2"}
    assert house.connection.execute("SELECT count(*) FROM token WHERE install_id IS NOT NULL").fetchone()[0] == 1


@pytest.mark.parametrize("other", [{"install_id": "2" * 32}, {"secret_sha256": "b" * 64}])
async def test_a_used_code_serves_no_other_registration(house, other):
    code = await code_of(house)
    await enrol(house, code)
    refused = await enrol(house, code, agents=["m2-1"], **other)
    assert (refused.status_code, refused.json()["code"]) == (409, "enrolment_used")


async def test_names_of_another_machine_are_refused_all_at_once(house):
    await enrol(house, await code_of(house), agents=["a", "b", "c"])
    refused = await enrol(house, await code_of(house), install_id="2" * 32, agents=["c", "x", "a"])
    assert (refused.status_code, refused.json()["code"]) == (409, "name_taken")
    assert [fault["loc"] for fault in refused.json()["errors"]] == ["agents.0", "agents.2"]
    assert "machine:m1" in refused.json()["errors"][0]["msg"]


async def test_a_machine_that_joins_again_keeps_its_token_and_what_is_open_under_it(house):
    first = (await enrol(house, await code_of(house))).json()
    code = await code_of(house)
    second = (await enrol(house, code, agents=["m1-2"])).json()
    assert second["token_id"] == first["token_id"]
    assert AUTH._known[first["token_id"]][1].agents == {"m1-1", "m1-2"}
    assert house.revoked == []
    refused = await enrol(house, code, install_id="2" * 32, agents=["m2-1"])
    assert refused.json()["code"] == "enrolment_used", "also a code that gave no new token is spent"


async def test_knowing_an_installation_without_its_secret_takes_nothing_over(house):
    first = (await enrol(house, await code_of(house))).json()
    refused = await enrol(house, await code_of(house), secret_sha256="b" * 64)
    assert (refused.status_code, refused.json()["code"]) == (409, "name_taken")
    assert (await enrol(house, await code_of(house), secret_sha256="b" * 64, agents=["m2-1"])).status_code == 200
    assert house.revoked == []
    assert first["token_id"] in AUTH._known


async def test_a_machine_that_left_frees_its_names(house):
    secret = secrets.token_urlsafe(32)
    sha256 = hashlib.sha256(secret.encode()).hexdigest()
    token = (await enrol(house, await code_of(house), secret_sha256=sha256)).json()["token_id"]
    async with who(house, f"ac_{token}_{secret}") as sidecar:
        assert (await sidecar.post("/api/v1/leave")).status_code == 204
        assert (await sidecar.post("/api/v1/leave")).status_code == 401
    assert (await enrol(house, await code_of(house), install_id="2" * 32)).status_code == 200


async def test_only_a_machine_that_joined_can_leave(house):
    async with house.client(Scope.AGENT) as shared:
        refused = await shared.post("/api/v1/leave")
        assert (refused.status_code, refused.json()["code"]) == (409, "not_enrolled")
        assert (await shared.get("/api/v1/whoami")).status_code == 200


async def test_an_expired_code_is_refused(house):
    code = await code_of(house)
    house.connection.execute("UPDATE token SET ends_at = ? WHERE id = ?", (NOW, code.split("_")[1]))
    refused = await enrol(house, code)
    assert (refused.status_code, refused.json()["hint"]) == (401, "make a new one: agentcom enrol create")


@pytest.mark.parametrize(
    "wrong",
    [
        {"install_id": "x"},
        {"secret_sha256": "A" * 64},
        {"agents": []},
        {"agents": ["UP"]},
        {"hostname": "m\u202e1"},
        {"extra": 1},
    ],
)
async def test_a_registration_that_is_not_valid_uses_no_code(house, wrong):
    code = await code_of(house)
    assert (await enrol(house, code, **wrong)).status_code == 422
    assert (await enrol(house, code)).status_code == 200


# ── probes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def sidecar_of(house: House, *agents: str) -> str:
    return (await issue(house, name="m1", scopes=[f"agent:{agent}" for agent in agents], person=False))["token"]


async def test_a_probe_is_a_check_pinned_to_its_agent_that_needs_no_repository(house):
    house.rows.agent("bob", projects='["web"]')
    async with who(house, await sidecar_of(house, "bob")) as sidecar:
        started = await sidecar.post("/api/v1/agents/bob/probe")
    assert started.status_code == 202, started.text
    [command] = [command for command in house.conductor.commands if isinstance(command, Submit)]
    [task] = command.tasks
    assert (task.type, task.assign_to, task.repo, task.project, task.max_tries) == (TaskType.CHECK, "bob", None, "web", 1)
    assert '"git"' in task.spec


async def test_whoever_asks_again_meanwhile_hears_of_the_same_probe(house):
    house.rows.agent("bob")
    house.rows.task(7, type="check", assign_to="bob", unique_key="probe:bob")
    async with who(house, await sidecar_of(house, "bob")) as sidecar:
        assert (await sidecar.post("/api/v1/agents/bob/probe")).json() == {"task": "t-7"}
    assert house.conductor.commands == []


async def test_a_probe_of_another_agent_is_refused(house):
    house.rows.agent("bob")
    house.rows.task(7, type="check", assign_to="bob")
    async with who(house, await sidecar_of(house, "ann")) as sidecar:
        assert (await sidecar.post("/api/v1/agents/bob/probe")).status_code == 403
        assert (await sidecar.get("/api/v1/agents/bob/probe/t-7")).status_code == 403
    assert house.conductor.commands == []


async def test_only_probes_are_shown_as_such(house):
    house.rows.agent("bob")
    house.rows.task(7, type="check", assign_to="bob", state="done", cause="succeeded")
    house.rows.task(8, type="task", assign_to="bob")
    async with who(house, await sidecar_of(house, "bob")) as sidecar:
        shown = await sidecar.get("/api/v1/agents/bob/probe/t-7")
        assert (shown.status_code, shown.json()["state"]) == (200, "done")
        assert (await sidecar.get("/api/v1/agents/bob/probe/t-8")).status_code == 404
        assert (await sidecar.get("/api/v1/agents/bob/probe/t-9")).status_code == 404


async def test_an_agent_that_never_connected_cannot_be_probed(house):
    async with house.client(Scope.OPERATOR) as operator:
        refused = await operator.post("/api/v1/agents/nobody/probe")
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_agent")
