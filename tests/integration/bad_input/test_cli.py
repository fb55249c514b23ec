"""The command line and what people type wrong: the right exit code, every fault at once with its place, no traceback, nothing changed.

One line a case: what is typed, how it ends, and in ``says`` words that must be on stderr. ``{dir}`` holds the files of :func:`typed`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer import testing
from typer.main import get_command
from typer.testing import CliRunner, Result

from hub.cli.exits import Exit
from hub.cli.root import app
from tests.support.living_hub import LivingHub
from tests.support.refusals import check_words, nothing_changes

ANSI, BIDI, NUL = "\x1b[31m", "\u202e", "\x00"
USAGE, REFUSED, UNREACHABLE, NOT_FOUND, UNAUTHORISED = (
    Exit.USAGE,
    Exit.REFUSED,
    Exit.UNREACHABLE,
    Exit.NOT_FOUND,
    Exit.UNAUTHORISED,
)
GUESS = "ac_00000000_" + "x" * 43


@dataclass(frozen=True, kw_only=True)
class Case:
    id: str
    argv: tuple[str, ...]
    exit: Exit
    says: tuple[str, ...]
    stdin: bytes | None
    env: dict[str, str] = field(repr=False)
    aim: tuple[str, ...] | None


def case(
    id: str, *argv: str, exit: Exit = USAGE, says: str | tuple[str, ...], stdin: bytes | None = None, env: dict[str, str] | None = None,
    aim: tuple[str, ...] | None = None,
) -> Case:  # fmt: skip
    """``aim`` replaces the options that lead to the hub with an administrator's token."""
    says = (says,) if isinstance(says, str) else says
    return Case(id=id, argv=argv, exit=exit, says=says, stdin=stdin, env=env or {}, aim=aim)


def submit(id: str, *options: str, says: str | tuple[str, ...], exit: Exit = REFUSED, **more: Any) -> Case:
    return case(id, "task", "submit", "a title", *options, exit=exit, says=says, **more)


def add(id: str, *options: str, says: str | tuple[str, ...], exit: Exit = REFUSED) -> Case:
    return case(id, "repo", "add", *options, exit=exit, says=says)


def address(value: str) -> Case:
    return case(
        f"address {value[:30]!a}",
        "status",
        aim=("--url", value),
        says="is not the address of a hub; write it like http://127.0.0.1:8790",
    )


# fmt: off
AIM = [
    *map(address, ["nonsense", "ftp://host", "http://", "http://host:99999", "http://[::1", "http://ann:secret@127.0.0.1", "http://a b", f"http://host/{ANSI}", f"http://{BIDI}host", ""]),
    case("address in the environment", "status", aim=(), env={"AGENTCOM_URL": "x"}, says="AGENTCOM_URL"),
    case("address where nobody is", "status", aim=("--url", "http://127.0.0.1:1"), exit=UNREACHABLE, says=("no answer from http://127.0.0.1:1", "agentcom server start-dev")),
    case("address behind the command", "task", "list", "--url", "http://127.0.0.1:1", says="It stands before the command"),
    case("token file that is missing", "status", aim=("--token-file", "{dir}/missing"), says=("No such file", "{dir}/missing")),
    case("token file that is a directory", "status", aim=("--token-file", "{dir}"), says="Is a directory"),
    case("token file that is empty", "status", aim=("--token-file", "{dir}/empty"), says=("does not hold a token", "one word on one line")),
    case("token file that is binary", "status", aim=("--token-file", "{dir}/binary"), says="does not hold a token"),
    case("token file of two lines", "status", aim=("--token-file", "{dir}/two.json"), says="does not hold a token"),
    case("token file with an escape", "status", aim=("--token-file", "{dir}/escape"), says="does not hold a token"),
    case("token in the environment that is none", "status", aim=("--url", "{url}"), env={"AGENTCOM_TOKEN": "ac_é\x01"}, says="AGENTCOM_TOKEN does not hold a token"),
    case("token nobody issued", "status", aim=("--url", "{url}"), env={"AGENTCOM_TOKEN": GUESS}, exit=UNAUTHORISED, says=("[unauthenticated]", "--token-file")),
    case("token of a sidecar", "task", "list", aim=("--url", "{url}"), env={"AGENTCOM_TOKEN": "{agent}"}, exit=UNAUTHORISED, says="this needs the scope observer"),
]

USES = [
    case("unknown command", "tusk", says="No such command 'tusk'"),
    case("unknown command with an escape", f"{ANSI}{BIDI}", says=r"\x1b[31m\u202e"),
    case("unknown option", "task", "list", "--stat", says="No such option: --stat"),
    case("unknown option with an escape", "task", "list", f"--{ANSI}{BIDI}", says=r"--\x1b[31m\u202e"),
    case("surplus argument with an escape", "task", "show", "t-1", f"{ANSI}{BIDI}", says=r"\x1b[31m\u202e"),
    case("argument missing", "task", "show", says="Missing argument 'TASK'"),
    case("option missing", "task", "complete", "t-1", says="Missing option '--reason'"),
    case("half a character", "task", "show", "t-\udcff", says="argument 7 is not text in UTF-8"),
    case("page of nothing", "task", "list", "--limit", "0", says="greater than or equal to 1"),
    case("page of less", "agent", "list", "--limit", "-5", says="greater than or equal to 1"),
    case("page of a word", "change", "list", "--limit", "many", says="valid integer"),
    case("page beyond all numbers", "task", "list", "--limit", "9" * 30, says="less than or equal to 200"),
    case("cursor that is none", "task", "list", "--cursor", "x", exit=REFUSED, says="query.cursor"),
    case("filters that are none", "task", "list", "--state", "asleep", "--lane", "asap", "--project", "../x", exit=REFUSED, says=("query.state", "query.lane", "query.project", "in_review")),
    case("task that is none", "task", "show", "x", says="write t-17 or 17"),
    case("task with an escape", "task", "explain", f"{ANSI}{BIDI}", says=r"\x1b[31m\u202e"),
    case("task like an option", "task", "show", "-1", says="No such option: -1"),
    case("task like an option, meant so", "task", "show", "--", "-1", says="is not a task reference"),
    case("task nobody submitted", "task", "watch", "t-999", exit=NOT_FOUND, says=("there is no task t-999", "agentcom task list")),
    case("change that is none", "change", "diff", "c-0", says="write c-4 or 4"),
    case("salvage that is none", "salvage", "show", "t-17", says="write t-17/3: the task and its lease"),
    case("salvage nobody kept", "salvage", "apply", "t-1/9", exit=NOT_FOUND, says=("nothing is kept of t-1/9", "agentcom salvage list")),
    case("salvage of a task nobody submitted", "salvage", "list", "--task", "t-999", exit=NOT_FOUND, says="there is no task t-999"),
    case("drop salvage without a reason", "salvage", "drop", "t-1/1", says="--reason"),
    case("assign to nobody in particular", "task", "assign", "t-1", says=("name an agent, or say --auto", "agentcom agent list")),
    case("assign to two", "task", "assign", "t-1", "ann", "--auto", says="name an agent, or say --auto"),
    case("approve without a terminal", "change", "approve", "c-9", says=("asks a person", "--yes")),
    case("hold with an escape", "task", "hold", "t-1", "--reason", f"{ANSI}", exit=REFUSED, says="reason: control, bidirectional"),
    case("answer that is nothing", "task", "answer", "t-4", "", exit=REFUSED, says="text: String should have at least 1 character"),
    case("an agent that cannot be", "agent", "show", "../status", says="names are 1 to 64 of a-z 0-9 - _ ."),
    case("an agent without a name", "agent", "pause", "", says="names are 1 to 64"),
    case("a repository elsewhere", "repo", "pause", "../agents/owner", says="names are 1 to 64"),
    case("a repository and a question", "repo", "show", "site?x=1", says="names are 1 to 64"),
    case("a project with an escape", "project", "show", f"{ANSI}{BIDI}", says=r"\x1b[31m\u202e"),
    case("nothing to change", "project", "update", "default", says=("nothing to change", "--help")),
    case("version that is none", "repo", "update", "site", "--version", "0", "--base", "x", says="greater than or equal to 1"),
    case("version of yesterday", "repo", "update", "site", "--version", "7", "--base", "main", exit=REFUSED, says=("[stale_version]", "at version 1")),
    case("token without a scope", "token", "create", "ann", says="needs --scope or --agent"),
    case("token with faults", "token", "create", "A B", "-s", "root", "-s", "admin", "-a", "x y", exit=REFUSED, says=("name:", "scopes.0:", "scopes.2:")),
    case("token for a while", "token", "create", "ann", "-s", "observer", "--expires", "soon", says="write it like 15m, 12h or 30d"),
    case("token that is none", "token", "revoke", "x", exit=REFUSED, says="8 of 0-9 a-f"),
    case("code for a day", "enrol", "create", "--expires", "1d", exit=REFUSED, says="expires_s: Input should be less than or equal to 3600"),
]

SUBMISSIONS = [
    case("nothing", "task", "submit", says=("give a title, or tasks with --from FILE", "--help")),
    case("a title and a file", "task", "submit", "x", "--from", "{dir}/two.json", says="give a title, or tasks with --from FILE"),
    case("a title with NUL and an escape", "task", "submit", f"x{NUL}{ANSI}", exit=REFUSED, says="title: control, bidirectional"),
    submit("six faults", "--lane", "asap", "--type", "check", "--tag", "A B", "--max-tries", "0", "--wall", "-1", "--complexity", "x", says=("lane:", "type:", "tags.0:", "max_tries:", "budget.wall_s:", "complexity:")),
    submit("nothing it names exists", "--project", "nope", "--repo", "nope", "--after", "t-999", says=("project:", "repo:", "depends_on.0:")),
    submit("moments that are none", "--not-before", "soon", "--deadline", "2031", says=("not_before:", "deadline:", "+10m")),
    submit("base like an option", "--base=--output=x", says="base: '--output=x' cannot be the name of a branch"),
    submit("base that climbs", "--base", "../main", says="base:"),
    submit("key that no header carries", "--key", "é", exit=USAGE, says="1 to 128 printable ASCII"),
    submit("key of two lines", "--key", "a\nb", exit=USAGE, says="1 to 128 printable ASCII"),
    submit("key that is nothing", "--key", "", exit=USAGE, says="1 to 128 printable ASCII"),
    submit("three inputs that cannot be read", "-d", "@{dir}/missing", "--verify", '"open', "--verify", "file_exists:", exit=USAGE, says=("{dir}/missing cannot be read: No such file", "No closing quotation", "file_exists needs :PATH")),
    submit("check that is nothing", "--verify", "", exit=USAGE, says="--verify takes a command"),
    submit("check outside", "--verify", "file_exists:../x", says="verification.0.target"),
    submit("description of nothing", "-d", "@", exit=USAGE, says="a file is named behind the @"),
    submit("description that is binary", "-d", "@{dir}/binary", exit=USAGE, says="not text in UTF-8 (byte 0)"),
    submit("description that is a directory", "-d", "@{dir}", exit=USAGE, says="Is a directory"),
    submit("description that is too large", "-d", "@{dir}/large.json", exit=USAGE, says="larger than 1048576 bytes"),
    submit("description from a broken pipe", "-d", "-", stdin=b"\xff\xfe", exit=USAGE, says="- is not text in UTF-8"),
    *(case(f"tasks from {name}", "task", "submit", "--from", "{dir}/" + name, says=says) for name, says in {
        "missing": "No such file", "empty": "Expecting value (line 1, column 1)", "binary": "not UTF-8", "large.json": "larger than 1048576 bytes", "deep.json": "nested too deep",
        "nan.json": "NaN is no number", "twice.json": "'title' is there twice", "scalar.json": "neither a task nor a list of tasks", "null.json": "neither a task nor a list of tasks"}.items()),
    case("tasks with faults", "task", "submit", "--from", "{dir}/two.json", exit=REFUSED, says=("tasks.0.title:", "tasks.1.titel:", "tasks.1.title:")),
    case("tasks that are words", "task", "submit", "--from", "{dir}/words.json", exit=REFUSED, says="tasks.0: a JSON object is needed"),
    case("1001 tasks", "task", "submit", "--from", "{dir}/many.json", exit=REFUSED, says="tasks: List should have at most 1000 items"),
    case("tasks from a pipe that broke", "task", "submit", "--from", "-", stdin=b'[{"title":', says="- is not valid JSON"),
]

REPOSITORIES = [
    add("a name like an option", "-X", "/srv/x.git", exit=USAGE, says="No such option: -X"),
    add("an address like an option", "new", "--upload-pack=touch x", exit=USAGE, says="No such option: --upload-pack"),
    add("an address like an option, meant so", "new", "--", "--upload-pack=touch x", says=("url:", "no git repository at")),
    add("an address of nothing", "new", "", says="url:"),
    add("an address that runs commands", "../x", "ext::sh -c id", "--base", "--output", says=("name:", "url:", "base:")),
    add("an address with a password", "new", "https://ann:secret@host/x", says="credential store"),
    add("an address of no repository", "new", "{dir}", says=("url:", "no git repository at")),
    add("policy and checks that cannot be read", "new", "/srv/x", "--policy", "{", "--checks", "@{dir}/missing", exit=USAGE, says=("--policy is not valid JSON", "{dir}/missing cannot be read")),
    add("policy of NaN, checks nested deep", "new", "/srv/x", "--policy", "NaN", "--checks", "[" * 50_000, exit=USAGE, says=("--policy is not valid JSON: NaN", "--checks is not valid JSON: it is nested too deep")),
    add("policy and checks of the wrong kind", "new", "/srv/x", "--policy", "[]", "--checks", "{}", says=("policy: a JSON object is needed", "checks: a JSON list is needed")),
    add("policy with unknown fields", "new", "/srv/x", "--policy", f'{{"colour": 1, "{BIDI}": 2, "merge": "rebase"}}', says=("policy.colour: there is no such field", r"policy.\u202e:", "policy.merge:")),
]
# fmt: on

CASES = [*AIM, *USES, *SUBMISSIONS, *REPOSITORIES]
COMMAND = get_command(app)


@pytest.fixture
def typed(hub: LivingHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], Result]:
    """Types a case at a command line whose files are in ``tmp_path``."""
    monkeypatch.setattr(testing, "_get_command", lambda _: COMMAND)  # the tree of commands takes 0.1 s to build: once is enough
    monkeypatch.chdir(tmp_path)
    files: dict[str, bytes] = {
        "token": hub.tokens["admin"].encode() + b"\n",
        "empty": b"",
        "binary": b"\xff\xfe\x00\x01",
        "escape": f"ac_{ANSI}{BIDI}".encode(),
        "large.json": b'[{"title": "' + b"x" * 1_048_577 + b'"}]',
        "deep.json": b"[" * 100_000,
        "nan.json": b'[{"title": "x", "budget": {"cost": NaN}}]',
        "twice.json": b'[{"title": "x", "title": "y"}]',
        "scalar.json": b"7",
        "null.json": b'{"tasks": null}',
        "two.json": b'[{"title": ""},\n {"titel": "x"}]',
        "words.json": b'["fix it"]',
        "many.json": json.dumps([{"title": "x"}] * 1001).encode(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    def type_(case: Case) -> Result:
        aim = case.aim if case.aim is not None else ("--url", hub.url, "--token-file", str(tmp_path / "token"))
        argv = [filled(arg, hub, tmp_path) for arg in (*aim, *case.argv)]
        env = {
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "AGENTCOM_DATA_DIR": str(tmp_path / "nowhere"),
            "AGENTCOM_URL": None,
            "AGENTCOM_TOKEN": None,
        }
        env |= {name: filled(value, hub, tmp_path) for name, value in case.env.items()}
        return CliRunner(env=env).invoke(app, argv, input=case.stdin)

    return type_


def filled(text: str, hub: LivingHub, files: Path) -> str:
    return text.replace("{dir}", str(files)).replace("{url}", hub.url).replace("{agent}", hub.tokens["agent"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_is_typed_wrong_ends_clearly_and_changes_nothing(
    hub: LivingHub, case: Case, typed: Callable[[Case], Result], tmp_path: Path
) -> None:
    with nothing_changes(hub):
        done = typed(case)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert (done.exit_code, done.stdout) == (case.exit, ""), done.stderr
    for words in case.says:
        assert filled(words, hub, tmp_path) in done.stderr
    check_words(done.stderr, hub)


def test_errors_are_one_json_object_where_json_was_asked_for(typed: Callable[[Case], Result]) -> None:
    refused = typed(case("", "task", "submit", "", "--lane", "asap", "--json", says=""))
    assert sorted(fault["loc"] for fault in json.loads(refused.stderr)["errors"]) == ["lane", "title"]
    unread = typed(case("", "task", "submit", "--from", "{dir}/deep.json", "--json", says=""))
    assert json.loads(unread.stderr)["code"] == "usage"
    assert unread.stderr.isascii()


@pytest.mark.parametrize("argument", [b"t-\xff", b"\x1b[31mt-1", b"--\x1b[31m"])
def test_a_real_process_ends_the_same_way(hub: LivingHub, argument: bytes) -> None:
    argv = [sys.executable, "-m", "hub.cli", "--url", hub.url, "task", "show", argument]
    done = subprocess.run(
        argv, check=False, env={**os.environ, "NO_COLOR": "1", "AGENTCOM_TOKEN": hub.tokens["observer"]}, capture_output=True
    )
    assert done.returncode == Exit.USAGE
    assert b"Traceback" not in done.stderr and b"\x1b" not in done.stderr
    assert b"Usage: " in done.stderr or b"is not text in UTF-8" in done.stderr
