"""The configuration file: what is wrong is said, all of it, with what was probably meant."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from sidecar.app import make_runtime
from sidecar.settings import Settings, SettingsError, load, missing_programs, read_token
from tests.support.newcomer import IS_ROOT

REPO = Path(__file__).parents[3]
MINIMAL = 'hub_url = "ws://h:1/ws"\n[[agents]]\nid = "a"\nruntime = "mock"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sidecar.toml"
    path.write_text(text)
    return path


def faults(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as fault:
        load(written(tmp_path, text))
    return fault.value.faults


def test_the_documented_file_is_valid_and_holds_the_defaults() -> None:
    documented = load(REPO / "config" / "sidecar.toml")
    data = tomllib.loads((REPO / "config" / "sidecar.toml").read_text())
    bare = Settings.model_validate({"hub_url": documented.hub_url, "agents": [{"id": "x", "runtime": "mock"}]})
    for key in data.keys() - {"hub_url", "agents", "repos"}:
        assert getattr(documented, key) == getattr(bare, key), key
    assert make_runtime(documented.agents[0]).name == "command"


def test_every_key_is_documented() -> None:
    text = (REPO / "config" / "sidecar.toml").read_text()
    agent = Settings.model_fields["agents"]
    assert agent.is_required()
    for model in (Settings, type(load(REPO / "config" / "sidecar.toml").agents[0])):
        for key in model.model_fields:
            assert f"{key} =" in text or f"[{key}]" in text or f"[[{key}]]" in text or f".{key}]" in text, key


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    settings = load(written(tmp_path, MINIMAL))
    assert settings.agents[0].capabilities == []
    assert settings.state_dir.name == "sidecar"


def test_paths_start_at_the_files_directory(tmp_path: Path) -> None:
    settings = load(written(tmp_path, 'state_dir = "state"\ntoken_file = "t"\n' + MINIMAL))
    assert settings.state_dir == tmp_path / "state"
    assert settings.token_file == tmp_path / "t"


def test_every_fault_is_listed_with_the_key_that_was_meant(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        'hub_ulr = "ws://h"\n[[agents]]\nid = "A!"\nruntime = "mock"\ncapabilitys = []\n[logs]\nlevel = "info"\n',
    )
    text = "\n".join(found)
    assert "hub_ulr: unknown key; did you mean 'hub_url'?" in text
    assert "hub_url: Field required" in text
    assert "agents[0].capabilitys: unknown key; did you mean 'capabilities'?" in text
    assert "agents[0].id" in text
    assert "logs: unknown key; did you mean 'log'?" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINIMAL.replace("ws://", "http://"), "hub_url"),
        (MINIMAL.replace('"mock"', '"command"'), "[agents.command] belongs to"),
        (MINIMAL + '[agents.command]\nargv = ["x"]\n', "[agents.command] belongs to"),
        (MINIMAL.replace('"mock"', '"command"') + '[agents.command]\nargv = ["x", "{promt}"]\n', "{promt}"),
        (MINIMAL.replace('"mock"', '"command"') + '[agents.command]\nargv = ["x"]\nsuccess_when = "marker"\n', "marker"),
        (MINIMAL + '[[agents]]\nid = "a"\nruntime = "mock"\n', "used twice: a"),
        (MINIMAL + "reconnect_first_s = '5'\n", "reconnect_first_s"),
        ("hub_url = ", "Invalid value"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in "\n".join(faults(tmp_path, text))


def test_a_token_comes_from_the_agents_file_then_the_common_one_then_the_environment(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"{name}\n")
        (tmp_path / name).chmod(0o600)
    own = load(written(tmp_path, 'token_file = "one"\n' + MINIMAL + 'token_file = "two"\n'))
    assert read_token(own, own.agents[0], {}) == "two"
    common = load(written(tmp_path, 'token_file = "one"\n' + MINIMAL))
    assert read_token(common, common.agents[0], {}) == "one"
    bare = load(written(tmp_path, MINIMAL))
    assert read_token(bare, bare.agents[0], {"AGENTCOM_TOKEN": "three"}) == "three"
    with pytest.raises(SettingsError, match="no token"):
        read_token(bare, bare.agents[0], {})


def test_a_token_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("secret")
    (tmp_path / "one").chmod(0o644)
    settings = load(written(tmp_path, 'token_file = "one"\n' + MINIMAL))
    with pytest.raises(SettingsError, match="chmod 600") as fault:
        read_token(settings, settings.agents[0], {})
    assert "secret" not in str(fault.value)


def test_an_agent_without_a_runtime_only_runs_checks() -> None:
    checks = {"id": "x", "runtime": "none", "capabilities": ["checks"]}
    settings = Settings.model_validate({"hub_url": "ws://h/ws", "agents": [checks]})
    assert make_runtime(settings.agents[0]).name == "none"
    with pytest.raises(ValueError, match="only run checks"):
        Settings.model_validate({"hub_url": "ws://h/ws", "agents": [checks | {"capabilities": []}]})


def test_a_program_that_is_not_there_is_found_before_any_task_is_lost(tmp_path: Path) -> None:
    agents = [
        {"id": "gone", "runtime": "command", "command": {"argv": ["no-such-program-anywhere", "{prompt_file}"]}},
        {"id": "here", "runtime": "command", "command": {"argv": ["git", "{prompt_file}"]}},
    ]
    (fault,) = missing_programs(Settings.model_validate({"hub_url": "ws://h/ws", "agents": agents}))
    assert "no-such-program-anywhere" in fault
    assert "gone" in fault


@pytest.mark.skipif(not IS_ROOT, reason="only root changes users")
@pytest.mark.parametrize(
    ("owner", "mode", "cure"), [(65534, 0o644, "chown root"), (0, 0o664, "chmod go-w"), (0, 0o646, "chmod go-w")]
)
def test_root_takes_no_configuration_that_somebody_else_may_have_written(
    tmp_path: Path, owner: int, mode: int, cure: str
) -> None:
    path = written(tmp_path, MINIMAL)
    load(path)
    os.chown(path, owner, 0)
    path.chmod(mode)
    with pytest.raises(SettingsError) as refused:
        load(path)
    assert cure in refused.value.faults[0]
    assert str(path) in refused.value.faults[0]
