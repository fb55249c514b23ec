"""The hub keeps what its OpenAPI document promises: generated requests, valid and not, at a real hub.

Whatever is sent: no 5xx, a documented status, a documented content type, a body of the documented shape; and what the document forbids is
refused. The same requests every time; ``HYPOTHESIS=long`` makes many more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from hub.ids import Scope
from tests.support.doors import House
from tests.support.living_hub import PATIENT, LivingHub, living_hub
from tests.support.reviewed import a_change_that_waits

LONG = os.environ.get("HYPOTHESIS") == "long"
PROFILE = settings(
    max_examples=400 if LONG else 15,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
UNCOUNTED = PATIENT | {f"AGENTCOM_DAMPERS_{tier}_PER_MIN": "0" for tier in ("LIGHT", "NORMAL", "HEAVY", "DENIED")}
LEAVE = "POST /api/v1/leave"
READS = ("GET", "HEAD")
MOST_BYTES = 400 * 1024 * 1024
"""What a hub of this size may take whatever it is asked: it starts with a quarter of that, and a leak of requests would pass it soon."""
STREAM = "GET /api/v1/events"
"""Never ends: it has a test of its own."""


def document() -> dict[str, Any]:
    house = House()
    try:
        return house.app.openapi()
    finally:
        house.close()


REFUSALS = ["401", "403", "404", "405", "409", "413", "415", "422", "428"]
CONFIG = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}})
SCHEMA = schemathesis.openapi.from_dict(document(), config=CONFIG)
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}

REQUESTS = [
    (label, mode)
    for label in OPERATIONS
    for mode in GenerationMode
    if label != STREAM and (mode is GenerationMode.POSITIVE or "/api/" in label)  # outside there is nothing to get wrong
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LivingHub]:
    """A hub with something of everything: tasks in most states, an agent, a change that waits, tokens."""
    # whatever is asked is to be answered for itself, however often it was asked before
    with living_hub(tmp_path_factory.mktemp("hub"), UNCOUNTED) as hub:
        hub.issue("approver", Scope.APPROVER)
        hub.tokens["code"] = hub.made("POST", "/enrolments", {})["code"]
        hub.made("POST", "/tasks", {"title": "held", "hold": True})
        peer, _ = hub.working("worker")
        a_change_that_waits(hub)
        yield hub
        peer.close()
        assert hub.complaints() == []


def bearer(hub: LivingHub, label: str) -> dict[str, str]:
    """A token with the scope the operation needs; leaving costs one each time."""
    if label == LEAVE:
        return {"Authorization": f"Bearer {hub.enrol('leaver', install_id='9' * 32, agents=['leaver'])}"}
    name = "code" if label == "POST /api/v1/enrol" else "agent" if label.startswith("PUT /api/v1/blobs") else "admin"
    return {"Authorization": f"Bearer {hub.tokens[name]}"}


@pytest.mark.parametrize(
    ("label", "asked", "statuses"),
    [
        ("POST /api/v1/tasks", {"body": {"title": "again", "idempotency_key": "again"}}, [201, 200]),
        ("POST /api/v1/tasks/batch", {"body": {"tasks": [{"title": "again", "idempotency_key": "once more"}]}}, [201, 200]),
        ("POST /api/v1/tasks/{task}/cancel", {"path_parameters": {"task": "t-2"}, "body": {}}, [202, 202]),
        ("PUT /api/v1/blobs/{sha256}", {"path_parameters": {"sha256": sha256(b"x").hexdigest()}, "body": b"x"}, [201, 204]),
        ("GET /api/v1/changes/{change}", {"path_parameters": {"change": "c-1"}}, [200]),
        ("GET /api/v1/changes/{change}/diff", {"path_parameters": {"change": "c-1"}}, [200]),
        ("PATCH /api/v1/projects/{project}", {"path_parameters": {"project": "default"}, "body": {"version": 99}}, [412]),
        ("GET /api/v1/tasks/{task}", {"path_parameters": {"task": "t-3"}}, [200]),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_chance_seldom_asks_is_kept_too(hub: LivingHub, label: str, asked: dict[str, Any], statuses: list[int]) -> None:
    """Repeats, work in progress, a change with all its parts, an edit of what is no more. First, while the hub is as it was made."""
    for status in statuses:
        case = OPERATIONS[label].Case(method=label.split()[0], **asked)
        answer = case.call(base_url=hub.url, headers=bearer(hub, label))
        assert answer.status_code == status
        case.validate_response(answer, checks=CHECKS[:-1])


@pytest.mark.parametrize(("label", "mode"), REQUESTS, ids=lambda part: getattr(part, "value", part))
def test_the_document_is_kept(hub: LivingHub, label: str, mode: GenerationMode) -> None:
    obeyed: list[object] = [label] if label == LEAVE else []  # which takes a token that was made for it
    before = hub.state()

    @PROFILE
    @given(OPERATIONS[label].as_strategy(generation_mode=mode))
    def keeps(case: schemathesis.Case) -> None:
        # a list of one or none cannot be told from a value, or from nothing, in an address
        assume(not any(isinstance(value, list) and len(value) < 2 for value in (case.query or {}).values()))
        answer = case.call_and_validate(base_url=hub.url, headers=bearer(hub, label), checks=CHECKS, timeout=30)
        obeyed.extend([answer.status_code] if answer.status_code < 400 and label.split()[0] not in READS else [])

    keeps()
    assert obeyed or hub.state() == before, "what only read, or was refused, changed something"
    assert hub.complaints() == []
    assert hub.resident_bytes() < MOST_BYTES


def test_the_stream_of_events_is_what_the_document_says(hub: LivingHub) -> None:
    """Its first words: the stream itself never ends."""
    content = OPERATIONS[STREAM].definition.raw["responses"]["200"]["content"]
    with hub.http.stream("GET", "/events", headers=bearer(hub, STREAM)) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] in content
        assert next(answer.iter_lines()) == "event: start"
