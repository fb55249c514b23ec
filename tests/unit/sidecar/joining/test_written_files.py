"""The two files that ``join`` writes. Those in the repository are made by the same functions: see test_reference."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from sidecar.joining import config, unit
from sidecar.joining.unit import Unit
from sidecar.settings import AgentSettings, CommandSettings, GitSettings, LogSettings, Settings


@pytest.mark.parametrize(
    ("agent", "absent"),
    [
        (config.EXAMPLE.agents[0], ()),
        (config.Agent(id="m", runtime="mock"), ("argv", "success_when", "marker", "events", "stdin")),
    ],
)
def test_every_key_has_a_line_and_a_comment_whatever_the_agents_are(agent: config.Agent, absent: tuple[str, ...]) -> None:
    lines = config.render(config.Page(hub_url="ws://h/ws", agents=[agent])).splitlines()
    for model in (Settings, AgentSettings, CommandSettings, GitSettings, LogSettings):
        for key in model.model_fields:
            heads = (f"{key} =", f"[{key}]", f"[[{key}]]", f"[agents.{key}]")
            found = [line for line in lines if line.removeprefix("# ").startswith(heads)]
            assert found, key
            assert key == "agents" or " # " in found[0], key
            assert (key in absent) <= found[0].startswith("# "), key


def test_what_is_shown_as_default_is_the_default() -> None:
    data = tomllib.loads(config.render(config.EXAMPLE))
    for model, table in ((Settings, data), (AgentSettings, data["agents"][0]), (CommandSettings, data["agents"][0]["command"])):
        for key, field in model.model_fields.items():
            if key in table and not field.is_required() and not isinstance(table[key], dict) and key != "agents":
                assert table[key] == field.get_default(call_default_factory=True), key


def test_a_unit_quotes_what_systemd_would_read_otherwise() -> None:
    text = unit.render(
        Unit(argv=("/a b/py", "x$y", "100%", 'q"q'), environ={"PATH": '/x y:/100%:"q"'}, root=False, home=Path("/home/ann"))
    )
    assert 'ExecStart="/a b/py" x$$y 100%% "q\\"q"' in text
    assert 'Environment="PATH=/x y:/100%%:\\"q\\""' in text


def test_a_unit_spares_the_shims_and_does_not_repeat_what_a_person_must_cure() -> None:
    system, own = unit.EXAMPLE, Unit(argv=("x",), environ={}, root=False, home=Path("/home/ann"))
    for text in map(unit.render, (system, own)):
        assert "KillMode=process\n" in text
        assert "Restart=on-failure\n" in text
        assert "RestartPreventExitStatus=2 4\n" in text
    assert "multi-user.target" in unit.render(system)
    assert "network-online.target" in unit.render(system)
    assert "WantedBy=default.target" in unit.render(own)
    assert "network-online.target" not in unit.render(own), "a user's systemd does not know it"
    assert own.path == Path("/home/ann/.config/systemd/user/agentcom-sidecar.service")


def test_a_password_in_a_proxys_address_is_not_in_the_unit_that_all_can_read() -> None:
    proxy = 'http://ann:p%$"`\\ss@proxy:3128'
    own = Unit(
        argv=("x",),
        environ={"PATH": "/bin", "https_proxy": proxy, "http_proxy": "http://proxy"},
        root=False,
        home=Path("/home/a"),
    )
    text = unit.render(own)
    assert "ann" not in text
    assert 'Environment="PATH=/bin"' in text
    assert 'Environment="http_proxy=http://proxy"' in text
    assert "EnvironmentFile=/home/a/.config/systemd/user/agentcom-sidecar.env\n" in text
    assert unit.render_secrets(own) == 'https_proxy="http://ann:p%\\$\\"\\`\\\\ss@proxy:3128"\n'
    assert "EnvironmentFile" not in unit.render(unit.EXAMPLE)
    assert unit.render_secrets(unit.EXAMPLE) == ""
