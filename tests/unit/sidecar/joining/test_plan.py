"""What a command line becomes on a machine, and everything that is wrong with it at once."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.joining.config import is_sealed, render, seal
from sidecar.joining.plan import KNOWN, Facts, Plan, PlanError, Request, fit_name, make_plan
from sidecar.settings import Settings, load

CODE = f"ac_0123abcd_{'x' * 43}"
FACTS = Facts(
    root=True,
    hostname="Build-Host.example.org",
    python="/opt/a/bin/python",
    home=Path("/root"),
    config=Path("/etc/agentcom/sidecar.toml"),
    state_dir=Path("/var/lib/agentcom-sidecar"),
    systemd=True,
    environ={"PATH": "/bin", "SSL_CERT_FILE": "/etc/ca.pem", "AGENTCOM_TOKEN": "planted", "HOME": "/root"},
)
REQUEST = Request(url="https://hub.example:8790", code=CODE, command="my-agent --prompt {prompt_file}")


def plan(facts: Facts = FACTS, **changes: object) -> Plan:
    return make_plan(replace(REQUEST, **changes), facts)  # type: ignore[arg-type]


def faults(**changes: object) -> str:
    with pytest.raises(PlanError) as refused:
        plan(**changes)
    assert all(cure for _, cure in refused.value.faults)
    return "\n".join(fault for fault, _ in refused.value.faults)


def settings(made: Plan, tmp_path: Path) -> Settings:
    path = tmp_path / "s.toml"
    path.write_text(seal(render(made.page)))
    return load(path)


def test_a_machine_gets_agents_named_after_it_and_one_for_checks(tmp_path: Path) -> None:
    made = plan(agents=3)
    assert made.agents == ("build-host-1", "build-host-2", "build-host-3", "build-host-checks")
    found = settings(made, tmp_path)
    assert [agent.runtime for agent in found.agents] == ["command"] * 3 + ["none"]
    assert found.agents[-1].capabilities == ["checks"]
    assert found.agents[0].command is not None
    assert found.agents[0].command.argv == ["my-agent", "--prompt", "{prompt_file}"]
    assert found.hub_url == "wss://hub.example:8790/ws"
    assert found.token_file == Path("/var/lib/agentcom-sidecar/token")
    assert found.run_as == "agentcom-agents"


@pytest.mark.parametrize(
    ("url", "socket"),
    [
        ("http://10.0.0.1:8790", "ws://10.0.0.1:8790/ws"),
        ("https://hub.example/", "wss://hub.example/ws"),
        ("https://example.org/agentcom", "wss://example.org/agentcom/ws"),
        ("ws://h:1/ws", "ws://h:1/ws"),
        ("http://[fd00::1]:8790", "ws://[fd00::1]:8790/ws"),
    ],
)
def test_the_socket_is_where_the_hub_is(url: str, socket: str) -> None:
    assert plan(url=url).page.hub_url == socket


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("M1.local", "m1"),
        ("-_weird_host", "weird_host"),
        ("日本", "machine"),
        ("x" * 80, "x" * 57),
        ("", "machine"),
        ("a b", "a-b"),
    ],
)
def test_a_hosts_name_is_made_fit_for_agents(hostname: str, name: str) -> None:
    assert fit_name(hostname) == name


def test_everything_wrong_with_a_command_line_is_said_at_once() -> None:
    said = faults(
        url="ftp://x",
        code="nonsense",
        name="Nope!",
        agents=0,
        repos=("x", "y=ext::sh -c evil"),
        command="a {promt}",
        runtime=None,
    )
    for words in ("ftp://x", "enrolment code", "'Nope!'", "--agents 0", "'x' is not NAME=URL", "--repo y", "{promt}"):
        assert words in said
    assert "nonsense" not in said, "it might be a secret with a typing error"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"command": None}, "nothing says what the agents are"),
        ({"command": None, "runtime": "command"}, "--command belongs to"),
        ({"runtime": "mock"}, "--command belongs to"),
        ({"command": None, "runtime": "gpt"}, "no runtime 'gpt'"),
        ({"command": "a 'b"}, "cannot be split"),
        ({"command": " "}, "needs a program"),
        ({"url": "https://user@h"}, "must not carry a user"),
        ({"url": "https://h?x=1"}, "must not carry"),
        ({"url": "https://h:99999"}, "not the address"),
        ({"name": "x" * 58}, "cannot begin"),
        ({"agents": 64}, "out of range"),
    ],
)
def test_a_faulty_wish_is_refused_with_its_cure(changes: dict, words: str) -> None:
    assert words in faults(**changes)


@pytest.mark.parametrize("known", sorted(KNOWN))
def test_an_agent_without_a_runtime_yet_is_refused_with_a_command_that_works(known: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError) as refused:
        plan(command=None, runtime=known)
    assert KNOWN[known] in refused.value.faults[0][1]
    assert settings(plan(command=KNOWN[known]), tmp_path).agents[0].command is not None


def test_a_program_without_a_place_for_the_prompt_gets_it_on_standard_input(tmp_path: Path) -> None:
    assert settings(plan(command="my-agent --go"), tmp_path).agents[0].command.stdin == "prompt"  # type: ignore[union-attr]
    assert settings(plan(command="my-agent {prompt}"), tmp_path).agents[0].command.stdin == "none"  # type: ignore[union-attr]


def test_scripted_agents_are_named_as_such(tmp_path: Path) -> None:
    assert [agent.runtime for agent in settings(plan(command=None, runtime="mock"), tmp_path).agents] == [
        "mock",
        "mock",
        "none",
    ]


def test_what_a_person_types_arrives_unchanged_in_the_file(tmp_path: Path) -> None:
    made = plan(command="""sh -c 'echo "$HOME\\" \u00e9 {prompt}'""", repos=("a.b=/srv/git/a\u00e9.git", "c=git@h:x.git"))
    found = settings(made, tmp_path)
    assert found.agents[0].command.argv == ["sh", "-c", 'echo "$HOME\\" \u00e9 {prompt}']  # type: ignore[union-attr]
    assert found.repos == {"a.b": "/srv/git/a\u00e9.git", "c": "git@h:x.git"}


def test_a_service_only_where_systemd_runs_and_it_is_wanted() -> None:
    assert plan().unit is not None
    assert plan(service=False).unit is None
    assert plan(foreground=True).unit is None
    assert plan(replace(FACTS, systemd=False)).unit is None


def test_the_service_keeps_what_finds_programs_and_the_hub_and_no_secret() -> None:
    unit = plan().unit
    assert unit is not None
    assert unit.environ == {"PATH": "/bin", "SSL_CERT_FILE": "/etc/ca.pem"}


def test_who_is_not_root_changes_no_user() -> None:
    assert plan(replace(FACTS, root=False)).run_as == ""
    assert plan(run_as="").run_as == ""
    assert plan(run_as="bob").run_as == "bob"


def test_a_seal_holds_until_somebody_edits() -> None:
    text = seal(render(plan().page))
    assert is_sealed(text)
    assert not is_sealed(text.replace("drain_s = 10.0", "drain_s = 11.0"))
    assert not is_sealed(render(plan().page))
    assert not is_sealed("")
    tomllib.loads(text)
