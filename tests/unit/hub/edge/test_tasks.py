import hashlib

import orjson
import pytest

from hub.core.commands import (
    Answer,
    Assign,
    Cancel,
    Complete,
    Dependency,
    Dispatch,
    Hold,
    Release,
    Requeue,
    Submit,
)
from hub.core.decision import Dispatched, Submitted, SubmittedTask, TaskAnswer
from hub.core.errors import Fault, Refused
from hub.core.rows import EventRow
from hub.edge.http.fields import moment
from hub.ids import SECOND, Access, Lane, LeaseEpoch, Scope, TaskId, TaskState, TaskType
from hub.wire.codec import decode_spec
from tests.support.doors import NOW

TASKS = "/api/v1/tasks"


def only(house):
    (command,) = house.conductor.commands
    assert isinstance(command, Submit)
    (task,) = command.tasks
    return task


async def submit(house, scope=Scope.SUBMITTER, **body):
    async with house.client(scope) as client:
        return await client.post(TASKS, json={"title": "Fix the login", **body})


async def faults(house, **body):
    answer = await submit(house, **body)
    assert answer.status_code == 422, answer.text
    assert house.conductor.commands == []
    return {error["loc"]: error["msg"] for error in answer.json()["errors"]}


# ── submitting ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_full_submission_becomes_one_command(house):
    house.rows.project()
    answer = await submit(
        house,
        description="line one\nline two",
        type="bug",
        lane="high",
        repo="site",
        base="release/2",
        access="read_only",
        needs_change=False,
        capabilities=["python", "db", "python"],
        assign_to="bob",
        not_before="+10m",
        deadline="2027-01-15T12:00:00+01:00",
        queue_ttl_s=60,
        depends_on=["t-3", {"task": "7", "policy": "run"}],
        parent="t-2",
        max_tries=5,
        hold=True,
        unique_key="nightly",
        tags=["ui"],
        effort="small",
        complexity="trivial",
        model="fast",
        file_hints=[{"path": "src/login.py", "reason": "here"}],
        success_criteria=["it works"],
        verification=[{"kind": "command_succeeds", "argv": ["pytest", "-q"], "timeout_s": 60}],
        budget={"wall_s": 600, "tokens": 1000, "cost": 1.5},
        metadata={"ticket": 7},
        max_fix_rounds=1,
    )
    assert answer.status_code == 201
    assert answer.headers["location"] == "/api/v1/tasks/t-1"
    assert house.conductor.commands[0].actor == "submitter"
    task = only(house)
    assert (task.type, task.lane, task.access) == (TaskType.BUG, Lane.HIGH, Access.READ_ONLY)
    assert task.capabilities == ("db", "python")
    assert task.not_before == NOW + 600 * SECOND
    assert task.deadline == NOW + 3 * 3600 * SECOND
    assert task.queue_ttl_us == 60 * SECOND
    assert task.depends_on == (Dependency(needs=TaskId(3)), Dependency(needs=TaskId(7), policy="run"))
    assert (task.parent, task.max_tries, task.hold, task.unique_key) == (2, 5, True, "nightly")
    spec = orjson.loads(task.spec)
    assert spec["tags"] == ["ui"]
    assert spec["metadata"] == {"ticket": 7}
    assert "title" not in spec


async def test_the_stored_spec_is_a_valid_part_of_the_wire_spec(house):
    await submit(house, description="x", verification=[{"kind": "no_secrets"}], budget={"cost": 2}, metadata={"a": [1]})
    spec = orjson.loads(only(house).spec)
    wire = decode_spec(orjson.dumps({**spec, "task": 1, "lease_epoch": 1, "title": "x"}))
    assert wire.budget.cost == 2
    assert wire.verification[0].timeout_s == 120


async def test_an_internal_check_cannot_be_submitted(house):
    found = await faults(house, type="check", check={"sha": "a" * 40, "ref": "x", "checks": []})
    assert found.keys() == {"type", "check"}
    assert "review" in found["type"]


async def test_every_fault_is_reported_at_once(house):
    found = await faults(
        house,
        title="x" * 201,
        lane="soon",
        type="chore",
        max_tries="3",
        capabilities=["Python!"],
        depends_on=[{"task": "t-1", "policy": "maybe"}, 7],
        verification=[{"kind": "command_succeeds"}, {"kind": "file_exists", "target": "../etc"}],
        budget={"wall_s": 0, "cost": float("1e400") if False else -1},
        surprise=True,
    )
    assert (
        found["lane"] == "'soon' is not allowed; one of urgent, high, normal, low (also critical for urgent, medium for normal)"
    )
    assert found["surprise"] == "there is no such field"
    assert "command_succeeds needs argv" in found["verification.0"]
    assert found.keys() == {
        "title",
        "lane",
        "type",
        "max_tries",
        "capabilities.0",
        "depends_on.0.policy",
        "depends_on.1",
        "verification.0",
        "verification.1.target",
        "budget.wall_s",
        "budget.cost",
        "surprise",
    }


@pytest.mark.parametrize(
    "title", ["", "   ", "a\nb", "a\x00b", "a\x1b[31mb", "a\x9bb", "a\u202eb", "a\u2066b", "a\u2028b", "a\u200eb"]
)
async def test_titles_hold_no_control_or_bidi_characters(house, title):
    assert "title" in await faults(house, title=title)


async def test_prose_may_have_lines_but_no_other_control_characters(house):
    assert "description" in await faults(house, description="a\x1b[2Jb")
    assert (await submit(house, description="a\n\tb\r\n✓")).status_code == 201


@pytest.mark.parametrize(
    "metadata",
    [
        {"k": "x" * 16_384},
        {"n": 2**70},
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}},
        {"a": [[[[[[[[]]]]]]]]},
    ],
)
async def test_metadata_is_bounded_in_size_depth_and_numbers(house, metadata):
    assert "metadata" in await faults(house, metadata=metadata)


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
async def test_metadata_holds_only_numbers_that_can_be_stored(house, number):
    body = f'{{"title": "x", "metadata": {{"a": [{{"b": {number}}}]}}}}'
    async with house.client(Scope.SUBMITTER) as client:
        answer = await client.post(TASKS, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json()["errors"]] == ["metadata"]
    assert house.conductor.commands == []


async def test_metadata_of_eight_levels_is_accepted(house):
    assert (await submit(house, metadata={"a": {"b": {"c": {"d": {"e": {"f": {"g": {}}}}}}}})).status_code == 201


async def test_lists_are_bounded_to_64(house):
    assert "tags" in await faults(house, tags=["x"] * 65)
    assert (await submit(house, tags=["x"] * 64)).status_code == 201


@pytest.mark.parametrize(("word", "lane"), [("critical", Lane.URGENT), ("medium", Lane.NORMAL), ("low", Lane.LOW)])
async def test_words_of_older_systems_name_lanes(house, word, lane):
    await submit(house, lane=word)
    assert only(house).lane is lane


@pytest.mark.parametrize("when", ["soon", "2027-01-15T12:00:00", "2027-01-15", "+10", "+9999999d", "1960-01-01T00:00:00Z"])
async def test_moments_are_rfc3339_or_relative(house, when):
    assert "not_before" in await faults(house, not_before=when)


def test_relative_moments_add_up():
    assert moment("+1h30m", 0) == 5400 * SECOND
    assert moment("1970-01-01T00:00:01.5Z", 0) == 1_500_000


async def test_the_projects_default_repository_is_used_unless_the_task_says_otherwise(house):
    house.rows.repository("site")
    house.rows.project("web", default_repo="site")
    for body, repo in (({}, "site"), ({"repo": "other"}, "other"), ({"repo": None}, None)):
        house.conductor.commands.clear()
        await submit(house, project="web", **body)
        assert only(house).repo == repo


async def test_the_same_words_in_another_order_have_one_fingerprint_and_other_words_another(house):
    prints = []
    for body in (
        {"lane": "urgent", "tags": ["a"], "idempotency_key": "k1"},
        {"tags": ["a"], "lane": "critical", "type": "task", "idempotency_key": "k2"},
        {"lane": "urgent", "tags": ["b"], "idempotency_key": "k3"},
        {"lane": "urgent", "tags": ["a"], "repo": None, "idempotency_key": "k4"},
    ):
        house.conductor.commands.clear()
        await submit(house, **body)
        prints.append(only(house).body_hash)
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    assert all(len(entry) == len(hashlib.sha256().hexdigest()) for entry in prints)


async def test_an_idempotent_repeat_answers_200_with_the_first_task(house):
    house.conductor.answer = lambda _: Submitted(tasks=(SubmittedTask(n=TaskId(9), state=TaskState.DONE, created=False),))
    async with house.client() as client:
        answer = await client.post(TASKS, json={"title": "x"}, headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json()) == (200, {"id": "t-9", "state": "done", "created": False})
    assert only(house).idempotency_key == "k1"


async def test_two_different_idempotency_keys_are_refused(house):
    async with house.client() as client:
        answer = await client.post(TASKS, json={"title": "x", "idempotency_key": "a"}, headers={"Idempotency-Key": "b"})
    assert (answer.status_code, answer.json()["code"]) == (422, "two_keys")


async def test_faults_of_a_single_task_are_named_without_the_batch(house):
    house.conductor.refuse = Refused(422, "invalid_task", "the batch", faults=(Fault("tasks.0.repo", "unknown_repo", "no x"),))
    answer = await submit(house, repo="x")
    assert answer.json()["errors"] == [{"loc": "repo", "type": "unknown_repo", "msg": "no x"}]
    assert "batch" not in answer.json()["detail"]


async def test_a_batch_is_one_command_with_refs_and_derived_keys(house):
    body = {
        "tasks": [
            {"title": "build", "ref": "build"},
            {"title": "test", "depends_on": ["build"], "idempotency_key": "own"},
        ]
    }
    async with house.client() as client:
        answer = await client.post(f"{TASKS}/batch", json=body, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 201
    assert [task["id"] for task in answer.json()["tasks"]] == ["t-1", "t-2"]
    (command,) = house.conductor.commands
    assert [task.idempotency_key for task in command.tasks] == ["k/0", "own"]
    assert command.tasks[1].depends_on == (Dependency(needs="build"),)


async def test_a_ref_may_not_look_like_a_task(house):
    assert "ref" in await faults(house, ref="t-3")


async def test_a_bad_item_refuses_the_whole_batch_with_its_place(house):
    body = {"tasks": [{"title": "a"}, {"title": "b", "not_before": "soon", "deadline": "never"}]}
    async with house.client() as client:
        answer = await client.post(f"{TASKS}/batch", json=body)
    assert [error["loc"] for error in answer.json()["errors"]] == ["tasks.1.not_before", "tasks.1.deadline"]
    assert house.conductor.commands == []


# ── steering ─────────────────────────────────────────────────────────────────────────────────────────────────────────

COMMANDS = [
    ("hold", {"reason": "wait"}, Hold(actor="operator", n=TaskId(4), reason="wait")),
    ("release", None, Release(actor="operator", n=TaskId(4))),
    ("assign", {"agent": "bob", "force": True}, Assign(actor="operator", n=TaskId(4), agent="bob", force=True)),
    ("assign", {}, Assign(actor="operator", n=TaskId(4))),
    ("cancel", None, Cancel(actor="operator", n=TaskId(4))),
    ("complete", {"reason": "by hand"}, Complete(actor="operator", n=TaskId(4), reason="by hand")),
    ("requeue", None, Requeue(actor="operator", n=TaskId(4))),
    ("answer", {"text": "yes"}, Answer(actor="operator", n=TaskId(4), text="yes")),
]


@pytest.mark.parametrize(("verb", "body", "command"), COMMANDS)
async def test_each_verb_is_one_command_of_the_caller(house, verb, body, command):
    async with house.client(Scope.OPERATOR) as client:
        answer = await client.post(f"{TASKS}/t-4/{verb}", json=body)
    assert (answer.status_code, answer.json()) == (200, {"id": "t-4", "state": "queued", "lease_epoch": 3, "pending": False})
    assert house.conductor.commands == [command]


async def test_what_ends_only_with_the_agent_is_202(house):
    house.conductor.answer = lambda _: TaskAnswer(n=TaskId(4), state=TaskState.WORKING, lease_epoch=LeaseEpoch(1), pending=True)
    async with house.client(Scope.OPERATOR) as client:
        answer = await client.post(f"{TASKS}/4/cancel")
    assert (answer.status_code, answer.json()["pending"]) == (202, True)


async def test_dispatch_answers_how_many(house):
    async with house.client(Scope.OPERATOR) as client:
        answer = await client.post("/api/v1/dispatch", json={"project": "web", "lane": "critical"})
        bare = await client.post("/api/v1/dispatch")
    assert answer.json() == bare.json() == {"released": 2, "why": ""}
    assert house.conductor.commands[0] == Dispatch(actor="operator", project="web", lane=Lane.URGENT)


async def test_dispatch_goes_on_until_nothing_more_is_held(house):
    steps = iter([Dispatched(released=2, more=True), Dispatched(released=0, why="nothing is held there")])
    house.conductor.answer = lambda _: next(steps)
    async with house.client(Scope.OPERATOR) as client:
        answer = await client.post("/api/v1/dispatch")
    assert answer.json() == {"released": 2, "why": ""}
    assert len(house.conductor.commands) == 2


async def test_an_unreadable_reference_is_a_422_that_shows_the_form(house):
    async with house.client() as client:
        answer = await client.post(f"{TASKS}/seven/hold")
    assert answer.status_code == 422
    assert "write t-17 or 17" in answer.json()["errors"][0]["msg"]


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def listed(house, **params):
    async with house.client(Scope.OBSERVER) as client:
        answer = await client.get(TASKS, params=params)
    assert answer.status_code == 200, answer.text
    return [task["id"] for task in answer.json()["tasks"]], answer.json()["next"]


async def test_lists_are_newest_first_filtered_and_without_checks(house):
    rows = house.rows
    rows.task(1, state="done", lane="high", title="Fix LOGIN page")
    rows.task(2, state="queued", project="web", repo="site")
    rows.task(3, state="working", created_by="eve")
    rows.task(4, type="check", state="queued")
    rows.task(5, state="dead", type="bug")
    rows.attempt(1, 1, agent="bob")
    assert await listed(house) == (["t-5", "t-3", "t-2", "t-1"], None)
    assert (await listed(house, state="pending"))[0] == ["t-2"]
    assert (await listed(house, state="dead_letter"))[0] == ["t-5"]
    assert (await listed(house, live=True))[0] == ["t-3", "t-2"]
    assert (await listed(house, lane="high"))[0] == ["t-1"]
    assert (await listed(house, project="web"))[0] == ["t-2"]
    assert (await listed(house, repo="site"))[0] == ["t-2"]
    assert (await listed(house, agent="bob"))[0] == ["t-1"]
    assert (await listed(house, type="bug"))[0] == ["t-5"]
    assert (await listed(house, type="check"))[0] == ["t-4"]
    assert (await listed(house, created_by="eve"))[0] == ["t-3"]
    assert (await listed(house, text="login"))[0] == ["t-1"]
    assert (await listed(house, state="queued", project="default"))[0] == []


async def test_pages_meet_without_gap_or_repeat(house):
    for n in range(1, 8):
        house.rows.task(n)
    seen, cursor = [], None
    while True:
        found, cursor = await listed(house, limit=3, **({} if cursor is None else {"cursor": cursor}))
        seen += found
        if cursor is None:
            break
    assert seen == [f"t-{n}" for n in range(7, 0, -1)]


async def test_an_unknown_filter_word_names_the_allowed_ones(house):
    async with house.client() as client:
        answer = await client.get(TASKS, params={"state": "stuck", "limit": 0})
    assert answer.status_code == 422
    by_place = {error["loc"]: error["msg"] for error in answer.json()["errors"]}
    assert "one of waiting, scheduled, queued" in by_place["query.state"]
    assert "query.limit" in by_place


async def test_showing_a_task_tells_its_whole_story(house):
    rows = house.rows
    rows.task(1, state="done", title="first")
    rows.task(2, state="working", lease_epoch=2, spec='{"description": "do it"}')
    rows.task(3, state="waiting", title="later")
    rows.insert("task_dep", task=2, needs=1, policy="skip", satisfied=1)
    rows.insert("task_dep", task=3, needs=2, policy="fail", satisfied=0)
    rows.attempt(2, 1, ended_at=NOW, outcome="failed", verdict="applied", error='{"code": "boom"}')
    rows.attempt(2, 2)
    rows.feedback(2, 1)
    rows.insert("question", task=2, lease_epoch=2, qid="q1", text="which?", options='["a", "b"]', asked_at=NOW)
    rows.insert("result", task=2, lease_epoch=1, output="out", commits="[]")
    rows.insert("salvage", task=2, lease_epoch=1, sha256="f" * 64, at=NOW, reason="late", body="{}")
    rows.repository()
    rows.change(4, 2)
    rows.event(1, task=2, data='{"k": 1}')
    rows.event(2, task=2, from_state="queued", to_state="working")
    house.scheduler.explanations[2] = "running on bob"
    house.scheduler.done[2] = (40, "compiling")
    async with house.client(Scope.OBSERVER) as client:
        shown = (await client.get(f"{TASKS}/2")).json()
    assert shown["id"] == "t-2"
    assert shown["spec"] == {"description": "do it"}
    assert shown["capabilities"] == ["python"]
    assert shown["explanation"] == "running on bob"
    assert shown["progress"] == {"percent": 40, "note": "compiling"}
    assert [edge["id"] for edge in shown["depends_on"]] == ["t-1"]
    assert [(edge["id"], edge["policy"]) for edge in shown["needed_by"]] == [("t-3", "fail")]
    assert [attempt["lease_epoch"] for attempt in shown["attempts"]] == [2, 1]
    assert shown["attempts"][1]["error"] == {"code": "boom"}
    assert shown["questions"][0]["options"] == ["a", "b"]
    assert shown["feedback"][0]["text"] == "feedback 1"
    assert shown["result"]["output"] == "out"
    assert shown["salvage"][0]["reason"] == "late"
    assert shown["changes"][0] | {"head_sha": ""} == {
        "id": "c-4",
        "lease_epoch": 1,
        "state": "waiting",
        "tier": 2,
        "cause": None,
        "head_sha": "",
        "merged_sha": None,
    }
    assert [event["seq"] for event in shown["history"]] == [2, 1]
    assert shown["history"][1]["data"] == {"k": 1}


async def test_explaining_falls_back_to_the_row_of_a_finished_task(house):
    house.rows.task(1, state="dead", cause="deadline")
    async with house.client(Scope.OBSERVER) as client:
        assert (await client.get(f"{TASKS}/t-1/explain")).json() == {"id": "t-1", "explanation": "dead: deadline"}
        house.scheduler.explanations[1] = "queued: no agent has ever connected"
        assert (await client.get(f"{TASKS}/t-1/explain")).json()["explanation"].startswith("queued")
        for path in (f"{TASKS}/t-9", f"{TASKS}/t-9/explain"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_task")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (
            {"cause": "held", "data": '{"reason": "after the release"}'},
            "waiting: held (after the release); agentcom task release t-1",
        ),
        ({"cause": "after lunch"}, "waiting: held (after lunch); agentcom task release t-1"),
        ({"cause": "held"}, "waiting: held; agentcom task release t-1"),
    ],
)
async def test_a_held_task_is_explained_in_the_words_of_whoever_held_it(house, held, said):
    house.rows.task(1, state="waiting", held=1, cause="held")
    house.rows.event(1, task=1, kind="task.held", **held)
    house.scheduler.explanations[1] = "waiting: held; agentcom task release t-1"
    async with house.client(Scope.OBSERVER) as client:
        assert (await client.get(f"{TASKS}/t-1/explain")).json()["explanation"] == said
        house.rows.connection.execute("UPDATE task SET held = 0")
        house.scheduler.explanations[1] = "waiting: dependency t-7 is held up"
        assert (await client.get(f"{TASKS}/t-1/explain")).json()["explanation"] == "waiting: dependency t-7 is held up"


def test_an_event_row_is_what_the_history_reads():
    assert EventRow._fields[:3] == ("at", "kind", "actor")


# ── explaining from the records ──────────────────────────────────────────────────────────────────────────────────────


async def explained(house, n):
    async with house.client(Scope.OBSERVER) as client:
        line = (await client.get(f"{TASKS}/{n}/explain")).json()["explanation"]
        assert (await client.get(f"{TASKS}/{n}")).json()["explanation"] == line
    return line


async def test_a_task_in_review_names_its_change_and_who_it_waits_for(house):
    rows = house.rows
    rows.repository()
    rows.task(1, state="in_review", lease_epoch=1)
    house.scheduler.explanations[1] = "in review: its change is with the gatekeeper"
    assert await explained(house, 1) == "in review: its change is with the gatekeeper"
    rows.change(4, 1, tier=3, cause="person_needed: tier 3 needs the approval of a person")
    assert await explained(house, 1) == (
        "in review: c-4 (tier 3) waits for a person: person_needed: tier 3 needs the approval of a person;"
        " agentcom change approve c-4"
    )
    rows.connection.execute("UPDATE change SET cause = 'review_needed: tier 2 needs it'")
    assert "waits for a person or another agent" in await explained(house, 1)
    rows.connection.execute("UPDATE change SET state = 'checking', cause = NULL")
    assert await explained(house, 1) == "in review: c-4 (tier 3) waits for its checks"


async def test_a_dead_task_names_the_check_that_failed(house):
    rows = house.rows
    rows.task(1, state="dead", cause="verification_failed", lease_epoch=2)
    rows.attempt(1, 1, error='{"code": "older", "message": "not this"}')
    rows.attempt(1, 2, error='{"code": "verification_failed", "message": "2 checks"}')
    report = (
        '{"passed": false, "checks": [{"kind": "no_secrets", "target": "", "status": "pass"},'
        ' {"kind": "command_succeeds", "target": "make test", "status": "fail", "output": "lots\\nE: 1 failed\\n"},'
        ' {"kind": "git_clean", "status": "timeout"}]}'
    )
    rows.insert("result", task=1, lease_epoch=2, output="", branch="agentcom/t-1/2", commits="[]", verification=report)
    assert await explained(house, 1) == (
        "dead: verification_failed: command_succeeds make test failed (and 1 more): E: 1 failed;"
        " branch agentcom/t-1/2; attempt 2 on bob"
    )


async def test_a_dead_task_without_checks_says_its_error(house):
    house.rows.task(1, state="dead", cause="lost", lease_epoch=1)
    house.rows.attempt(1, 1, error='{"code": "agent_failed", "message": "exit\\ncode 1"}')
    assert await explained(house, 1) == "dead: lost: agent_failed: exit code 1; attempt 1 on bob"
    house.rows.task(2, state="dead", cause="deadline", deadline=NOW)
    assert await explained(house, 2) == "dead: deadline 2027-01-15T08:00:00Z passed"


async def test_the_reason_of_an_end_is_explained_and_listed(house):
    rows = house.rows
    rows.task(1, state="cancelled", cause="cancel")
    rows.task(2, state="cancelled", cause="dependency")
    rows.task(3, state="cancelled", cause="cancel")
    rows.task(4, state="queued")
    rows.event(1, task=1, kind="task.stopping", data='{"then": "cancelled", "reason": "not needed"}')
    rows.event(2, task=1, kind="task.cancelled")
    rows.event(3, task=2, kind="task.cancelled", data='{"why": "t-9 is dead"}')
    rows.event(4, task=3, kind="task.cancelled", data='{"reason": "an earlier life"}')
    rows.event(5, task=3, kind="task.requeued")
    rows.event(6, task=3, kind="task.cancelled")
    rows.event(7, task=4, kind="task.cancelled", data='{"reason": "before it was requeued"}')
    assert await explained(house, 1) == "cancelled: not needed"
    assert await explained(house, 2) == "cancelled: dependency: t-9 is dead"
    assert await explained(house, 3) == "cancelled: cancel"
    async with house.client(Scope.OBSERVER) as client:
        found = (await client.get(TASKS)).json()["tasks"]
    assert {task["id"]: task["reason"] for task in found} == {
        "t-1": "not needed",
        "t-2": "t-9 is dead",
        "t-3": None,
        "t-4": None,
    }


async def test_a_finished_task_says_what_it_became(house):
    rows = house.rows
    rows.repository()
    rows.task(1, state="done", cause="merged")
    rows.change(4, 1, state="merged", merged_sha="c" * 40)
    assert await explained(house, 1) == f"done: c-4 is merged as {'c' * 12}"
    rows.task(2, state="done", cause="complete")
    rows.event(1, task=2, kind="task.completed", data='{"reason": "fixed by hand"}')
    assert await explained(house, 2) == "done: fixed by hand"


async def test_a_blocked_task_says_what_is_asked_and_how_to_answer(house):
    house.rows.task(1, state="blocked", parked=1, lease_epoch=1)
    house.rows.insert("question", task=1, lease_epoch=1, qid="q", text="which?", options='["a", "b"]', asked_at=NOW)
    house.scheduler.explanations[1] = "blocked (on bob): question q waits for an answer"
    assert (await explained(house, 1)).endswith('waits for an answer: which? (a | b); agentcom task answer t-1 "…"')
