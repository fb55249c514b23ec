"""What people see: hints they can copy, tables that fit, pages that align, words instead of codes."""

import json
import re

import pytest
from typer.main import get_command

from hub.cli import changes, render, server
from hub.cli.exits import Exit
from hub.cli.root import app
from hub.cli.words import complete
from hub.core.rows import EventRow
from hub.ids import Lane, Scope
from tests.support.doors import NOW


def commands(command, path=()):
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


TREE = [(path, command) for path, command in commands(get_command(app)) if path[:1] != ("demo",)]


# ── help ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_argument_and_option_is_explained():
    silent = [(path, param.name) for path, command in TREE for param in command.params if not getattr(param, "help", None)]
    assert silent == []


def test_no_summary_is_cut(agentcom, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for path, command in TREE:
        if getattr(command, "commands", None):
            listed = agentcom(*path, "--help").stdout.split("Commands:")[1].split("Exit codes")[0]
            assert "..." not in listed, listed


def test_every_command_has_an_example_and_names_its_exit_codes():
    for path, command in TREE:
        if not getattr(command, "commands", None):
            assert re.search(rf"Examples?: agentcom {' '.join(path)}", " ".join((command.help or "").split())), path
            assert (command.epilog or "").startswith("Exit codes: 0 "), path


def test_words_are_completed():
    assert complete(Lane)("u") == ["urgent"]
    assert complete(Lane)("") == ["urgent", "high", "normal", "low"]


def test_the_version_is_an_option_too(agentcom):
    assert agentcom("--version").stdout.startswith("agentcom ")


# ── wrong usage ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--url", "foo", "status"), "is not the address of a hub"),
        (("--url", "http://h:port", "status"), "is not the address of a hub"),
        (("status", "--url", "http://x"), "It stands before the command: agentcom --url"),
        (("task", "show", "foo"), "'foo' is not a task reference; write t-17 or 17"),
        (("change", "show", "foo"), "'foo' is not a change reference"),
        (("task", "submit", "x", "--verify", "file_exists"), "file_exists needs :PATH"),
        (("task", "submit", "x", "--verify", "file_exists:"), "file_exists needs :PATH"),
    ],
)
def test_wrong_usage_is_2_and_says_the_right_one(house, agentcom, argv, words):
    done = agentcom(*argv)
    assert done.exit_code == Exit.USAGE
    assert words in " ".join(done.stderr.replace("│", " ").split())
    assert house.conductor.commands == []


def test_only_a_hub_of_this_machine_can_be_started(agentcom):
    done = agentcom("--url", "http://nosuchhost.invalid", "status")
    assert done.exit_code == Exit.UNREACHABLE
    assert "start-dev" not in done.stderr
    assert "check the address" in done.stderr


def test_errors_of_a_json_command_are_json_on_stderr(house, agentcom):
    refused = agentcom("task", "show", "9", "--json")
    assert (refused.exit_code, refused.stdout) == (Exit.NOT_FOUND, "")
    assert json.loads(refused.stderr)["code"] == "unknown_task"
    usage = agentcom("task", "submit", "--json")
    assert (json.loads(usage.stderr)["code"], usage.exit_code) == ("usage", Exit.USAGE)
    assert agentcom("task", "show", "9").stderr.startswith("error: ")


@pytest.mark.parametrize("option", ["--repo", "--project", "--agent"])
def test_a_list_by_an_unknown_name_says_that_it_is_unknown(house, agentcom, option):
    done = agentcom("task", "list", option, "nope")
    assert done.exit_code == Exit.NOT_FOUND
    assert "nope" in done.stderr


# ── submitting, watching, approving ──────────────────────────────────────────────────────────────────────────────────


def test_what_may_surprise_about_a_submission_is_noted(house, agentcom):
    house.rows.task(1, repo=None, assign_to="bob")
    house.scheduler.explanations[1] = "queued: no agent has capability gpu"
    done = agentcom("task", "submit", "x")
    assert done.stdout == "t-1 is queued\n"
    assert done.stderr.splitlines() == [
        "note: t-1: no repository is named, so its agent works outside git",
        "note: t-1: no agent has capability gpu",
    ]
    house.rows.connection.execute("UPDATE task SET state = 'waiting', repo = 'site'")
    house.scheduler.explanations[1] = "held"
    assert agentcom("task", "submit", "x").stderr == "note: t-1: pinned to bob, which never connected\n"
    assert agentcom("task", "submit", "x", "--json").stderr == ""


def test_watching_says_when_it_waits_for_you(house, agentcom):
    house.rows.task(4, state="blocked", parked=1)
    house.rows.insert("question", task=4, lease_epoch=1, qid="q", text="which?", options='["a", "b"]', asked_at=NOW)
    house.feed.coming = [
        (1, EventRow(NOW, "task.blocked", "bob", 4, to_state="blocked")),
        (2, EventRow(NOW, "change.waiting", "gatekeeper", 4, to_state="waiting", data='{"change": 7}')),
        (3, EventRow(NOW, "task.merged", "gatekeeper", 4, from_state="in_review", to_state="done")),
    ]
    shown = agentcom("task", "watch", "4").stdout
    assert "which?" in shown
    assert "options: a | b" in shown
    assert 'agentcom task answer t-4 "…"' in shown
    assert "waits for you: agentcom change approve c-7\n" in shown


@pytest.mark.parametrize("state", ["merged", "closed"])
def test_what_is_over_is_not_asked_about(house, agentcom, state):
    house.rows.repository()
    house.rows.task(1)
    house.rows.change(4, 1, state=state)
    done = agentcom("change", "approve", "c-4", "--yes")
    assert done.exit_code == Exit.REFUSED
    assert f"c-4 is {state} already" in done.stderr
    assert house.gatekeeper.reviews == []


@pytest.mark.parametrize(
    ("state", "cause", "said"),
    [
        ("waiting", "person_needed: x", "c-4 is approved; it merges when its checks allow\n"),
        ("checking", None, "c-4 is approved; it merges when its checks allow (now checking)\n"),
        ("merged", None, "c-4 is approved and merged\n"),
    ],
)
def test_an_approval_says_what_follows_not_what_was(house, agentcom, monkeypatch, state, cause, said):
    monkeypatch.setattr(changes, "SETTLE_S", 0.0)
    house.scope = Scope.APPROVER
    house.rows.repository()
    house.rows.task(1)
    house.rows.change(4, 1, cause="person_needed: x")

    async def approve(*_args, **_kwargs):
        house.rows.connection.execute("UPDATE change SET state = ?, cause = ?", (state, cause))

    monkeypatch.setattr(house.gatekeeper, "approve", approve)
    assert agentcom("change", "approve", "c-4", "--yes").stdout == said


def test_pausing_an_agent_is_one_line(house, agentcom):
    house.rows.agent("bob", paused=1)
    assert agentcom("agent", "pause", "bob").stdout == "bob is offline, paused\n"


# ── tables and pages ─────────────────────────────────────────────────────────────────────────────────────────────────

ROW = ("t-1", "a title that is far longer than what a narrow terminal can show", "default", render.Cell("2027", short="2m"))
HEADERS = ("task", "title", "project", "updated")


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_a_table_never_folds(capsys, monkeypatch, width):
    monkeypatch.setattr(render, "is_terminal", lambda: True)
    monkeypatch.setattr(render.console(), "_width", width)
    render.table(HEADERS, [ROW], empty="", flex="title", drop=("project",))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= width
    assert lines[1].endswith("2m")
    assert ("…" in lines[1]) == (width < 100)
    assert ("default" in lines[1]) == (width > 40)


def test_a_list_for_programs_is_complete(capsys):
    render.table(HEADERS, [ROW], empty="", flex="title", drop=("project",))
    assert capsys.readouterr().out.splitlines()[1] == f"t-1\t{ROW[1]}\tdefault\t2027"


def test_a_table_of_a_page_is_aligned_off_the_terminal_too(capsys):
    render.part(("a", "b"), [("long", "x"), ("s", "y")])
    assert capsys.readouterr().out == "a     b\nlong  x\ns     y\n"


def test_no_colour_means_no_style_at_all(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    render._console.cache_clear()
    render.say(render.Cell("x", "bold red"))
    monkeypatch.setenv("NO_COLOR", "1")
    render.say(render.Cell("x", "bold red"))
    render._console.cache_clear()
    styled, plain = capsys.readouterr().out.splitlines()
    assert "\x1b" in styled
    assert plain == "x"


@pytest.mark.parametrize(("count", "said"), [(5, "5 B"), (2048, "2.0 KiB"), (8 << 30, "8.0 GiB")])
def test_sizes_are_for_people(count, said):
    assert render.size(count) == said


def test_a_task_names_its_base_branch_and_labels_what_the_agent_said(house, agentcom):
    house.rows.repository("site", base="trunk")
    house.rows.task(1, repo="site", state="done", cause="succeeded")
    house.rows.insert("result", task=1, lease_epoch=1, output="all good", commits="[]")
    shown = agentcom("task", "show", "1").stdout
    assert "site, base trunk" in shown
    assert "output of the agent (lease 1)\nall good" in shown
    assert "result of" not in shown


def test_a_ready_hub_says_what_to_type_next(capsys, tmp_path):
    (tmp_path / "a b").mkdir()
    server._announce("http://127.0.0.1:9999", tmp_path / "a b", tmp_path / "default", local_agents=True)
    said = capsys.readouterr().out
    assert f"export AGENTCOM_DATA_DIR='{tmp_path}/a b'\n" in said
    assert "agentcom enrol create" in said
    server._announce("http://127.0.0.1:8790", tmp_path, tmp_path, local_agents=False)
    assert "export" not in capsys.readouterr().out
