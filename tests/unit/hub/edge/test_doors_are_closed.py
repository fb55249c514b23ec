"""Deny by default: every route but the public ones asks for a token and for a scope, and errors show nothing."""

import dataclasses

import httpx2
import pytest
from fastapi import APIRouter

from hub.core.errors import OutcomeUnknown, Refused
from hub.edge.http import app as http_app
from hub.edge.http import create_http
from hub.edge.http.middleware import PUBLIC
from hub.edge.ratelimit import Limiter, Rates
from hub.ids import Scope
from tests.support.doors import House


def operations(house: House) -> list[tuple[str, str]]:
    """Every (method, path) of the schema, with its parameters filled in."""
    fill = {
        "{task}": "t-1",
        "{agent}": "bob",
        "{change}": "c-1",
        "{project}": "default",
        "{repo}": "site",
        "{sha256}": "0" * 64,
        "{token}": "5f3a9c01",
    }
    found = []
    for template, item in house.app.openapi()["paths"].items():
        path = template
        for name, value in fill.items():
            path = path.replace(name, value)
        found += [(method, path) for method in item]
    return found


async def test_every_route_but_the_public_ones_refuses_a_caller_without_token(house):
    async with house.client(None) as client:
        for method, path in operations(house):
            answer = await client.request(method, path)
            if path in PUBLIC:
                assert answer.status_code == 200, path
            else:
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.headers["content-type"] == "application/problem+json"
        assert (await client.get("/no/such/path")).status_code == 401


async def test_a_token_in_the_query_opens_nothing(house):
    async with house.client(None) as client:
        answer = await client.get("/api/v1/tasks", params={"token": house.tokens[Scope.ADMIN]})
        assert answer.status_code == 401
        assert house.tokens[Scope.ADMIN] not in answer.text


async def test_one_identity_is_slowed_down_and_wrong_tokens_are_and_nobody_else(house):
    limiter = Limiter(Rates(light=3, denied=2))
    http = create_http(dataclasses.replace(house.doors, limiter=limiter))
    transport = httpx2.ASGITransport(http)

    async def ask(token):
        async with httpx2.AsyncClient(transport=transport, base_url="http://hub") as client:
            return await client.get("/api/v1/projects", headers={"Authorization": f"Bearer {token}"})

    observer, admin = house.tokens[Scope.OBSERVER], house.tokens[Scope.ADMIN]
    answers = [await ask(observer) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    told = answers[-1]
    assert (told.json()["code"], told.headers["content-type"]) == ("rate_limited", "application/problem+json")
    assert int(told.headers["retry-after"]) >= 1 and "dampers.light_per_min" in told.json()["hint"]
    assert [(await ask("nonsense")).status_code for _ in range(3)] == [401, 401, 429]
    assert (await ask(admin)).status_code == 200, "a good token is served from an address that sends wrong ones, too"


def test_a_route_that_demands_no_scope_cannot_be_mounted(house, monkeypatch):
    forgetful = APIRouter()

    @forgetful.get("/secrets")
    async def secrets() -> dict[str, str]:
        return {}

    monkeypatch.setattr(http_app, "NOUNS", (*http_app.NOUNS, forgetful))
    with pytest.raises(RuntimeError, match="/api/v1/secrets demands no scope"):
        create_http(house.doors)


async def test_an_unexpected_error_shows_only_the_request_id(house):
    house.conductor.refuse = ZeroDivisionError("the inner secret")
    async with house.client() as client:
        answer = await client.post("/api/v1/tasks/t-1/release")
    assert answer.status_code == 500
    body = answer.json()
    assert body["code"] == "internal"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "inner secret" not in answer.text
    assert "Traceback" not in answer.text


async def test_refusals_carry_code_hint_and_retry_after(house):
    house.conductor.refuse = Refused(429, "queue_full", "250000 tasks are live", hint="wait", retry_after_s=30)
    async with house.client() as client:
        answer = await client.post("/api/v1/tasks", json={"title": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert answer.json() | {"request_id": None} == {
        "type": "urn:agentcom:problem:queue_full",
        "title": "Queue full",
        "status": 429,
        "detail": "250000 tasks are live",
        "code": "queue_full",
        "errors": [],
        "hint": "wait",
        "request_id": None,
    }


async def test_an_unknown_outcome_is_a_503_that_asks_to_repeat(house):
    house.conductor.refuse = OutcomeUnknown("it may have been committed")
    async with house.client() as client:
        answer = await client.post("/api/v1/tasks", json={"title": "x"})
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "outcome_unknown", "1")


async def test_unknown_paths_and_methods_are_problems_too(house):
    async with house.client() as client:
        missing = await client.get("/api/v1/nothing")
        wrong = await client.delete("/api/v1/tasks/t-1")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET"


@pytest.mark.parametrize("body", [b"{", b"[" * 200_000, b'"x"', b"\xff\xfe", b""])
async def test_unreadable_bodies_are_refused_not_failed(house, body):
    async with house.client() as client:
        answer = await client.post("/api/v1/tasks", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert house.conductor.commands == []


async def test_a_body_beyond_the_limit_is_413_whether_declared_or_not(house):
    async def chunks():
        for _ in range(20):
            yield b" " * 65_536

    async with house.client() as client:
        declared = await client.post("/api/v1/tasks", content=b" " * 1_048_577, headers={"Content-Type": "application/json"})
        silent = await client.post("/api/v1/tasks", content=chunks(), headers={"Content-Type": "application/json"})
    for answer in (declared, silent):
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_no_token_reaches_the_log_of_a_failure(house, capsys):
    house.conductor.refuse = ZeroDivisionError("boom")
    async with house.client() as client:
        await client.post("/api/v1/tasks/t-1/release")
    printed = capsys.readouterr()
    assert "request_failed" in printed.out + printed.err
    assert house.tokens[Scope.ADMIN] not in printed.out + printed.err


async def test_health_readiness_metrics(house):
    async with house.client(None) as client:
        assert (await client.get("/healthz")).json() == {"ok": True}
        assert (await client.get("/readyz")).status_code == 200
        house.ready["store"] = False
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"ready": False, "checks": {"store": False}, "degraded": []})
        house.ready["store"] = True
        house.degraded = ["disk_full"]
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["degraded"]) == (200, ["disk_full"]), "agents at work need the hub"
        metrics = await client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")


async def test_docs_load_nothing_from_elsewhere(house):
    async with house.client(None) as client:
        page = await client.get("/docs")
        parts = [page, await client.get("/docs/docs.css"), await client.get("/docs/docs.js")]
        schema = (await client.get("/openapi.json")).json()
    assert all(part.status_code == 200 for part in parts)
    assert all("http://" not in part.text and "https://" not in part.text and "//cdn" not in part.text for part in parts)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "innerHTML" not in parts[2].text
    assert schema["paths"]["/api/v1/tasks"]["post"]["security"] == [{"token": []}]
    assert "security" not in schema["paths"]["/healthz"]["get"]
    assert "HTTPValidationError" not in schema["components"]["schemas"]


async def test_the_error_of_a_broken_stream_ends_the_connection_not_the_door(house):
    house.rows.event(1)
    house.feed.last_seq = 1
    house.feed.ring = [(1, object())]  # a defect: an entry that is no event
    async with house.client() as client:
        with pytest.raises((AttributeError, httpx2.HTTPError)):
            await client.get("/api/v1/events", headers={"Last-Event-ID": "e1:0"})
        assert (await client.get("/healthz")).status_code == 200
