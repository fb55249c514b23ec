"""The HTTP API and what it must refuse: with the right status and code, every fault at once and by its place, and nothing changed.

One line a case: what is sent, what comes back, in ``at`` the places of all its faults, in ``says`` words the answer must have.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from hub.edge.http.problem import MEDIA_TYPE, Problem
from tests.support.living_hub import LivingHub
from tests.support.refusals import check_words, nothing_changes, places

ANSI, BIDI, NUL = "\x1b[31m", "\u202e", "\x00"
SHA, NO_BLOB = "a" * 40, "0" * 64
MINE, OTHERS = hashlib.sha256(b"mine").hexdigest(), hashlib.sha256(b"other").hexdigest()
INSTALL = "1" * 32
GUESS = "ac_00000000_" + "x" * 43


@dataclass(frozen=True, kw_only=True)
class Case:
    id: str
    method: str
    path: str
    status: int
    code: str
    at: list[str]
    says: str
    token: str | None
    request: dict[str, Any] = field(repr=False)


def case(
    id: str, request: str, body: Any = None, answer: str = "422 invalid", *, at: str = "", says: str = "", token: str | None = "admin", **more: Any
) -> Case:  # fmt: skip
    """``body`` is JSON, or bytes that are said to be; ``more`` is the client's (headers, content, data)."""
    method, _, path = request.partition(" ")
    status, _, code = answer.partition(" ")
    if isinstance(body, bytes):
        more = {"content": body, "headers": {"Content-Type": "application/json"} | more.get("headers", {})}
    elif body is not None:
        more["json"] = body
    return Case(
        id=id,
        method=method,
        path=path,
        status=int(status),
        code=code,
        at=sorted(at.split()),
        says=says,
        token=token,
        request=more,
    )


def raw(id: str, body: bytes, says: str, answer: str = "422 invalid", at: str = "body") -> Case:
    """Bytes as a task."""
    return case(id, "POST /tasks", body, answer, at=at, says=says)


def task(id: str, at: str, says: str = "", answer: str = "422 invalid", **fields: Any) -> Case:
    """A task that has these fields and an ordinary title."""
    return case(id, "POST /tasks", {"title": "x"} | fields, answer, at=at, says=says)


def batch(id: str, at: str, *tasks: dict[str, Any], answer: str = "422 invalid_task", says: str = "") -> Case:
    return case(id, "POST /tasks/batch", {"tasks": [{"title": "x"} | one for one in tasks]}, answer, at=at, says=says)


def repo(id: str, at: str, says: str = "", answer: str = "422 invalid", **fields: Any) -> Case:
    """A repository that has these fields and, for the rest, ordinary ones."""
    return case(id, "POST /repos", {"name": "new", "url": "/srv/new.git"} | fields, answer, at=at, says=says)


def base(name: str) -> Case:
    return task(f"base {name[:20]!a}", "base", base=name)


def repo_name(name: str) -> Case:
    return repo(f"name {name[:20]!a}", "name", "begins with a letter or digit", name=name)


def url(address: str, says: str = "cannot be used") -> Case:
    return repo(f"url {address[:40]!a}", "url", says, url=address)


def authorization(value: str, title: str = "") -> Case:
    return case(
        f"authorization {title or value!a}",
        "GET /tasks",
        answer="401 unauthenticated",
        token=None,
        headers={"Authorization": value},
    )


# fmt: off
BODIES = [
    raw("truncated", b'{"title": "x"', "line 1, column 14"),
    raw("member twice", b'{"title": "x", "title": "y"}', "'title' is there twice"),
    raw("NaN", b'{"title": "x", "budget": {"cost": NaN}}', "NaN is no number"),
    raw("infinity", b'{"title": "x", "metadata": {"a": -Infinity}}', "-Infinity is no number"),
    raw("huge number", b'{"title": "x", "max_tries": ' + b"9" * 5000 + b"}", "400 digits"),
    raw("nested deep", b'{"title": "x", "metadata": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, "nested too deep"),
    raw("nothing but brackets", b"[" * 200_000, "nested too deep"),
    raw("not UTF-8", b'{"title": "\xff"}', "not UTF-8 (byte 11)"),
    raw("UTF-16", '{"title": "x"}'.encode("utf-16"), "not UTF-8"),
    raw("byte order mark", b'\xef\xbb\xbf{"title": "x"}', "BOM"),
    raw("half a character", b'{"title": "\\ud800"}', "half a character"),
    raw("half a character in a name", b'{"title": "x", "\\udfff": 1}', "half a character"),
    raw("empty", b"", "it is needed"),
    raw("a list", b"[]", "a JSON object is needed"),
    raw("a word", b'"title"', "a JSON object is needed"),
    raw("null", b"null", "a JSON object is needed"),
    raw("too large", b" " * 1_048_577, "larger than 1048576 bytes", "413 body_too_large", at=""),
    case("no body at all", "POST /tasks", at="body", says="it is needed"),
    case("sent as text", "POST /tasks", b'{"title": "x"}', "415 unsupported_media_type", says="application/json", headers={"Content-Type": "text/plain"}),
    case("sent as a form", "POST /tasks", answer="415 unsupported_media_type", says="www-form", data={"title": "x"}),
    case("sent as nothing", "POST /tasks", answer="415 unsupported_media_type", content=b'{"title": "x"}'),
    case("sent as something with controls", "POST /tasks", b"{}", "415 unsupported_media_type", headers={"Content-Type": "a\x9b/b"}),
]

TASKS = [
    case("no title", "POST /tasks", {}, at="title", says="it is needed"),
    task("title is a number", "title", title=7),
    task("title is null", "title", title=None),
    task("title is empty", "title", title=""),
    task("title is blank", "title", "a visible character", title=" \u00a0"),
    task("title too long", "title", "at most 200", title="x" * 201),
    task("title with an escape", "title", "control, bidirectional", title=f"{ANSI}x"),
    task("title turned round", "title", "control, bidirectional", title=f"x{BIDI}y"),
    task("title with NUL", "title", title=f"x{NUL}y"),
    task("title of two lines", "title", title="x\ny"),
    task("description too long", "description", "10000", description="x" * 10_001),
    task("description with NUL", "description", description=f"a{NUL}b"),
    task("surplus field", "colour", "there is no such field", colour="red"),
    task("surplus field with an escape", r"\x1b[31m\u202e\x9b", "there is no such field", **{f"{ANSI}{BIDI}\x9b": 1}),
    task("unknown lane", "lane", "urgent, high, normal, low", lane="asap"),
    task("unknown lane with an escape", "lane", r"\x1b[31m", lane=ANSI),
    task("lane is a list", "lane", lane=["low"]),
    task("a check is not for people", "type", "task, bug, feature", type="check"),
    task("unknown access", "access", "read_only, write", access="root"),
    task("tries are text", "max_tries", "valid integer", max_tries="3"),
    task("tries are a fraction", "max_tries", max_tries=1.5),
    task("tries are true", "max_tries", max_tries=True),
    task("no tries", "max_tries", "greater than or equal to 1", max_tries=0),
    task("too many tries", "max_tries", max_tries=10**30),
    task("a flag is text", "hold", "valid boolean", hold="yes"),
    raw("money beyond every float", b'{"title": "x", "budget": {"cost": 1e999}}', "finite", at="budget.cost"),
    task("money owed", "budget.cost", budget={"cost": -1}),
    task("no time at all", "budget.wall_s", budget={"wall_s": 0}),
    task("metadata too deep", "metadata", "8 levels", metadata={"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}}),
    task("metadata too large", "metadata", "16384", metadata={"a": "x" * 16_384}),
    task("metadata is a list", "metadata", "a JSON object is needed", metadata=[]),
    task("metadata with a number of 70 bits", "metadata", "64 bits", metadata={"n": 2**70}),
    raw("metadata with a number beyond every float", b'{"title": "x", "metadata": {"n": 1e999}}', "finite", at="metadata"),
    task("65 tags", "tags", "at most 64", tags=["a"] * 65),
    task("tags that are no names", "tags.0 tags.2", "begins with a letter or digit", tags=["A B", "ok", "../x"]),
    task("capability with an escape", "capabilities.0", capabilities=[f"a{ANSI}"]),
    task("moments that are none", "deadline not_before", "+10m", not_before="soon", deadline="2031-01-01"),
    task("moment before 1970", "not_before", "before 1970", not_before="1969-12-31T23:59:59Z"),
    task("delay of centuries", "not_before", "ten years", "422 invalid_task", not_before="+999999d"),
    task("deadline in the past", "deadline", "in the past", "422 invalid_task", deadline="2001-01-01T00:00:00Z"),
    task("paths that leave the workspace", "file_hints.0.path file_hints.1.path", "does not leave it", file_hints=[{"path": "/etc/passwd"}, {"path": "a/../../b"}]),
    task("check of a path outside", "verification.0.target", "does not leave it", verification=[{"kind": "file_exists", "target": "../../etc/shadow"}]),
    task("check without a command", "verification.0", "needs argv", verification=[{"kind": "command_succeeds"}]),
    task("check of an unknown kind", "verification.0.kind", "no_secrets", verification=[{"kind": "magic"}]),
    task("argv is a shell line", "verification.0.argv", "a JSON list", verification=[{"kind": "command_succeeds", "argv": "rm -rf /"}]),
    task("argv with NUL", "verification.0.argv.1", verification=[{"kind": "command_succeeds", "argv": ["ls", f"a{NUL}b"]}]),
    task("65 words in argv", "verification.0.argv", verification=[{"kind": "command_succeeds", "argv": ["a"] * 65}]),
    task("check of a day", "verification.0.timeout_s", "3600", verification=[{"kind": "git_clean", "timeout_s": 86_400}]),
    task("nothing it names exists", "depends_on.0 parent project repo", "known: site", "422 invalid_task", project="nope", repo="nope", depends_on=["t-999"], parent="t-998"),
    task("needs a ref of no batch", "depends_on.0", "no item of this batch", "422 invalid_task", depends_on=["first"]),
    task("needs itself", "depends_on", "a → a", "422 invalid_task", ref="a", depends_on=["a"]),
    task("needs with an unknown policy", "depends_on.0.policy", "'skip'", depends_on=[{"task": "t-1", "policy": "ignore"}]),
    task("parent is a number", "parent", "write t-17", parent=10**30),
    task("parent is no reference", "parent", "write t-17", parent="t-0"),
    task("ref reads like a task", "ref", "must not read like", ref="t-1"),
    task("change without a repository", "needs_change", "needs a repository", "422 invalid_task", repo=None, needs_change=True),
    task("agent that cannot exist", "assign_to", "an agent's id", assign_to="Ann Other"),
    task("three faults", "colour lane title", title="", lane="asap", colour=1),
    task("faults at every depth", "budget.wall_s file_hints.0.path lane tags.0 title verification.0.kind", title="", lane="x", tags=["A"], budget={"wall_s": -1}, file_hints=[{"path": ""}], verification=[{"kind": 3}]),
    task("101 faults, of which 100 are listed", " ".join(["tags", *(f"x{n:03}" for n in range(99))]), "101 faults", tags=7, **{f"x{n:03}": 1 for n in range(100)}),
]

KEYS = [
    task("key used for another body", "idempotency_key", "was used for t-1", "409 idempotency_conflict", idempotency_key="used"),
    task("unique key taken", "unique_key", "held by t-2", "409 unique_key_taken", unique_key="taken"),
    task("empty key", "idempotency_key", idempotency_key=""),
    task("key with an escape", "unique_key", unique_key=ANSI),
    case("two different keys", "POST /tasks", {"title": "x", "idempotency_key": "a"}, "422 two_keys", says="send one of them", headers={"Idempotency-Key": "b"}),
    case("key too long in the header", "POST /tasks", {"title": ""}, at="header.idempotency-key title", headers={"Idempotency-Key": "k" * 129}),
    batch("taken keys beside an unknown project", "tasks.0.idempotency_key tasks.1.unique_key tasks.2.project", {"idempotency_key": "used"}, {"unique_key": "taken"}, {"project": "nope"}),
    batch("one key twice", "tasks.1.idempotency_key", {"idempotency_key": "k"}, {"idempotency_key": "k", "title": "y"}, answer="409 idempotency_conflict"),
]

BATCHES = [
    case("an empty batch", "POST /tasks/batch", {"tasks": []}, at="tasks", says="at least 1"),
    case("a batch of 1001", "POST /tasks/batch", {"tasks": [{"title": "x"}] * 1001}, at="tasks", says="at most 1000"),
    batch("every item has a fault", "tasks.0.title tasks.1.titel tasks.2.lane", {"title": ""}, {"titel": "x"}, {"lane": 1}, answer="422 invalid"),
    batch("two knots", "tasks.0.depends_on tasks.2.depends_on", {"ref": "a", "depends_on": ["b"]}, {"ref": "b", "depends_on": ["a"]}, {"ref": "c", "depends_on": ["c"]}, says="c → c"),
    batch("refs twice and nowhere", "tasks.1.depends_on.0 tasks.1.ref", {"ref": "a"}, {"ref": "a", "depends_on": ["b"]}, says="refs: a"),
]

NAMES = [
    *map(base, ["../x", "a/../b", "-x", "--output=x", "refs/heads/x", "x.lock", "x@{1}", "a~b", "a^b", "a:b", "a?b", "a*b", "a[b", "a\\b"]),
    *map(base, ["a b", "HEAD", "@", "/a", "a/", "a//b", ".a", "a/.b", "", f"a{BIDI}b", f"a{NUL}", "x" * 201]),
    *map(repo_name, ["../x", "-x", "X", "a/b", "", "x" * 65, ".git", "é", f"a{ANSI}"]),
    *map(url, ["ext::sh -c id", "--upload-pack=touch x", "-oProxyCommand=id", "relative/path", "http://host/x", "git://host/x", "file://host/x"]),
    *map(url, ["ssh://-oProxyCommand=id/x", "ssh://a b/x", "host:x\ny", f"/srv/{BIDI}x", "https://host/%0ax", "https://[::1", ""]),
    url("/" + "x" * 2048, "at most 2048"),
    url("https://ann:secret@host/x.git", "credentials"),
    url("https://token@host/x.git", "credentials"),
    repo("address of no repository", "url", "no git repository", "422 not_a_repository", url="file:///nowhere/at/all"),
    repo("address nobody answers at", "url", "can read it with git", "422 remote_unavailable", url="https://git.invalid/x.git"),
    repo("everything about a repository", "base checks.0.kind name policy.colour policy.tier1_lines url", name="-X", url="ext::x", base="--output", policy={"tier1_lines": -1, "colour": 2}, checks=[{"kind": "x"}]),
    repo("policy with an unknown word", "policy.merge", "'merge' or 'squash'", policy={"merge": "rebase"}),
    repo("policy too large", "policy", "65536", policy={"protected": ["x" * 70_000]}),
    repo("checks are one check", "checks", "a JSON list", checks={"kind": "git_clean"}),
    repo("an option in argv is data, a NUL is not", "checks.0.argv.1", checks=[{"kind": "command_succeeds", "argv": ["--version", f"--x{NUL}"]}]),
]

EDITS = [
    case("edit without a version", "PATCH /repos/site", {"base": "main"}, "428 version_required", says="If-Match"),
    case("edit of another version", "PATCH /projects/default", {"name": "x", "version": 7}, "412 stale_version", says="at version 1"),
    case("If-Match that is no version", "PATCH /repos/site", {"base": "-x"}, at="base header.if-match", headers={"If-Match": "*"}),
    case("If-Match in other digits", "PATCH /repos/site", {"base": "main"}, at="header.if-match", headers={"If-Match": "\u00b2"}),
    case("version is text", "PATCH /projects/default", {"name": "x", "version": "1"}, at="version"),
    case("edit of what is not known", "PATCH /repos/nope", {"base": "main", "version": 1}, "404 unknown_repository", says="agentcom repo list"),
    case("everything about a project", "POST /projects", {"id": "../x", "name": "", "dispatch": "x", "default_repo": "A", "color": 1}, at="color default_repo dispatch id name"),
    case("project of unknown repositories", "POST /projects", {"id": "new", "repos": ["a", "b"], "default_repo": "c"}, at="default_repo repos.0 repos.1"),
    case("project that exists", "POST /projects", {"id": "default"}, "409 project_exists", says="agentcom project show"),
]

PATHS = [
    case("unknown path", "GET /nothing", answer="404 not_found", says="/docs"),
    case("slash at the end", "GET /tasks/", answer="404 not_found", says="without the slash at the end: '/api/v1/tasks'"),
    case("path that climbs", "GET /tasks/..%2f..%2fhealthz", answer="404 not_found"),
    case("path with an escape", "GET /nothing/%1b%5b31m%e2%80%ae", answer="404 not_found"),
    case("wrong method", "DELETE /tasks/t-1", answer="405 method_not_allowed", says="GET"),
    case("invented method", "BREW /tasks", answer="405 method_not_allowed", says="possible is"),
    case("task that is none", "GET /tasks/x", at="path.task", says="write t-17"),
    case("task beyond all numbers", "GET /tasks/t-99999999999999999999", at="path.task"),
    case("task with NUL", "GET /tasks/t-1%00", at="path.task"),
    case("task nobody submitted", "GET /tasks/t-999", answer="404 unknown_task", says="agentcom task list"),
    case("agent that cannot be", "GET /agents/No%20Body", at="path.agent"),
    case("agent nobody knows", "POST /agents/nobody/pause", answer="404 unknown_agent", says="agentcom agent list"),
    case("project with an escape", "GET /projects/%1b%5b31m", answer="404 unknown_project", says=r"\x1b[31m"),
    case("repository turned round", "POST /repos/%e2%80%ae/pause", answer="404 unknown_repository"),
    case("change nobody proposed", "GET /changes/c-9/diff", answer="404 unknown_change", says="agentcom change list"),
    case("blob under no digest", "PUT /blobs/xyz", at="path.sha256", says="64 of 0-9 a-f", token="agent", content=b"x"),
    case("blob under another's digest", f"PUT /blobs/{NO_BLOB}", answer="422 digest_mismatch", says="2d711642", token="agent", content=b"x"),
    case("blob too large", f"PUT /blobs/{NO_BLOB}", answer="413 body_too_large", says="8388608", token="agent", content=b"x" * 8_388_609),
    case("pruning by another verb", "PUT /db/pruning", answer="405 method_not_allowed", says="possible is GET"),
    case("blob nobody stored", f"GET /blobs/{NO_BLOB}", answer="404 unknown_blob", token="agent"),
]

QUERIES = [
    case("page of nothing", "GET /tasks?limit=0", at="query.limit"),
    case("page of everything", "GET /tasks?limit=201", at="query.limit"),
    case("page that is no number", "GET /changes?limit=x&cursor=1.5", at="query.cursor query.limit"),
    case("cursor beyond all numbers", "GET /tasks?cursor=99999999999999999999999", at="query.cursor"),
    case("cursor of another list", "GET /agents?cursor=No%20Body", at="query.cursor"),
    case("filter twice", "GET /tasks?state=done&state=dead&a%1b=1&a%1b=2", at=r"query.a\x1b query.state", says="more than once"),
    case("misspelt filter", "GET /tasks?stat=dead&limit=0", at="query.limit query.stat", says="there is no such field"),
    case("unknown words", "GET /tasks?state=asleep&lane=asap&type=x", at="query.lane query.state query.type", says="in_review"),
    case("agents in an unknown state", "GET /agents?state=x", at="query.state", says="offline, idle"),
    case("flag that is none", "GET /tasks?live=maybe", at="query.live"),
    case("text with NUL", "GET /tasks?text=%00", at="query.text"),
    case("names that are none", "GET /tasks?project=../x&repo=-x&agent=A", at="query.agent query.project query.repo"),
    case("position that is none", "GET /events?after=here", at="query.after", says="<feed_epoch>:<seq>"),
    case("positions that are none", "GET /events?task=x&agent=A", at="header.last-event-id query.agent query.task", headers={"Last-Event-ID": "a:b:c"}),
    case("position beyond all numbers", "GET /events?after=a:99999999999999999999", at="query.after"),
]

STEERING = [
    *(case(f"{verb} of an unknown task", f"POST /tasks/t-999/{verb}", body, "404 unknown_task", says="agentcom task list") for verb, body in {
        "hold": None, "release": None, "assign": {"agent": "owner"}, "cancel": {}, "complete": {"reason": "x"}, "requeue": None, "answer": {"text": "x"}}.items()),
    case("assign to nobody", "POST /tasks/t-1/assign", {"agent": "nobody"}, "404 unknown_agent", says="agentcom agent list"),
    case("assign with three faults", "POST /tasks/t-1/assign", {"agent": "A B", "force": "yes", "x": 1}, at="agent force x"),
    case("complete without a reason", "POST /tasks/t-1/complete", {"reason": ""}, at="reason", says="at least 1 character"),
    case("hold with an escape", "POST /tasks/t-1/hold", {"reason": ANSI}, at="reason"),
    case("requeue what is not finished", "POST /tasks/t-1/requeue", answer="409 wrong_state", says="agentcom task explain t-1"),
    case("cancel what is finished", "POST /tasks/t-3/cancel", {}, "409 wrong_state", says="is done"),
    case("hold what is worked on", "POST /tasks/t-4/hold", {}, "409 wrong_state", says="is working"),
    case("answer without a question", "POST /tasks/t-4/answer", {"text": "x"}, "409 no_question", says="agentcom task show t-4"),
    case("answer with NUL, to no question", "POST /tasks/t-4/answer", {"text": NUL, "qid": ""}, at="qid text"),
    case("dispatch of an unknown project", "POST /dispatch", {"project": "nope"}, "404 unknown_project", says="agentcom project list"),
    case("dispatch with two faults", "POST /dispatch", {"project": "../x", "lane": "asap"}, at="lane project"),
    case("approve a head that is none", "POST /changes/c-9/approve", {"head_sha": "main"}, at="head_sha", says="40 or 64"),
    case("approve an unknown change", "POST /changes/c-9/approve", {"head_sha": SHA, "confirmed": True}, "404 unknown_change", says="agentcom change list"),
    case("approve as an operator, without a person", "POST /changes/c-9/approve", {"head_sha": SHA}, "403 confirmation_needed", says="agentcom change approve"),
    case("salvage nobody kept", "GET /salvage/t-9/1", answer="404 unknown_salvage", says="agentcom salvage list"),
    case("salvage of no task and no lease", "GET /salvage/x/-1", at="path.task path.lease_epoch"),
    case("page of salvage that nobody gave out", "GET /salvage?cursor=x&task=0&open=perhaps", at="query.cursor query.open query.task"),
    case("apply what nobody kept", "POST /salvage/t-9/1/apply", {}, "404 unknown_salvage", says="agentcom salvage list"),
    case("apply with a force that is a word", "POST /salvage/t-9/1/apply", {"force": "yes", "by": "me"}, at="by force"),
    case("drop what nobody kept", "POST /salvage/t-9/1/drop", {"reason": "x"}, "404 unknown_salvage", says="agentcom salvage list"),
    case("drop without a reason", "POST /salvage/t-9/1/drop", {"reason": ""}, at="reason"),
    case("reject without a reason", "POST /changes/c-9/reject", {"final": "no"}, at="final reason"),
]

AUTHORISATION = [
    case("no token", "GET /tasks", answer="401 unauthenticated", says="Bearer ac_", token=None),
    case("no token to an unknown path", "GET /nothing", answer="401 unauthenticated", token=None),
    *map(authorization, ["", "Bearer", "Bearer \t.", "Basic YTpi", f"Bearer {GUESS}", GUESS, "Bearer \xff", "Bearer a b c", "Bearer {admin}x"]),
    authorization("Bearer " + "x" * 8000, "of 8000 characters"),
    authorization("Bearer {mixed}", "one's id and another's secret"),
    case("token in the address", "GET /tasks?token={admin}", answer="401 unauthenticated", token=None),
    case("token in the address as well", "GET /tasks?token=x", at="query.token"),
    case("a sidecar submits", "POST /tasks", {"title": "x"}, "403 forbidden", says="scope submitter", token="agent"),
    case("an approver submits", "POST /tasks", {"title": "x"}, "403 forbidden", token="approver"),
    case("an observer cancels", "POST /tasks/t-1/cancel", {}, "403 forbidden", says="scope operator", token="observer"),
    case("an administrator stores a blob", f"PUT /blobs/{NO_BLOB}", answer="403 forbidden", says="scope agent", content=b"x"),
    case("an operator registers a repository", "POST /repos", {"name": "x", "url": "/srv/x"}, "403 forbidden", token="operator"),
]

IDENTITY = [
    case("an operator mints an administrator", "POST /tokens", {"name": "me", "scopes": ["admin"]}, "403 forbidden", says="scope admin", token="operator"),
    case("an operator makes a code", "POST /enrolments", {}, "403 forbidden", token="operator"),
    case("a sidecar lists tokens", "GET /tokens", answer="403 forbidden", token="agent"),
    case("backup by a path", "POST /backups/..%2F..%2Fetc/verify", answer="404 not_found"),
    case("backup of no moment", "POST /backups/newest/verify", at="path.backup", says="the moment it was begun"),
    case("backup nobody made", "POST /backups/20000101T000000Z/verify", answer="404 unknown_backup"),
    case("an observer revokes", "DELETE /tokens/00000000", answer="403 forbidden", token="observer"),
    case("scopes that are none", "POST /tokens", {"name": "x", "scopes": ["root", "enrol", "agent:", "agent:A B", f"agent:{ANSI}"]}, at="scopes.0 scopes.1 scopes.2 scopes.3 scopes.4", says="agent:<id>"),
    case("no scopes", "POST /tokens", {"name": "x", "scopes": []}, at="scopes"),
    case("an approver in an agent's reach, in the hub's name", "POST /tokens", {"name": "hub", "scopes": ["approver", "agent:w1"]}, at="name scopes", says="issue two tokens"),
    case("everything about a token", "POST /tokens", {"name": "A B", "scopes": "admin", "person": "yes", "expires_s": 1, "secret": "x"}, at="expires_s name person scopes secret"),
    case("a token for ten thousand years", "POST /tokens", {"name": "x", "scopes": ["observer"], "expires_s": 10**12}, at="expires_s"),
    case("revoke what is no id", "DELETE /tokens/XYZ", at="path.token", says="8 of 0-9 a-f"),
    case("revoke what nobody issued", "DELETE /tokens/00000000", answer="404 unknown_token", says="agentcom token list"),
    case("revoke the last administrator", "DELETE /tokens/{admin_id}", answer="409 last_admin", says="issue another"),
    case("a code for a day", "POST /enrolments", {"expires_s": 86_400}, at="expires_s"),
    case("a code submits", "POST /tasks", {"title": "x"}, "403 forbidden", token="enrol"),
    case("a code leaves", "POST /leave", answer="403 forbidden", token="enrol"),
    case("an administrator enrols", "POST /enrol", {"install_id": INSTALL, "secret_sha256": OTHERS, "agents": ["m1"]}, "403 forbidden", says="scope enrol"),
    case("everything about a machine", "POST /enrol", {"install_id": "x", "secret_sha256": "x", "agents": [], "hostname": ANSI, "scopes": ["admin"]}, at="agents hostname install_id scopes secret_sha256", token="enrol"),
    case("agents that cannot be", "POST /enrol", {"install_id": INSTALL, "secret_sha256": OTHERS, "agents": ["m1", "M 1", "../m"]}, at="agents.1 agents.2", token="enrol"),
    case("a sidecar that never joined leaves", "POST /leave", answer="409 not_enrolled", says="agentcom token revoke", token="agent"),
    case("an administrator leaves", "POST /leave", answer="403 forbidden", says="scope agent"),
    case("a sidecar probes another's agent", "POST /agents/owner/probe", answer="403 forbidden", says="its own token", token="elsewhere"),
    case("a sidecar reads another's probe", "GET /agents/owner/probe/t-1", answer="403 forbidden", token="elsewhere"),
    case("an observer probes", "POST /agents/owner/probe", answer="403 forbidden", token="observer"),
    case("probe of nobody", "POST /agents/nobody/probe", answer="404 unknown_agent", says="start its sidecar"),
    case("probe that is a task", "GET /agents/owner/probe/t-4", answer="404 unknown_probe"),
]
# fmt: on

CASES = [*BODIES, *TASKS, *KEYS, *BATCHES, *NAMES, *EDITS, *PATHS, *QUERIES, *STEERING, *AUTHORISATION, *IDENTITY]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_is_wrong_is_refused_whole_and_clearly(hub: LivingHub, case: Case) -> None:
    with nothing_changes(hub):
        answer = hub.ask(case.method, filled(case.path, hub), token=case.token, **filled(case.request, hub))
    assert (answer.status_code, answer.headers["content-type"]) == (case.status, MEDIA_TYPE), answer.text
    problem = Problem.model_validate(answer.json())
    assert (problem.status, problem.code) == (case.status, case.code)
    assert places([fault.model_dump() for fault in problem.errors]) == case.at
    assert problem.errors or problem.hint, "neither a place nor a cure"
    assert case.says in " ".join([problem.detail, problem.hint or "", *(fault.msg for fault in problem.errors)])
    assert len(answer.content) < 65_536
    check_words(answer.text, hub)


def filled(value: Any, hub: LivingHub) -> Any:
    """Tokens of this hub in a path or in headers: ``{admin}``, its id, and ``{mixed}`` of one's id and another's secret."""
    if isinstance(value, dict):
        return {
            key: {name: filled(text, hub) for name, text in inner.items()} if key == "headers" else inner
            for key, inner in value.items()
        }
    admin, operator = hub.tokens["admin"], hub.tokens["operator"]
    words = {"{admin}": admin, "{admin_id}": admin.split("_")[1], "{mixed}": admin[:12] + operator[12:]}
    for word, token in words.items():
        value = value.replace(word, token)
    return value.encode("latin-1") if not value.isascii() else value


def test_a_used_code_makes_no_second_machine_and_no_machine_takes_anothers_names(hub: LivingHub) -> None:
    hub.tokens["once"] = hub.made("POST", "/enrolments", {})["code"]
    first = {"install_id": INSTALL, "secret_sha256": MINE, "agents": ["m1"]}
    assert hub.ask("POST", "/enrol", token="once", json=first).status_code == 200
    with nothing_changes(hub):
        for change in ({"install_id": "2" * 32, "agents": ["m2"]}, {"secret_sha256": OTHERS}):
            answer = hub.ask("POST", "/enrol", token="once", json=first | change)
            assert (answer.status_code, answer.json()["code"]) == (409, "enrolment_used")
            assert "agentcom enrol create" in answer.json()["hint"]
    with nothing_changes(hub):
        taken = hub.ask("POST", "/enrol", token="enrol", json=first | {"install_id": "3" * 32, "agents": ["free", "m1"]})
        assert (taken.status_code, taken.json()["code"], places(taken.json()["errors"])) == (409, "name_taken", ["agents.1"])


def test_a_revoked_code_and_a_token_that_was_given_back_open_nothing(hub: LivingHub) -> None:
    made = hub.made("POST", "/enrolments", {})
    hub.tokens["revoked"] = made["code"]
    hub.made("DELETE", f"/tokens/{made['id']}")
    hub.enrol("leaver", install_id="9" * 32, agents=["leaver"])
    assert hub.ask("POST", "/leave", token="leaver").status_code == 204
    body = {"install_id": INSTALL, "secret_sha256": OTHERS, "agents": ["m9"]}
    with nothing_changes(hub):
        for token, path in (
            ("revoked", "/enrol"),
            ("revoked", "/whoami"),
            ("leaver", "/leave"),
            ("leaver", "/agents/leaver/probe"),
        ):
            answer = hub.ask(
                "GET" if path == "/whoami" else "POST", path, token=token, json=None if path == "/whoami" else body
            )
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
