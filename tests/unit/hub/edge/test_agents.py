from hub.core.agent import Agent
from hub.core.blame import FOREVER, Strike
from hub.core.commands import PauseAgent, ResumeAgent
from hub.ids import SECOND, AgentId, AgentState, LeaseEpoch, Scope, StrikeOf, TaskId
from tests.support.doors import NOW

AGENTS = "/api/v1/agents"


def present(house, agent, **changes):
    known = Agent(id=AgentId(agent), first_seen_at=NOW, last_seen_at=NOW + 5 * SECOND)
    for field, value in changes.items():
        setattr(known, field, value)
    house.scheduler.present[agent] = known


async def test_what_is_live_overrides_what_is_remembered(house):
    house.rows.agent("ada")
    house.rows.agent("bob", note="old", quiet=1)
    house.rows.agent("cyd", quarantined_until=FOREVER)
    house.rows.insert(
        "agent_session", agent="bob", epoch=2, install_id="i", boot_id="b", hub_epoch=1, connected_at=NOW + SECOND
    )
    present(house, "bob", state=AgentState.WORKING, connected=True, task=TaskId(7), note="testing", paused=True)
    present(house, "cyd", state=AgentState.IDLE, quarantined_until=FOREVER)
    async with house.client(Scope.OBSERVER) as client:
        found = {agent["id"]: agent for agent in (await client.get(AGENTS)).json()["agents"]}
    assert (found["ada"]["state"], found["ada"]["flags"]) == ("offline", [])
    bob = found["bob"]
    assert (bob["state"], bob["task"], bob["note"], bob["flags"]) == ("working", "t-7", "testing", ["paused"])
    assert (bob["last_seen_at"], bob["connected_at"]) == ("2027-01-15T08:00:05Z", "2027-01-15T08:00:01Z")
    assert found["cyd"]["flags"] == ["reconnecting", "quarantined"]
    assert found["cyd"]["quarantined_until"] is None


async def test_a_quarantine_tells_why_since_when_and_what_led_to_it(house):
    strikes = [Strike(StrikeOf.RUN, TaskId(n), 1, LeaseEpoch(2), "cannot_start", NOW + n * SECOND) for n in (4, 5)]
    house.rows.agent("bob")
    house.rows.agent("eve", quarantine_level=1)
    present(
        house,
        "bob",
        strikes=tuple(strikes),
        quarantine_level=1,
        quarantined_until=NOW + 600 * SECOND,
        quarantined_at=NOW,
        quarantine_cause="cannot_start",
    )
    async with house.client(Scope.OBSERVER) as client:
        bob, eve = [(await client.get(f"{AGENTS}/{name}")).json() for name in ("bob", "eve")]
    assert (bob["quarantined_at"], bob["quarantined_until"]) == ("2027-01-15T08:00:00Z", "2027-01-15T08:10:00Z")
    assert (bob["quarantine_cause"], bob["flags"]) == ("cannot_start", ["quarantined"])
    assert [(one["task"], one["lease_epoch"], one["of"], one["cause"]) for one in bob["strikes"]] == [
        ("t-5", 2, "run", "cannot_start"),
        ("t-4", 2, "run", "cannot_start"),
    ]
    assert eve["flags"] == ["on_trial"]


async def test_pages_go_by_id(house):
    for agent in ("a", "b", "c"):
        house.rows.agent(agent)
    async with house.client(Scope.OBSERVER) as client:
        first = (await client.get(AGENTS, params={"limit": 2})).json()
        second = (await client.get(AGENTS, params={"limit": 2, "cursor": first["next"]})).json()
        offline = (await client.get(AGENTS, params={"state": "offline"})).json()
    assert [agent["id"] for agent in first["agents"] + second["agents"]] == ["a", "b", "c"]
    assert second["next"] is None
    assert len(offline["agents"]) == 3


async def test_showing_an_agent_tells_its_tasks_and_transitions(house):
    house.rows.agent("bob")
    house.rows.task(3, state="done", title="old work")
    house.rows.attempt(3, 1, outcome="succeeded", verdict="applied", ended_at=NOW)
    house.rows.insert("agent_transition", agent="bob", at=NOW, from_state="idle", to_state="working", reason="accepted")
    async with house.client(Scope.OBSERVER) as client:
        shown = (await client.get(f"{AGENTS}/bob")).json()
        missing = await client.get(f"{AGENTS}/nobody")
    assert shown["attempts"][0]["id"] == "t-3"
    assert shown["attempts"][0]["title"] == "old work"
    assert shown["transitions"][0]["reason"] == "accepted"
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown_agent")


async def test_pausing_and_resuming_are_commands_of_the_caller(house):
    house.rows.agent("bob")
    async with house.client(Scope.OPERATOR) as client:
        assert (await client.post(f"{AGENTS}/bob/pause")).json()["id"] == "bob"
        assert (await client.post(f"{AGENTS}/bob/resume")).status_code == 200
    assert house.conductor.commands == [
        PauseAgent(actor="operator", agent=AgentId("bob")),
        ResumeAgent(actor="operator", agent=AgentId("bob")),
    ]
