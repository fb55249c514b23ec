"""Corpus: text of agents and submitters, in every place where it can stand, through every command that shows it."""

import json
import unicodedata

import orjson
import pytest

from hub.cli import render
from hub.core.agent import Agent
from hub.ids import AgentId
from tests.support.doors import NOW, SHA

CORPUS = [
    "\x1b[2J\x1b[H\x1b[31mowned",
    "\x9b31m\x90q\x9c",
    "\x1b]0;title\x07\x1b]52;c;ZXZpbA==\x07",
    "safe\rFAKE PROMPT $ ",
    "line\nt-1\tdone\tforged row",
    "abc\u202egnp.exe\u2066\u2069\u200f",
    "a\u2028b\u2029c\x85d",
    "[bold red]x[/bold red] [/] [link=file:///etc]y[/link] :skull:",
    "nul\x00del\x7fbell\x07back\x08\x08\x08",
]

COMMANDS = [
    ("task", "list"),
    ("task", "show", "t-1"),
    ("task", "explain", "t-1"),
    ("task", "watch", "t-2"),
    ("agent", "list"),
    ("agent", "show", "bob"),
    ("agent", "pause", "bob"),
    ("change", "list"),
    ("change", "show", "c-4"),
    ("change", "diff", "c-4"),
    ("salvage", "list"),
    ("salvage", "show", "t-1/1"),
    ("project", "list"),
    ("project", "show", "web"),
    ("repo", "list"),
    ("repo", "show", "site"),
    ("status",),
]


def encode(value):
    return orjson.dumps(value).decode()


def seed(house, text):
    rows = house.rows
    listed = encode([text])
    described = {
        "description": text,
        "success_criteria": [text],
        "verification": [{"kind": text, "argv": [text], "target": text}],
    }
    rows.repository("site", url=text, base=text, checks=encode([{"kind": text, "argv": [text]}]), policy=encode({"k": text}))
    rows.project("web", name=text, description=text)
    rows.agent(
        "bob",
        name=text,
        note=text,
        capabilities=listed,
        projects=listed,
        runtimes=encode([{"name": text, "version": text}]),
        host=encode({text: text}),
    )
    rows.task(
        1,
        title=text,
        cause=text,
        created_by=text,
        project=text,
        repo="site",
        base=text,
        assign_to=text,
        lease_epoch=2,
        spec=encode(described),
    )
    rows.task(2, title=text, state="dead", cause=text)
    rows.insert("task_dep", task=1, needs=2, policy="run", satisfied=0)
    rows.attempt(1, 1, agent="bob", outcome=text, cause=text, error=encode({"code": text}), ended_at=NOW)
    rows.feedback(1, 1, text=text, source=text)
    rows.insert("question", task=1, lease_epoch=1, qid=text, text=text, options=listed, asked_at=NOW)
    rows.insert(
        "question",
        task=1,
        lease_epoch=2,
        qid=text,
        text=text,
        options=listed,
        asked_at=NOW,
        answered_at=NOW,
        answered_by=text,
        answer=text,
    )
    rows.insert("result", task=1, lease_epoch=1, output=text, branch=text, commits=encode([{"subject": text}]))
    rows.insert(
        "salvage",
        task=1,
        lease_epoch=1,
        sha256="f" * 64,
        at=NOW,
        reason=text,
        body=encode({"output": text, "error": {"code": text, "message": text}, "commits": [{"sha": text, "subject": text}]}),
        agent=text,
        branch=text,
        head_sha=text,
        salvage_ref=text,
        decided_by=text,
        note=text,
    )
    rows.insert("agent_transition", agent="bob", at=NOW, from_state="idle", to_state="offline", reason=text)
    stat = {"added": 1, "deleted": 1, "files": [{"path": text, "status": text, "added": 1, "deleted": 0}]}
    rows.change(
        4,
        1,
        title=text,
        body=text,
        labels=listed,
        reasons=listed,
        cause=text,
        branch=text,
        base=text,
        stat=encode(stat),
        commits=encode([{"sha": text, "subject": text}]),
    )
    rows.insert("review", change=4, reviewer=text, head_sha=SHA, verdict="rejected", person=0, comment=text, at=NOW)
    rows.event(1, task=1, kind=text, actor=text, agent=text, cause=text, from_state=text, to_state=text)
    house.scheduler.explanations[1] = text
    house.scheduler.done[1] = (5, text)
    house.scheduler.present["bob"] = Agent(id=AgentId("bob"), first_seen_at=NOW, note=text)
    house.gatekeeper.text = f"+{text}\n-{text}\n@@ {text}\n {text}"
    house.ready[text] = False


def powerful(printed):
    """Characters that must not reach a terminal."""
    allowed = "\n\t\u200c\u200d"
    return {char for char in printed if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and char not in allowed}


def strings(document):
    """Every string in a JSON document, keys included."""
    if isinstance(document, str):
        return [document]
    children = (
        [*document.keys(), *document.values()] if isinstance(document, dict) else document if isinstance(document, list) else []
    )
    return [text for child in children for text in strings(child)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_powerful_reaches_the_terminal(house, agentcom, monkeypatch, command):
    seed(house, " ".join(CORPUS))
    for terminal in (False, True):
        monkeypatch.setattr(render, "is_terminal", lambda found=terminal: found)
        done = agentcom(*command)
        assert done.exit_code in (0, 6), done.output
        assert "owned" in done.output or command[1:2] == ("pause",)  # one line of closed words
        assert powerful(done.output) == set()


@pytest.mark.parametrize("command", [command for command in COMMANDS if "diff" not in command], ids=" ".join)
def test_json_carries_the_text_unchanged_and_harmless(house, agentcom, command):
    seed(house, " ".join(CORPUS))
    printed = agentcom(*command, "--json").stdout
    assert printed.isascii()
    assert powerful(printed) == set()
    if "watch" not in command:
        assert any(" ".join(CORPUS) in text for text in strings(json.loads(printed)))


def test_a_forged_row_cannot_appear_in_a_list(house, agentcom):
    seed(house, CORPUS[4])
    lines = agentcom("task", "list").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["task", "t-2", "t-1"]


def test_markup_is_shown_as_it_was_written(house, agentcom, monkeypatch):
    monkeypatch.setattr(render, "is_terminal", lambda: True)
    seed(house, "[bold]x[/bold]")
    assert "[bold]x[/bold]" in agentcom("task", "list").stdout
    assert "[bold]x[/bold]" in agentcom("change", "show", "c-4").stdout


def test_refusals_are_cleaned_too(house, agentcom):
    done = agentcom("task", "submit", "x", "--lane", "\x1b[31mred\u202e")
    assert done.exit_code == 1
    assert powerful(done.output) == set()
    assert "\\x1b[31mred\\u202e" in done.stderr
