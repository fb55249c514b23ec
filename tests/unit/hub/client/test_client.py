"""The client against the real door: every route has a method, every refusal an exception."""

import hashlib
import inspect
import re
import typing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from hub.client import HubClient, HubProblem, HubUnreachable, documents
from hub.client import backups as backup_documents
from hub.client import db as db_documents
from hub.client import tokens as token_documents
from hub.core.commands import Assign, Cancel, Submit
from hub.core.errors import Refused
from hub.edge.http import (
    agents,
    backups,
    changes,
    db,
    doctor,
    enrolments,
    event_documents,
    probes,
    projects,
    repos,
    salvage_documents,
    status,
    task_bodies,
    task_documents,
    tokens,
)
from hub.edge.http.middleware import PUBLIC
from hub.ids import Scope
from tests.support.doors import SHA


def connect(house, scope=Scope.ADMIN):
    return HubClient("http://hub", house.tokens[scope], transport=httpx2.ASGITransport(house.app))


PAIRS = [
    (documents.Task, task_documents.TaskOut),
    (documents.TaskDetail, task_documents.TaskDetail),
    (documents.TaskPage, task_documents.TaskPage),
    (documents.Edge, task_documents.EdgeOut),
    (documents.Attempt, task_documents.AttemptOut),
    (documents.Question, task_documents.QuestionOut),
    (documents.Feedback, task_documents.FeedbackOut),
    (documents.Result, task_documents.ResultOut),
    (documents.Salvage, salvage_documents.SalvageOut),
    (documents.SalvageDetail, salvage_documents.SalvageDetail),
    (documents.SalvagePage, salvage_documents.SalvagePage),
    (documents.ChangeOfTask, task_documents.ChangeOfTaskOut),
    (documents.Progress, task_documents.ProgressOut),
    (documents.Submitted, task_documents.SubmittedOut),
    (documents.Batch, task_documents.BatchOut),
    (documents.TaskAnswer, task_documents.TaskAnswerOut),
    (documents.Dispatched, task_documents.DispatchedOut),
    (documents.Explanation, task_documents.ExplanationOut),
    (documents.Event, event_documents.EventOut),
    (documents.Agent, agents.AgentOut),
    (documents.AgentDetail, agents.AgentDetail),
    (documents.AgentPage, agents.AgentPage),
    (documents.Transition, agents.TransitionOut),
    (documents.Strike, agents.StrikeOut),
    (documents.AgentAttempt, agents.AgentAttemptOut),
    (documents.Change, changes.ChangeOut),
    (documents.ChangeDetail, changes.ChangeDetail),
    (documents.ChangePage, changes.ChangePage),
    (documents.Review, changes.ReviewOut),
    (documents.Project, projects.ProjectOut),
    (documents.Projects, projects.ProjectList),
    (documents.Repo, repos.RepoOut),
    (documents.Repos, repos.RepoList),
    (documents.Status, status.StatusOut),
    (documents.Examination, doctor.DoctorOut),
    (documents.Finding, doctor.FindingOut),
    (documents.ProbeStarted, probes.ProbeStartedOut),
    (documents.Probe, probes.ProbeOut),
    (db_documents.StoreHealth, db.HealthOut),
    (db_documents.ErrandRound, db.RoundOut),
    (db_documents.Compaction, db.CompactionOut),
    (db_documents.Pruning, db.PruningOut),
    (db_documents.WouldPrune, db.WouldPruneOut),
    (token_documents.Token, tokens.TokenOut),
    (token_documents.Issued, tokens.IssuedOut),
    (token_documents.Tokens, tokens.TokenList),
    (token_documents.Enrolment, enrolments.EnrolmentOut),
    (token_documents.Enrolled, enrolments.EnrolledOut),
    (token_documents.WhoAmI, tokens.WhoAmI),
    (backup_documents.Backup, backups.BackupOut),
    (backup_documents.BackupList, backups.BackupList),
    (documents.NewTask, task_bodies.NewTaskBody),
    (documents.Verification, task_bodies.Verification),
    (documents.FileHint, task_bodies.FileHint),
    (documents.Budget, task_bodies.Budget),
    (documents.DependsOn, task_bodies.DependsOn),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda kind: kind.__name__)
def test_the_clients_documents_name_exactly_the_doors_fields(ours, theirs):
    assert set(typing.get_type_hints(ours)) == set(theirs.model_fields)


def test_every_document_of_the_client_is_compared():
    known = {
        kind
        for module in (documents, token_documents, backup_documents, db_documents)
        for _, kind in inspect.getmembers(module, typing.is_typeddict)
    }
    assert known == {ours for ours, _ in PAIRS}


async def test_every_guarded_route_is_reached_by_a_method(house):
    """Calls each public method once and compares the requests with the schema."""
    seen: set[tuple[str, str]] = set()

    class Recorder(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request):
            seen.add((request.method.lower(), request.url.path))
            return httpx2.Response(200, json={"tasks": [], "next": None})

    fill = {
        "task": "t-1",
        "lease_epoch": "3",
        "agent": "bob",
        "change": "c-1",
        "project": "web",
        "repo": "site",
        "sha256": "0" * 64,
        "token": "5f3a9c01",
        "backup": "20270115T080000Z",
    }
    async with HubClient("http://hub", "x", transport=Recorder()) as hub:
        for call in (
            hub.submit({"title": "x"}),
            hub.submit_batch([{"title": "x"}]),
            hub.tasks(),
            hub.task("t-1"),
            hub.explain("t-1"),
            hub.hold("t-1"),
            hub.release("t-1"),
            hub.assign("t-1"),
            hub.cancel("t-1"),
            hub.complete("t-1", "why"),
            hub.requeue("t-1"),
            hub.answer("t-1", "yes"),
            hub.dispatch(),
            hub.agents(),
            hub.agent("bob"),
            hub.pause_agent("bob"),
            hub.resume_agent("bob"),
            hub.release_agent("bob"),
            hub.remove_agent("bob"),
            hub.start_probe("bob"),
            hub.probe("bob", "t-1"),
            hub.whoami(),
            hub.tokens(),
            hub.issue_token("ann", ["observer"]),
            hub.revoke_token("5f3a9c01"),
            hub.create_enrolment(),
            hub.enrol(install_id="1" * 32, secret_sha256="0" * 64, agents=["bob"], hostname="m1"),
            hub.leave(),
            hub.examine(),
            hub.mend(),
            hub.db_health(),
            hub.compaction(),
            hub.compact(),
            hub.stop_compaction(),
            hub.pruning(),
            hub.would_prune(),
            hub.prune(),
            hub.stop_pruning(),
            hub.changes(),
            hub.change("c-1"),
            hub.diff("c-1"),
            hub.approve("c-1", head_sha=SHA),
            hub.reject("c-1", "no"),
            hub.salvage(),
            hub.salvaged("t-1/3"),
            hub.apply_salvage("t-1/3"),
            hub.drop_salvage("t-1/3", "no"),
            hub.projects(),
            hub.project("web"),
            hub.create_project("web"),
            hub.update_project("web", {}, version=1),
            hub.pause_project("web"),
            hub.resume_project("web"),
            hub.repos(),
            hub.repo("site"),
            hub.add_repo("site", "/srv/site.git"),
            hub.update_repo("site", {}, version=1),
            hub.pause_repo("site"),
            hub.resume_repo("site"),
            hub.status(),
            hub.backups(),
            hub.create_backup(),
            hub.verify_backup("20270115T080000Z"),
            hub.get_blob("0" * 64),
        ):
            await call
        await hub.put_blob(b"x")
    blob = "/api/v1/blobs/" + hashlib.sha256(b"x").hexdigest()
    expected = {
        (method, re.sub(r"\{(\w+)\}", lambda found: fill[found[1]], path))
        for path, item in house.app.openapi()["paths"].items()
        if path not in PUBLIC and path != "/api/v1/events"
        for method in item
    }
    assert seen - {("put", blob)} == expected - {("put", f"/api/v1/blobs/{'0' * 64}")}


async def test_a_submission_arrives_as_it_was_meant(house):
    async with connect(house, Scope.SUBMITTER) as hub:
        done = await hub.submit({"title": "Fix", "lane": "urgent", "depends_on": ["t-3"]}, idempotency_key="k1")
    assert done == {"id": "t-1", "state": "queued", "created": True}
    (command,) = house.conductor.commands
    assert isinstance(command, Submit)
    assert command.tasks[0].idempotency_key == "k1"


async def test_steering_sends_what_was_asked(house):
    async with connect(house) as hub:
        await hub.assign("t-4", "bob", force=True)
        await hub.cancel("4", "wrong")
    assert house.conductor.commands == [
        Assign(actor="admin", n=4, agent="bob", force=True),
        Cancel(actor="admin", n=4, reason="wrong"),
    ]


async def test_every_task_walks_all_pages(house):
    for n in range(1, 6):
        house.rows.task(n)
    async with connect(house) as hub:
        assert [task["id"] async for task in hub.every_task(limit=2)] == ["t-5", "t-4", "t-3", "t-2", "t-1"]


async def test_blobs_go_round(house):
    async with connect(house, Scope.AGENT) as hub:
        sha256 = await hub.put_blob(b"\x00\x01")
        assert await hub.put_blob(b"\x00\x01") == sha256
        assert await hub.get_blob(sha256) == b"\x00\x01"


async def test_a_refusal_is_an_exception_with_everything_the_hub_said(house):
    house.conductor.refuse = Refused(429, "queue_full", "full", hint="wait a little", retry_after_s=30)
    async with connect(house) as hub:
        with pytest.raises(HubProblem) as refused:
            await hub.submit({"title": "x"})
        problem = refused.value
        assert (problem.status, problem.code, problem.detail, problem.hint, problem.retry_after_s) == (
            429,
            "queue_full",
            "full",
            "wait a little",
            30.0,
        )
        assert problem.request_id
        with pytest.raises(HubProblem) as refused:
            await hub.submit({"title": "", "lane": "soon"})
        assert {fault["loc"] for fault in refused.value.errors} == {"title", "lane"}


def hurried(waits, served):
    """A hub that asks to wait, so often and so long, and then serves."""
    answers = iter([*waits, None])

    def answer(request):
        served.append(request.content)
        wait_s = next(answers)
        if wait_s is None:
            return httpx2.Response(200, json={"id": "t-1"})
        return httpx2.Response(429, json={"code": "rate_limited", "detail": "x"}, headers={"Retry-After": str(wait_s)})

    return httpx2.MockTransport(answer)


async def test_a_request_that_came_too_soon_is_sent_again_when_the_hub_said(monkeypatch):
    slept, served = [], []
    monkeypatch.setattr("hub.client.transport.asyncio.sleep", lambda seconds: slept.append(seconds) or done())

    async def done():
        return None

    async with HubClient("http://hub", transport=hurried([3, 0, 7], served)) as hub:
        await hub.submit({"title": "x"})
    assert slept == [3.0, 0.1, 7.0] and len(set(served)) == 1 and len(served) == 4


async def test_patience_is_bounded_and_other_refusals_are_not_waited_out(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr("hub.client.transport.asyncio.sleep", sleep)
    for waits, times in (([61], 0), ([30] * 5, 2)):
        slept.clear()
        async with HubClient("http://hub", transport=hurried(waits, [])) as hub:
            with pytest.raises(HubProblem) as refused:
                await hub.submit({"title": "x"})
        assert (refused.value.code, len(slept)) == ("rate_limited", times)


async def test_a_stale_edit_brings_the_current_record(house):
    house.rows.project("web", version=5)
    async with connect(house) as hub:
        with pytest.raises(HubProblem) as refused:
            await hub.update_project("web", {"name": "x"}, version=4)
    assert refused.value.current["version"] == 5


@pytest.mark.parametrize("body", [b"<html>bad gateway", b"[1]", b""])
async def test_an_answer_without_a_problem_is_one_all_the_same(body):
    transport = httpx2.MockTransport(lambda _: httpx2.Response(502, content=body, headers={"Retry-After": "soon"}))
    async with HubClient("http://hub", transport=transport) as hub:
        with pytest.raises(HubProblem) as refused:
            await hub.status()
    assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (502, "http_502", None)


async def test_no_answer_is_its_own_exception():
    def refuse(_):
        raise httpx2.ConnectError("refused")

    async with HubClient("http://hub:1/", transport=httpx2.MockTransport(refuse)) as hub:
        with pytest.raises(HubUnreachable, match="no answer from http://hub:1: refused"):
            await hub.status()


async def test_the_token_travels_in_the_header_alone():
    seen = []

    def answer(request):
        seen.append(request)
        return httpx2.Response(200, json={})

    async with HubClient("http://hub", "ac_secret", transport=httpx2.MockTransport(answer)) as hub:
        await hub.tasks(text="x")
    assert seen[0].headers["authorization"] == "Bearer ac_secret"
    assert "ac_secret" not in str(seen[0].url)


async def test_a_hub_that_is_not_ready_says_what_is_missing_and_others_only_that(house):
    async with connect(house) as hub:
        house.ready["store"] = False
        assert await hub.readiness() == {"store": False}

    async def proxy(_request):
        return httpx2.Response(502, text="<h1>Bad gateway</h1>")

    async with HubClient("http://hub", transport=httpx2.MockTransport(proxy)) as hub:
        assert await hub.readiness() == {"answers": False}
        assert await hub.clock() is None


async def test_the_hubs_clock_is_known_to_a_second_or_two():
    async def ahead(_request):
        moment = datetime.now(UTC) + timedelta(seconds=90)
        return httpx2.Response(200, headers={"Date": format_datetime(moment, usegmt=True)})

    async with HubClient("http://hub", transport=httpx2.MockTransport(ahead)) as hub:
        apart = await hub.clock()
        assert apart is not None
        assert 87 < apart < 91


@pytest.mark.parametrize("name", ["../projects/default", "..", ".", "site?x=1", "site#x", "a/b", "%2e%2e", "a b", "\x1b[31m"])
async def test_a_name_leads_to_no_other_path(house, name):
    house.rows.project()
    async with connect(house) as hub:
        for ask in (hub.repo(name), hub.pause_project(name)):
            with pytest.raises(HubProblem) as refused:
                await ask
            assert refused.value.status == 404
            assert refused.value.code in ("unknown_repository", "unknown_project", "not_found")
    assert house.conductor.commands == []
