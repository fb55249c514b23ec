"""Completion by the shells' own protocols: bash asks with COMP_WORDS, zsh with _TYPER_COMPLETE_ARGS."""

import re
import shlex

import pytest

from hub.cli.root import NOUNS, app
from hub.ids import AgentState, Lane, Scope, TaskState


def asked(monkeypatch, capsys, environ):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        app(prog_name="agentcom")
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def bash(monkeypatch, capsys):
    def complete(line):
        words = shlex.split(line) + ([""] if line.endswith(" ") else [])
        environ = {"_AGENTCOM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        return asked(monkeypatch, capsys, environ).split()

    return complete


@pytest.fixture
def zsh(monkeypatch, capsys):
    def complete(line):
        return asked(monkeypatch, capsys, {"_AGENTCOM_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line})

    return complete


CASES = [
    ("agentcom ", {*NOUNS, "status", "doctor", "demo", "join", "leave", "whoami", "version"}),
    ("agentcom ta", {"task"}),
    ("agentcom config ", {"check", "show", "init"}),
    ("agentcom server st", {"start", "start-dev"}),
    ("agentcom task list --state ", {*TaskState}),
    ("agentcom task list --state w", {"waiting", "working"}),
    ("agentcom task list --lane ", {*Lane}),
    ("agentcom task submit title --lane u", {"urgent"}),
    ("agentcom task submit title --complexity t", {"trivial"}),
    ("agentcom agent list --state ", {*AgentState}),
    ("agentcom change list --state m", {"merging", "merged"}),
    ("agentcom token create name --scope ad", {str(Scope.ADMIN)}),
    ("agentcom doctor --f", {"--fix"}),
    ("agentcom config show --or", {"--origin"}),
]


@pytest.mark.parametrize(("line", "words"), CASES)
def test_bash_is_given_the_words_that_fit(bash, line, words):
    assert set(bash(line)) == {str(word) for word in words}


@pytest.mark.parametrize(("line", "words"), CASES)
def test_zsh_is_given_the_words_that_fit(zsh, line, words):
    script = zsh(line)
    assert script.startswith("_arguments '*: :((")
    offered = re.findall(r'(?:^|\(\()"([^"]+)"(?=:|\)|$)', script, re.MULTILINE)
    assert set(offered) == {str(word) for word in words}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_of_a_shell_asks_this_program(monkeypatch, capsys, shell):
    script = asked(monkeypatch, capsys, {"_AGENTCOM_COMPLETE": f"source_{shell}"})
    assert "_AGENTCOM_COMPLETE=complete_" + shell in script
    assert "agentcom" in script


def test_both_options_are_offered(agentcom):
    shown = agentcom("--help").stdout
    assert "--install-completion" in shown
    assert "--show-completion" in shown
