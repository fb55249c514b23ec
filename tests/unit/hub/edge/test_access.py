"""Who may do what: every route of the document with every scope, against one table. What the table does not name is allowed to nobody."""

import pytest

from hub.edge.http.middleware import PUBLIC
from hub.ids import Scope

ADMIN, OPERATOR, APPROVER = Scope.ADMIN, Scope.OPERATOR, Scope.APPROVER
SUBMITTER, OBSERVER, AGENT, ENROL = Scope.SUBMITTER, Scope.OBSERVER, Scope.AGENT, Scope.ENROL

READS = {ADMIN, OPERATOR, APPROVER, SUBMITTER, OBSERVER}
SUBMITS = {ADMIN, OPERATOR, SUBMITTER}
STEERS = {ADMIN, OPERATOR}
REVIEWS = {ADMIN, OPERATOR, APPROVER}
ADMINISTRATES = {ADMIN}

ACCESS = {
    "GET /agents": READS,
    "GET /agents/{agent}": READS,
    "POST /agents/{agent}/pause": STEERS,
    "POST /agents/{agent}/resume": STEERS,
    "POST /agents/{agent}/release": STEERS,
    "POST /agents/{agent}/remove": STEERS,
    "POST /agents/{agent}/probe": STEERS | {AGENT},
    "GET /agents/{agent}/probe/{task}": STEERS | {AGENT},
    "GET /backups": ADMINISTRATES,
    "POST /backups": ADMINISTRATES,
    "POST /backups/{backup}/verify": ADMINISTRATES,
    "PUT /blobs/{sha256}": {AGENT},
    "GET /blobs/{sha256}": READS | {AGENT},
    "GET /changes": READS,
    "GET /changes/{change}": READS,
    "GET /changes/{change}/diff": READS,
    "POST /changes/{change}/approve": REVIEWS,
    "POST /changes/{change}/reject": REVIEWS,
    "GET /db/compaction": STEERS,
    "POST /db/compaction": ADMINISTRATES,
    "DELETE /db/compaction": ADMINISTRATES,
    "GET /db/health": STEERS,
    "GET /db/pruning": STEERS,
    "GET /db/pruning/preview": STEERS,
    "POST /db/pruning": ADMINISTRATES,
    "DELETE /db/pruning": ADMINISTRATES,
    "POST /dispatch": STEERS,
    "GET /doctor": STEERS,
    "POST /doctor": ADMINISTRATES,
    "POST /enrol": {ENROL},
    "POST /enrolments": ADMINISTRATES,
    "GET /events": READS,
    "GET /projects": READS,
    "POST /projects": ADMINISTRATES,
    "GET /projects/{project}": READS,
    "PATCH /projects/{project}": ADMINISTRATES,
    "POST /projects/{project}/pause": STEERS,
    "POST /projects/{project}/resume": STEERS,
    "GET /repos": READS,
    "POST /repos": ADMINISTRATES,
    "GET /repos/{repo}": READS,
    "PATCH /repos/{repo}": ADMINISTRATES,
    "POST /repos/{repo}/pause": STEERS,
    "POST /repos/{repo}/resume": STEERS,
    "GET /salvage": READS,
    "GET /salvage/{task}/{lease_epoch}": READS,
    "POST /salvage/{task}/{lease_epoch}/apply": STEERS,
    "POST /salvage/{task}/{lease_epoch}/drop": STEERS,
    "GET /status": READS,
    "GET /tasks": READS,
    "POST /tasks": SUBMITS,
    "POST /tasks/batch": SUBMITS,
    "GET /tasks/{task}": READS,
    "GET /tasks/{task}/explain": READS,
    **{
        f"POST /tasks/{{task}}/{verb}": STEERS
        for verb in ("answer", "assign", "cancel", "complete", "hold", "release", "requeue")
    },
    "GET /tokens": ADMINISTRATES,
    "POST /tokens": ADMINISTRATES,
    "DELETE /tokens/{token}": ADMINISTRATES,
    "GET /whoami": set(Scope),
    "POST /leave": {AGENT},  # last: it ends the token it is asked with
}
"""Route → the scopes whose token alone may use it."""

FILL = {
    "task": "t-1",
    "lease_epoch": "1",
    "agent": "bob",
    "change": "c-1",
    "project": "default",
    "repo": "site",
    "sha256": "0" * 64,
    "token": "0" * 8,
    "backup": "20270115T080000Z",
}


def test_every_route_is_in_the_table(house):
    routes = {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for path, item in house.app.openapi()["paths"].items()
        if path not in PUBLIC
        for method in item
    }
    assert routes == set(ACCESS)


@pytest.mark.parametrize("scope", [*Scope, None], ids=lambda scope: scope or "nobody")
async def test_a_token_opens_what_the_table_says_and_nothing_else(house, scope):
    opened = set()
    async with house.client(scope) as client:
        for route in ACCESS:
            method, path = route.split()
            answer = await client.request(method, "/api/v1" + path.format(**FILL), json=None if method == "GET" else {})
            code = answer.json()["code"] if answer.status_code in (401, 403) else ""
            if scope is None:
                assert (answer.status_code, code) == (401, "unauthenticated"), route
            if code not in ("forbidden", "unauthenticated"):
                opened.add(route)
    assert opened == {route for route, scopes in ACCESS.items() if scope in scopes}
