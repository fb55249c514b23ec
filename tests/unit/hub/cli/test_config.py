"""``config check``, ``show`` and ``init``, and the settings a server is started with."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from hub.cli import config, server
from hub.cli.exits import Exit
from hub.settings.document import commented_file


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No file of this machine, and no variable."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    for name in ("AGENTCOM_CONFIG", "AGENTCOM_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def written(directory: Path, text: str) -> str:
    path = directory / "hub.toml"
    path.write_text(text)
    return str(path)


# ── check ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_good_file_is_told_what_it_makes_of_the_hub(agentcom, tmp_path):
    file = written(tmp_path, '[listen]\nhost = "::"\ntrusted_networks = ["100.64.0.0/10"]\n')
    done = agentcom("config", "check", "--config", file)
    assert done.exit_code == 0
    assert f"ok  {file}\n" in done.stdout
    assert "http://[::]:8790" in done.stdout
    assert "connections from this machine and 100.64.0.0/10, no others" in done.stdout


def test_every_fault_is_printed_with_its_place_and_the_cures(agentcom, tmp_path):
    file = written(tmp_path, '[listen]\nhost = "0.0.0.0"\n[log]\nlvl = "x"\n')
    done = agentcom("config", "check", "-c", file)
    assert done.exit_code == Exit.USAGE
    assert f"  {file}:2: listen.host: 0.0.0.0 is not loopback" in done.stderr
    assert "\n      TLS: set listen.tls_cert" in done.stderr
    assert f"  {file}:4: log.lvl: unknown key; did you mean log.level?" in done.stderr
    document = json.loads(agentcom("config", "check", "-c", file, "--json").stderr)
    assert [fault["loc"] for fault in document["errors"]] == ["log.lvl", "listen.host"]


def test_strange_variables_are_noted_and_change_nothing(agentcom, monkeypatch):
    monkeypatch.setenv("AGENTCOM_PORT", "1")
    done = agentcom("config", "check")
    assert done.exit_code == 0
    assert "note: AGENTCOM_PORT means nothing to the hub; did you mean AGENTCOM_LISTEN_PORT?" in done.stderr
    quiet = agentcom("config", "check", "--json")
    assert quiet.stderr == ""
    assert len(json.loads(quiet.stdout)["warnings"]) == 1


def test_a_certificate_is_judged_before_any_start(agentcom, tmp_path):
    file = written(tmp_path, '[listen]\ntls_cert = "c.pem"\ntls_key = "k.pem"\n')
    for command in (("config", "check"), ("server", "start")):
        done = agentcom(*command, "--config", file)
        assert done.exit_code == Exit.USAGE
        assert f"{tmp_path}/c.pem cannot be read" in done.stderr
        assert f"{tmp_path}/k.pem cannot be read" in done.stderr


def test_the_end_of_a_certificate_is_told(agentcom, tmp_path):
    issued = trustme.CA().issue_cert("127.0.0.1", not_after=datetime(2199, 1, 2, tzinfo=UTC))
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    (tmp_path / "both.pem").chmod(0o600)
    file = written(tmp_path, '[listen]\nhost = "0.0.0.0"\ntls_cert = "both.pem"\ntls_key = "both.pem"\n')
    said = agentcom("config", "check", "--config", file).stdout
    assert "both.pem, until 2199-01-02" in said
    assert "https://0.0.0.0:8790" in said


# ── show ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_value_is_shown_with_its_origin(agentcom, tmp_path, monkeypatch):
    file = written(tmp_path, "[listen]\nport = 5\n")
    monkeypatch.setenv("AGENTCOM_LOG_LEVEL", "debug")
    rows = [line.split("\t") for line in agentcom("config", "show", "-c", file, "--origin").stdout.splitlines()]
    assert ["listen.port", "5", f"{file}:2"] in rows
    assert ["log.level", '"debug"', "AGENTCOM_LOG_LEVEL"] in rows
    assert ["log.format", '"auto"', "default"] in rows
    assert all(len(line.split("\t")) == 2 for line in agentcom("config", "show", "-c", file).stdout.splitlines())


def test_the_document_has_plain_values(agentcom, tmp_path):
    file = written(tmp_path, '[listen]\ntrusted_networks = ["100.64.0.0/10"]\n')
    document = json.loads(agentcom("config", "show", "-c", file, "--origin", "--json").stdout)
    assert document["file"] == file
    assert document["keys"]["listen.trusted_networks"] == {
        "value": ["100.64.0.0/10"],
        "variable": "AGENTCOM_LISTEN_TRUSTED_NETWORKS",
        "origin": "file",
        "place": f"{file}:2",
    }
    assert document["keys"]["listen.public_url"]["value"] is None


def test_the_file_is_the_one_named_by_the_option_then_the_variable_then_the_users(agentcom, tmp_path, monkeypatch):
    def port() -> int:
        return json.loads(agentcom("config", "show", "--json").stdout)["keys"]["listen.port"]["value"]

    assert port() == 8790
    (tmp_path / "xdg" / "agentcom").mkdir(parents=True)
    (tmp_path / "xdg" / "agentcom" / "hub.toml").write_text("[listen]\nport = 1\n")
    assert port() == 1
    monkeypatch.setenv("AGENTCOM_CONFIG", written(tmp_path, "[listen]\nport = 2\n"))
    assert port() == 2


# ── init ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_file_explains_every_key_and_replaces_nothing_unasked(agentcom, tmp_path):
    file = tmp_path / "new" / "hub.toml"
    done = agentcom("config", "init", "--config", str(file))
    assert done.exit_code == 0
    assert f"agentcom server start --config {file}" in done.stdout
    assert file.read_text() == commented_file()
    file.write_text("# mine\n")
    refused = agentcom("config", "init", "--config", str(file))
    assert (refused.exit_code, file.read_text()) == (Exit.REFUSED, "# mine\n")
    assert "--force" in refused.stderr
    assert agentcom("config", "init", "--config", str(file), "--force").exit_code == 0
    assert file.read_text() == commented_file()


def test_without_a_name_it_goes_where_it_is_looked_for(agentcom, tmp_path):
    assert agentcom("config", "init").exit_code == 0
    assert (tmp_path / "xdg" / "agentcom" / "hub.toml").exists()
    assert agentcom("config", "check").stdout.startswith("ok  " + str(tmp_path / "xdg"))


def test_a_place_that_cannot_be_written_is_told(agentcom, tmp_path):
    (tmp_path / "file").write_text("")
    done = agentcom("config", "init", "--config", str(tmp_path / "file" / "hub.toml"))
    assert done.exit_code == Exit.USAGE
    assert "cannot be written" in done.stderr


# ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def started(monkeypatch):
    """Settings of the servers that would have been started."""
    seen = []
    monkeypatch.setattr(server, "_run_hub", lambda found, **_: seen.append(found) or 0)
    return seen


def test_flags_reach_the_settings(agentcom, started, tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTCOM_LISTEN_PORT", "2")
    argv = ("--host", "::1", "--port", "0", "--data-dir", str(tmp_path), "--json-logs")
    for command in ("start", "start-dev"):
        assert agentcom("server", command, *argv).exit_code == 0
        settings = started[-1].settings
        assert (settings.listen.host, settings.listen.port, settings.log.format) == ("::1", 0, "json")
        assert settings.data_dir == tmp_path
        assert str(started[-1].origins["listen.port"]) == "--port"


def test_a_development_hub_reads_no_file(agentcom, started, tmp_path, monkeypatch):
    (tmp_path / "xdg" / "agentcom").mkdir(parents=True)
    (tmp_path / "xdg" / "agentcom" / "hub.toml").write_text("broken")
    monkeypatch.setenv("AGENTCOM_CONFIG", "/none")
    assert agentcom("server", "start-dev").exit_code == 0
    assert started[0].file is None


def test_off_loopback_a_server_is_refused_with_the_three_cures(agentcom, started):
    done = agentcom("server", "start", "--host", "0.0.0.0")
    assert done.exit_code == Exit.USAGE
    assert "  --host: listen.host: 0.0.0.0 is not loopback" in done.stderr
    assert started == []


def test_a_mesh_is_enough_for_a_server_but_not_for_a_development_hub(agentcom, started, monkeypatch):
    monkeypatch.setenv("AGENTCOM_LISTEN_TRUSTED_NETWORKS", "100.64.0.0/10")
    assert agentcom("server", "start", "--host", "100.64.0.1").exit_code == 0
    done = agentcom("server", "start-dev", "--host", "100.64.0.1")
    assert done.exit_code == Exit.USAGE
    assert "agentcom server start" in done.stderr
    assert len(started) == 1


@pytest.mark.parametrize(("keys", "said"), [
    ({"tls_cert": Path("c"), "tls_key": Path("k")}, "connections from everywhere, over TLS"),
    ({}, "connections from this machine"),
])  # fmt: skip
def test_who_may_come_is_said_in_words(keys, said):
    from hub.settings.tree import Listen

    assert config._who(Listen(host="0.0.0.0" if keys else "127.0.0.1", **keys)) == said
