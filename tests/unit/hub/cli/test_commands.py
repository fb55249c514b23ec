"""What commands send, print and answer to the shell."""

import json

import pytest
import typer

from hub.cli import changes, render, session
from hub.cli.exits import MEANINGS, Exit, of_status
from hub.core.commands import Answer, Assign, Complete, Dispatch, Hold, Submit
from hub.core.decision import TaskAnswer
from hub.core.errors import Refused
from hub.core.rows import EventRow
from hub.ids import LeaseEpoch, Scope, TaskId, TaskState
from tests.support.doors import NOW, SHA


def submitted(house):
    (command,) = house.conductor.commands
    assert isinstance(command, Submit)
    return command.tasks


# ── submitting ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_options_become_one_submission(house, agentcom):
    house.rows.project()
    done = agentcom(
        *("task", "submit", "Fix the login", "-d", "more", "--type", "bug", "-l", "critical", "-r", "site", "--read-only"),
        *("--needs", "python", "--needs", "db", "-a", "bob", "--after", "t-3", "--not-before", "+10m", "--hold"),
        *("--verify", 'pytest -q "a b"', "--verify", "no_secrets", "--verify", "file_exists:a.txt", "--file", "a.py"),
        *("--criterion", "works", "--tag", "ui", "--wall", "60", "--max-tries", "2", "--no-change", "--key", "k1"),
    )
    assert (done.exit_code, done.stdout) == (0, "t-1 is queued\n")
    (task,) = submitted(house)
    spec = json.loads(task.spec)
    assert (task.title, task.type, task.lane, task.repo, task.access) == ("Fix the login", "bug", "urgent", "site", "read_only")
    assert (task.capabilities, task.assign_to, task.hold, task.max_tries) == (("db", "python"), "bob", True, 2)
    assert (task.needs_change, task.idempotency_key, task.depends_on[0].needs) == (False, "k1", 3)
    assert [check["kind"] for check in spec["verification"]] == ["command_succeeds", "no_secrets", "file_exists"]
    assert spec["verification"][0]["argv"] == ["pytest", "-q", "a b"]
    assert spec["budget"] == {"wall_s": 60}


def test_submitting_prints_json_on_demand(house, agentcom):
    assert json.loads(agentcom("task", "submit", "x", "--json").stdout) == {"id": "t-1", "state": "queued", "created": True}


@pytest.mark.parametrize("shape", ['[{"title": "a"}, {"title": "b"}]', '{"tasks": [{"title": "a"}, {"title": "b"}]}'])
def test_a_file_of_tasks_is_one_batch(house, agentcom, tmp_path, shape):
    file = tmp_path / "ideas.json"
    file.write_text(shape)
    assert agentcom("task", "submit", "--from", str(file)).exit_code == 0
    assert [task.title for task in submitted(house)] == ["a", "b"]


def test_a_batch_and_a_description_come_from_stdin(house, agentcom):
    assert agentcom("task", "submit", "--from", "-", stdin='{"title": "a"}').exit_code == 0
    assert [task.title for task in submitted(house)] == ["a"]
    house.conductor.commands.clear()
    agentcom("task", "submit", "x", "-d", "-", stdin="long words")
    assert json.loads(submitted(house)[0].spec) == {"description": "long words"}


@pytest.mark.parametrize(
    "argv",
    [(), ("x", "--from", "f"), ("--from", "/nonexistent"), ("x", "--verify", 'unclosed "quote'), ("x", "--wall", "soon")],
)
def test_wrong_usage_is_2_and_sends_nothing(house, agentcom, argv):
    assert agentcom("task", "submit", *argv).exit_code == Exit.USAGE
    assert house.conductor.commands == []


def test_every_fault_of_a_submission_is_printed(house, agentcom):
    done = agentcom("task", "submit", "x", "-l", "soon", "--type", "chore")
    assert done.exit_code == Exit.REFUSED
    assert "lane: 'soon' is not allowed; one of urgent" in done.stderr
    assert "type: 'chore' is not allowed" in done.stderr
    assert done.stdout == ""


# ── steering ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (("hold", "t-4", "--reason", "wait"), Hold(actor="admin", n=TaskId(4), reason="wait")),
        (("assign", "4", "bob", "--force"), Assign(actor="admin", n=TaskId(4), agent="bob", force=True)),
        (("assign", "4", "--auto"), Assign(actor="admin", n=TaskId(4))),
        (("complete", "4", "--reason", "done"), Complete(actor="admin", n=TaskId(4), reason="done")),
        (("answer", "4", "yes", "-q", "q1"), Answer(actor="admin", n=TaskId(4), text="yes", qid="q1")),
    ],
)
def test_task_verbs_send_their_command(house, agentcom, argv, command):
    done = agentcom("task", *argv)
    assert (done.exit_code, done.stdout) == (0, "t-4 is queued\n")
    assert house.conductor.commands == [command]


@pytest.mark.parametrize("verb", ["release", "cancel", "requeue"])
def test_plain_verbs_answer_json_too(house, agentcom, verb):
    assert json.loads(agentcom("task", verb, "t-4", "--json").stdout)["id"] == "t-4"


def test_assigning_needs_an_agent_or_auto_but_not_both(house, agentcom):
    assert agentcom("task", "assign", "4").exit_code == Exit.USAGE
    assert agentcom("task", "assign", "4", "bob", "--auto").exit_code == Exit.USAGE
    assert house.conductor.commands == []


def test_what_waits_for_the_agent_says_so(house, agentcom):
    house.conductor.answer = lambda _: TaskAnswer(n=TaskId(4), state=TaskState.WORKING, lease_epoch=LeaseEpoch(1), pending=True)
    assert "takes effect when its agent has stopped" in agentcom("task", "cancel", "4").stdout


def test_dispatch_says_how_many(house, agentcom):
    assert agentcom("project", "dispatch", "web", "--lane", "high").stdout == "2 released\n"
    assert house.conductor.commands == [Dispatch(actor="admin", project="web", lane="high")]


# ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def ends(house, state):
    house.rows.task(4, state="working")
    moves = [("queued", "assigned"), ("working", state)]
    house.feed.coming = [
        (seq, EventRow(NOW, "task.moved", "hub", 4, from_state=before, to_state=after))
        for seq, (before, after) in enumerate(moves, start=1)
    ]


@pytest.mark.parametrize(("state", "code"), [("done", Exit.OK), ("dead", Exit.NOT_DONE), ("cancelled", Exit.NOT_DONE)])
def test_watching_ends_with_the_task(house, agentcom, state, code):
    ends(house, state)
    done = agentcom("task", "watch", "t-4")
    assert done.exit_code == code
    assert done.stdout.count(f"working → {state}") == 1


def test_watching_as_json_prints_one_event_a_line(house, agentcom):
    ends(house, "done")
    assert [json.loads(line)["seq"] for line in agentcom("task", "watch", "4", "--json").stdout.splitlines()] == [1, 2]


def test_watching_a_finished_task_ends_at_once(house, agentcom):
    house.rows.task(4, state="done")
    assert agentcom("task", "watch", "4").exit_code == Exit.OK


# ── approving ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def change(house):
    house.rows.repository()
    house.rows.task(1, state="in_review")
    house.rows.change(4, 1)
    return house


@pytest.fixture
def terminal(monkeypatch):
    """A person at a terminal who types the given lines."""

    def attach(typed: str) -> None:
        lines = iter(typed.splitlines(keepends=True))

        class Stdin:
            def isatty(self):
                return True

            def readline(self):
                return next(lines, "")

        monkeypatch.setattr(changes.sys, "stdin", Stdin())
        monkeypatch.setattr(render, "is_terminal", lambda: True)

    return attach


def approve_in_terminal(capsys):
    from hub.cli.root import app

    with pytest.raises(SystemExit) as ended:
        app(["change", "approve", "c-4", "-m", "fine"], prog_name="agentcom")
    return ended.value.code, capsys.readouterr()


def test_approving_shows_what_it_is_about_and_asks(change, terminal, capsys):
    change.scope = Scope.OPERATOR
    terminal("diff\ny\n")
    code, printed = approve_in_terminal(capsys)
    assert code == 0
    assert "no check is registered" in printed.out
    assert "1 file, +3 -1" in printed.out
    assert "+new" in printed.out
    assert change.gatekeeper.reviews == [("approve", 4, "operator", True, SHA, "fine")]


@pytest.mark.parametrize("typed", ["n\n", "\n", "", "yep\n"])
def test_anything_but_yes_approves_nothing(change, terminal, capsys, typed):
    terminal(typed)
    code, printed = approve_in_terminal(capsys)
    assert code == Exit.REFUSED
    assert "nothing was changed" in printed.err
    assert change.gatekeeper.reviews == []


def test_without_a_terminal_nobody_can_be_asked(change, agentcom):
    done = agentcom("change", "approve", "c-4", stdin="y\n")
    assert done.exit_code == Exit.USAGE
    assert "--yes" in done.stderr
    assert change.gatekeeper.reviews == []


def test_yes_alone_is_not_enough_for_an_operator(change, agentcom):
    change.scope = Scope.OPERATOR
    done = agentcom("change", "approve", "c-4", "--yes")
    assert done.exit_code == Exit.UNAUTHORISED
    assert change.gatekeeper.reviews == []


def test_an_approver_approves_without_being_asked(change, agentcom):
    change.scope = Scope.APPROVER
    assert agentcom("change", "approve", "c-4", "--yes").exit_code == 0
    assert change.gatekeeper.reviews == [("approve", 4, "approver", True, SHA, "")]


def test_rejecting_tells_why(change, agentcom):
    assert agentcom("change", "reject", "4", "--reason", "no tests").exit_code == 0
    assert change.gatekeeper.reviews == [("reject", 4, "admin", True, "no tests", False)]


# ── projects and repositories ────────────────────────────────────────────────────────────────────────────────────────


def test_registering_creating_and_updating(house, agentcom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.json").write_text('{"auto_merge_tier1": true}')
    checks = '[{"kind": "command_succeeds", "argv": ["make"]}]'
    assert agentcom("repo", "add", "site", "site.git", "--policy", "@policy.json", "--checks", checks).exit_code == 0
    assert house.probed == [("site", str(tmp_path / "site.git"), "main")]
    assert agentcom("project", "create", "web", "-r", "site", "--default-repo", "site").exit_code == 0
    done = agentcom("project", "update", "web", "--dispatch", "manual", "--no-default-repo", "--json")
    assert (json.loads(done.stdout)["version"], json.loads(done.stdout)["default_repo"]) == (2, None)
    assert agentcom("repo", "update", "site", "--base", "dev", "--version", "1").exit_code == 0
    assert json.loads(agentcom("repo", "show", "site", "--json").stdout)["policy"] == {"auto_merge_tier1": True}


def test_a_stale_update_says_which_version_it_is_at(house, agentcom):
    house.rows.project("web", version=5)
    done = agentcom("project", "update", "web", "--name", "x", "--version", "3")
    assert done.exit_code == Exit.REFUSED
    assert "it is at version 5 now" in done.stderr


@pytest.mark.parametrize(
    "argv", [("project", "update", "web"), ("repo", "update", "site"), ("repo", "add", "x", "y", "--policy", "{")]
)
def test_an_update_without_anything_to_say_is_wrong_usage(house, agentcom, argv):
    assert agentcom(*argv).exit_code == Exit.USAGE


# ── failing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_does_not_exist_is_4_with_a_hint(house, agentcom):
    done = agentcom("task", "show", "t-9")
    assert done.exit_code == Exit.NOT_FOUND
    assert "hint: agentcom task list" in done.stderr


def test_a_busy_hub_is_7_and_says_when_to_come_back(house, agentcom):
    house.conductor.refuse = Refused(429, "queue_full", "full", retry_after_s=30)
    done = agentcom("task", "submit", "x")
    assert done.exit_code == Exit.LATER
    assert "try again in 30 s" in done.stderr


def test_a_failure_of_the_hub_names_the_request_in_its_log(house, agentcom):
    house.conductor.refuse = ZeroDivisionError("secret")
    done = agentcom("task", "submit", "x")
    assert done.exit_code == Exit.REFUSED
    assert "the hub's log has it as request" in done.stderr
    assert "secret" not in done.stderr


def test_no_hub_is_3_and_says_how_to_start_one(agentcom):
    done = agentcom("--url", "http://127.0.0.1:9", "status")
    assert done.exit_code == Exit.UNREACHABLE
    assert "agentcom server start-dev" in done.stderr


def test_a_missing_scope_is_5(house, agentcom):
    house.scope = Scope.OBSERVER
    assert agentcom("task", "hold", "t-1").exit_code == Exit.UNAUTHORISED


@pytest.mark.parametrize(
    ("status", "code"), [(401, 5), (403, 5), (404, 4), (409, 1), (412, 1), (422, 1), (429, 7), (500, 1), (503, 7)]
)
def test_every_kind_of_refusal_has_its_code(status, code):
    assert of_status(status) == code


def test_every_exit_code_is_documented_in_the_help(agentcom):
    shown = " ".join(agentcom("--help").stdout.split())
    assert all(f"{code.value} {MEANINGS[code]}" in shown for code in Exit)


# ── finding the token ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_token_comes_from_the_file_then_the_environment_then_the_data_directory(tmp_path, monkeypatch):
    file = tmp_path / "mine.token"
    file.write_text("from-file\n")
    (tmp_path / "operator.token").write_text("from-data-dir\n")
    monkeypatch.setenv("AGENTCOM_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("AGENTCOM_TOKEN", "from-env")
    assert session.find_token(session.Target(token_file=file)) == "from-file"
    assert session.find_token(session.Target()) == "from-env"
    monkeypatch.delenv("AGENTCOM_TOKEN")
    assert session.find_token(session.Target()) == "from-data-dir"
    monkeypatch.setenv("AGENTCOM_DATA_DIR", str(tmp_path / "none"))
    assert session.find_token(session.Target()) is None


def test_what_needs_an_administrator_uses_that_token_and_nothing_else_does(tmp_path, monkeypatch):
    (tmp_path / "admin.token").write_text("administrator\n")
    (tmp_path / "operator.token").write_text("operator\n")
    monkeypatch.setenv("AGENTCOM_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("AGENTCOM_TOKEN", raising=False)
    assert session.find_token(session.Target()) == "operator"
    assert session.find_token(session.Target(), admin=True) == "administrator"


@pytest.mark.parametrize("url", ["https://hub.example.org", "http://100.64.0.7:8790", "http://127.0.0.1.example.org"])
def test_a_token_of_the_hub_on_this_machine_is_never_sent_to_another(url, tmp_path, monkeypatch):
    (tmp_path / "operator.token").write_text("operator\n")
    monkeypatch.setenv("AGENTCOM_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("AGENTCOM_TOKEN", raising=False)
    assert session.find_token(session.Target(url)) is None


def test_a_command_finds_the_hub_of_this_machine_and_its_token_wherever_it_listens(tmp_path, monkeypatch):
    (tmp_path / "operator.token").write_text("operator\n")
    monkeypatch.setenv("AGENTCOM_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("AGENTCOM_TOKEN", raising=False)
    assert session.recorded_url() is None
    session.record_url(tmp_path, "https://hub.example.org")
    assert (tmp_path / "hub.url").stat().st_mode & 0o077 == 0
    assert session.recorded_url() == "https://hub.example.org"
    assert session.find_token(session.Target("https://hub.example.org/")) == "operator"
    assert session.find_token(session.Target("https://hub.example.org:8443")) is None
    assert session.find_token(session.Target("http://hub.example.org")) is None
    (tmp_path / "hub.url").write_bytes(b"\xff")
    assert session.recorded_url() is None


def test_where_nothing_is_said_the_hub_is_the_one_this_machine_joined(tmp_path, monkeypatch):
    joined = tmp_path / "sidecar.toml"
    monkeypatch.setattr(session, "joined_file", lambda: joined)
    assert session.joined_url() is None
    joined.write_text('hub_url = "wss://hub.example.org:8790/ws"\n')
    assert session.joined_url() == "https://hub.example.org:8790"
    joined.write_text("hub_url = 3")
    assert session.joined_url() is None


def test_certificates_that_cannot_be_read_are_wrong_usage(tmp_path, monkeypatch, capsys):
    for content in (None, b"no certificate"):
        file = tmp_path / "ca.pem"
        if content is not None:
            file.write_bytes(content)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        with pytest.raises(typer.Exit) as ended:
            session.open_client(session.Target())
        assert ended.value.exit_code == Exit.USAGE
        assert "SSL_CERT_FILE" in capsys.readouterr().err


def test_no_option_takes_a_token_itself(agentcom):
    assert "--token " not in agentcom("--help").stdout


# ── the processes ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_development_hub_listens_on_loopback_only(agentcom):
    done = agentcom("server", "start-dev", "--host", "0.0.0.0")
    assert done.exit_code == Exit.USAGE
    assert "loopback" in done.stderr


def test_a_sidecar_replaces_the_process(agentcom, monkeypatch, tmp_path):
    from hub.cli import server

    seen = []
    monkeypatch.setattr(server.os, "execv", lambda path, argv: seen.append((path, argv[1:])))
    agentcom("sidecar", "run", "--config", "s.toml", "--stop-agents")
    assert seen == [(server.sys.executable, ["-m", "sidecar", "run", "--config", "s.toml", "--stop-agents"])]


def test_version_is_plain_or_json(agentcom):
    assert agentcom("version").stdout.startswith("agentcom ")
    assert "python" in json.loads(agentcom("version", "--json").stdout)


def test_help_imports_neither_the_http_library_nor_the_hub():
    import subprocess
    import sys

    program = (
        "import sys\nfrom hub.cli import main\nsys.argv = ['agentcom', '--help']\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'httpx2', 'fastapi', 'pydantic', 'hub.app', 'hub.settings', 'rich.console'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
