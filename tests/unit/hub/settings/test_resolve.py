"""One tree from flags, environment and file: who wins, where a value came from, and every fault with its place and cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.settings import HubSettings, Resolved, SettingsError, resolve
from hub.settings.keys import KEYS

LOW = "[lease]\nterm_s = 60\nbeat_s = 5\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "hub.toml"
    path.write_text(text)
    return path


def faults(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> list[str]:
    """Every fault, without the directory."""
    with pytest.raises(SettingsError) as caught:
        resolve({}, environ or {}, written(tmp_path, text))
    return [str(fault).replace(f"{tmp_path}/", "") for fault in caught.value.faults]


def origins(found: Resolved, *paths: str) -> list[str]:
    return [found.origins[path].place.rpartition("/")[2] for path in paths]


# ── who wins ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_flags_win_over_the_environment_over_the_file_over_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "\n[listen]\nport = 1\n\n" + LOW)
    environ = {"AGENTCOM_LISTEN_PORT": "2", "AGENTCOM_LEASE_BEAT_S": "4"}
    found = resolve({"listen.port": 3, "data_dir": None}, environ, file)
    assert (found.settings.listen.port, found.settings.lease.beat_s, found.settings.lease.term_s) == (3, 4.0, 60.0)
    places = origins(found, "listen.port", "lease.beat_s", "lease.term_s", "lease.accept_s")
    assert places == ["--port", "AGENTCOM_LEASE_BEAT_S", "hub.toml:6", "default"]


def test_nothing_given_is_the_defaults() -> None:
    assert resolve().settings == HubSettings()
    assert {origin.kind for origin in resolve().origins.values()} == {"default"}
    assert resolve({}, {"AGENTCOM_LISTEN_PORT": ""}).settings == HubSettings(), "an empty variable counts as not set"


def test_each_key_can_be_set_by_its_variable(tmp_path: Path) -> None:
    values = {
        "AGENTCOM_DATA_DIR": "~/data",
        "AGENTCOM_DURABILITY": "normal",
        "AGENTCOM_LISTEN_HOST": "::1",
        "AGENTCOM_LISTEN_PORT": "0",
        "AGENTCOM_LISTEN_PUBLIC_URL": "https://hub.example.org",
        "AGENTCOM_LISTEN_TLS_CERT": "c.pem",
        "AGENTCOM_LISTEN_TLS_KEY": "/k.pem",
        "AGENTCOM_LISTEN_TRUSTED_NETWORKS": "100.64.0.0/10, fd00::/8,",
        "AGENTCOM_LISTEN_TRUSTED_PROXIES": "10.0.0.1",
        "AGENTCOM_LEASE_TERM_S": "90",
        "AGENTCOM_LEASE_BEAT_S": "1.5",
        "AGENTCOM_LEASE_ACCEPT_S": "2",
        "AGENTCOM_LEASE_GRACE_S": "0",
        "AGENTCOM_LIMITS_MAX_LIVE_TASKS": "5",
        "AGENTCOM_LIMITS_MAX_LINKS": "6",
        "AGENTCOM_STORAGE_RESERVE_MB": "8",
        "AGENTCOM_STORAGE_BLOB_QUOTA_MB": "9",
        "AGENTCOM_STORAGE_COMPACT_ABOVE_PERCENT": "10",
        "AGENTCOM_RETENTION_TASK_DAYS": "11",
        "AGENTCOM_RETENTION_SALVAGE_DAYS": "12",
        "AGENTCOM_RETENTION_AUDIT_DAYS": "0",
        "AGENTCOM_DAMPERS_STRIKES": "2",
        "AGENTCOM_DAMPERS_INSTANT_S": "4",
        "AGENTCOM_BACKUP_DIR": "/srv/backups",
        "AGENTCOM_BACKUP_EVERY_S": "3600",
        "AGENTCOM_BACKUP_KEEP": "3",
        "AGENTCOM_DAMPERS_LIGHT_PER_MIN": "1",
        "AGENTCOM_DAMPERS_NORMAL_PER_MIN": "2",
        "AGENTCOM_DAMPERS_HEAVY_PER_MIN": "3",
        "AGENTCOM_DAMPERS_DENIED_PER_MIN": "4",
        "AGENTCOM_DAMPERS_CONNECT_PER_MIN": "5",
        "AGENTCOM_DAMPERS_EXEMPT": "agent,observer",
        "AGENTCOM_GIT_REMOTE_TIMEOUT_S": "7",
        "AGENTCOM_LOG_LEVEL": "debug",
        "AGENTCOM_LOG_FORMAT": "console",
    }
    assert set(values) == {key.variable for key in KEYS.values()}, "this test names every variable"
    found = resolve({}, values)
    assert found.warnings == []
    assert {origin.kind for origin in found.origins.values()} == {"environment"}
    settings = found.settings
    assert settings.data_dir == Path.home() / "data"
    assert settings.listen.tls_cert == Path("c.pem")
    assert [str(network) for network in settings.listen.trusted_networks] == ["100.64.0.0/10", "fd00::/8"]
    assert settings.terms.lease_us == 90_000_000
    assert settings.terms.max_live == 5


def test_relative_paths_in_a_file_start_at_its_directory(tmp_path: Path) -> None:
    found = resolve({}, {}, written(tmp_path, 'data_dir = "data"\n[listen]\ntls_cert = "c"\ntls_key = "/k"\n'))
    assert found.settings.data_dir == tmp_path / "data"
    assert (found.settings.listen.tls_cert, found.settings.listen.tls_key) == (tmp_path / "c", Path("/k"))


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_fault_of_every_source_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    text = 'prot = 1\n\n[listen]\nport = "8790"\ntrusted_networks = ["100.64.0.1/10", "x"]\n[leases]\n[lease]\nterm_s = 60\nbeat_s = 50\n'
    found = faults(text, tmp_path, {"AGENTCOM_LIMITS_MAX_LINKS": "many", "AGENTCOM_LOG_LEVEL": "loud"})
    assert [fault.partition(": ")[0] for fault in found] == [
        *("hub.toml:1", "hub.toml:6", "hub.toml:4", "hub.toml:5", "hub.toml:5"),
        *("AGENTCOM_LIMITS_MAX_LINKS", "AGENTCOM_LOG_LEVEL", "hub.toml:9"),
    ]
    text = "\n".join(found)
    assert "did you mean listen.port?" in text
    assert "leases: unknown key; did you mean [lease]?" in text
    assert "entry 1: '100.64.0.1/10' has bits set behind its prefix; the network is 100.64.0.0/10" in text
    assert "entry 2: 'x' is no address or network" in text
    assert "lease.beat_s: 50 is more than a sixth of term_s = 60; use 6.66667" in text


@pytest.mark.parametrize(
    ("written_key", "meant"),
    [
        ("listen.prot", "listen.port"),
        ("listen.level", "log.level"),
        ("max_live_tasks", "limits.max_live_tasks"),
        ("durabilty", "durability"),
        ("lease.term", "lease.term_s"),
    ],
)
def test_an_unknown_key_names_the_one_that_was_meant(tmp_path: Path, written_key: str, meant: str) -> None:
    (fault,) = faults(f"{written_key} = 1\n", tmp_path)
    assert fault == f"hub.toml:1: {written_key}: unknown key; did you mean {meant}?"


def test_a_key_like_no_other_is_told_what_there_is(tmp_path: Path) -> None:
    (fault,) = faults("[log]\nzzz = 1\n", tmp_path)
    assert fault.endswith("there are level, format")
    (fault,) = faults("zzz = 1\n", tmp_path)
    assert fault.endswith(
        "there are data_dir, durability, [listen], [lease], [dampers], [limits], [storage], [retention], [backup], [git], [log]"
    )


def test_a_value_that_another_source_overrules_is_judged_too(tmp_path: Path) -> None:
    (fault,) = faults("[listen]\nport = 70000\n", tmp_path, {"AGENTCOM_LISTEN_PORT": "1"})
    assert fault.startswith("hub.toml:2: listen.port: Input should be less than or equal to 65535")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen = 5\n", "hub.toml:1: listen: is a table; write its keys under [listen]"),
        ("port = \n", "hub.toml: is no TOML: Invalid value (at line 1, column 8)"),
        ("listen = { prot = 1 }\n", "hub.toml:1: listen.prot: unknown key; did you mean listen.port?"),
        ("[listen]\nhost = true\n", "hub.toml:2: listen.host: Input should be a valid string"),
        ("[listen]\nhost = 'hub.example.org'\n", "hub.toml:2: listen.host: 'hub.example.org' is no IP address"),
        ("data_dir = 5\n", "hub.toml:1: data_dir: Input should be a path"),
        ("[listen]\ntrusted_networks = '10.0.0.0/8'\n", "hub.toml:2: listen.trusted_networks: Input should be a list"),
        ("[lease]\nterm_s = nan\n", "hub.toml:2: lease.term_s: "),
        (
            "[listen]\ntls_key = 'k'\n",
            "hub.toml:2: listen.tls_key: needs listen.tls_cert: a certificate and its key belong together",
        ),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (fault,) = faults(text, tmp_path)
    assert fault.startswith(said)


def test_a_file_that_cannot_be_read_is_one_fault(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        resolve({}, {}, tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe4\n")
    with pytest.raises(SettingsError, match="is no TOML"):
        resolve({}, {}, tmp_path / "latin.toml")


# ── strangers in the environment ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AGENTCOM_HOST", "AGENTCOM_LISTEN_HOST"),
        ("AGENTCOM_PORT", "AGENTCOM_LISTEN_PORT"),
        ("AGENTCOM_LEASE_S", "AGENTCOM_LEASE_TERM_S"),
        ("AGENTCOM_LISTN_PORT", "AGENTCOM_LISTEN_PORT"),
        ("AGENTCOM_MAX_LIVE_TASKS", "AGENTCOM_LIMITS_MAX_LIVE_TASKS"),
        ("AGENTCOM_DATADIR", "AGENTCOM_DATA_DIR"),
    ],
)
def test_an_unknown_variable_is_a_warning_that_names_the_one_that_was_meant(name: str, meant: str) -> None:
    assert resolve({}, {name: "x"}).warnings == [f"{name} means nothing to the hub; did you mean {meant}?"]


def test_variables_of_other_programs_of_ours_are_no_strangers() -> None:
    ours = ("URL", "TOKEN", "TOKEN_FILE", "CONFIG", "TASK", "LEASE_EPOCH", "ACCESS", "RUN", "JOB", "RUN_LOG", "MOCK")
    assert resolve({}, {f"AGENTCOM_{name}": "x" for name in ours} | {"PATH": "/bin"}).warnings == []
    (warning,) = resolve({}, {"AGENTCOM_QQQ": "x"}).warnings
    assert "agentcom config show" in warning
