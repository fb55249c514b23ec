"""``agentcom doctor`` and ``status --wait``: what is said, what is left alone, and what a script reads."""

import json
import subprocess

import httpx2
import pytest

from hub import __version__
from hub.cli import doctor, session, status
from hub.cli.exits import Exit
from hub.client import HubClient
from hub.ids import FindingState, Scope
from hub.wire.finding import Finding, fail, ok, warn
from sidecar import settings as sidecar_settings
from tests.unit.hub.cli.conftest import JOINED_FILE

NOBODY = ("--url", "http://127.0.0.1:9")


def findings(done):
    return {(one["side"], one["check"]): one for one in json.loads(done.stdout)["findings"]}


# ── a hub that answers ───────────────────────────────────────────────────────────────────────────────────────────────


def test_each_finding_is_told_with_its_cure(house, agentcom):
    house.doctor.findings = [ok("disk", "9 GiB free"), warn("clones", "not needed: old", "drop them", fixable=True)]
    done = agentcom("doctor")
    assert done.exit_code == 0, "a warning is no failure"
    assert "  ok    disk" in done.stdout
    assert "→ drop them  (--fix)" in done.stdout
    assert "admin: admin" in done.stdout
    assert house.doctor.mended == 0


def test_a_failure_is_exit_code_6(house, agentcom):
    house.doctor.findings = [fail("pragmas", "synchronous is 0", "restart the hub")]
    assert agentcom("doctor").exit_code == Exit.NOT_DONE
    done = agentcom("doctor", "--json")
    assert done.exit_code == Exit.NOT_DONE
    assert json.loads(done.stdout)["ok"] is False
    assert findings(done)["hub", "pragmas"] == {
        "side": "hub", "check": "pragmas", "state": "fail", "found": "synchronous is 0", "fix": "restart the hub", "fixable": False,
    }  # fmt: skip


def test_fixing_is_the_hubs_own_work(house, agentcom):
    assert agentcom("doctor", "--fix").exit_code == 0
    assert house.doctor.mended == 1


def test_a_token_that_may_not_look_is_told_so(house, agentcom):
    house.scope = Scope.OBSERVER
    found = findings(agentcom("doctor", "--json"))
    assert (found["hub", "hub"]["state"], found["hub", "hub"]["fix"]) == ("warn", "use an operator's token")
    house.scope = Scope.OPERATOR
    found = findings(agentcom("doctor", "--fix", "--json"))
    assert found["hub", "hub"]["fix"] == "use an administrator's token"
    assert house.doctor.mended == 0


def test_an_unknown_token_is_a_failure_and_nothing_more_is_asked(house, agentcom):
    house.tokens = {**house.tokens, Scope.ADMIN: f"ac_{'0' * 8}_{'x' * 43}"}
    done = agentcom("doctor", "--json")
    assert done.exit_code == Exit.NOT_DONE
    found = findings(done)
    assert found["client", "token"]["state"] == "fail"
    assert not any(side == "hub" for side, _ in found)


@pytest.mark.parametrize(
    ("apart", "state", "words"),
    [(0.4, "ok", "like the hub's"), (-90.0, "warn", "90 s ahead of"), (90.0, "warn", "90 s behind"), (None, "warn", "no date")],
)
def test_clocks_are_compared(apart, state, words):
    found = doctor.judge_clock(apart)
    assert found.state == state
    assert words in found.found


def test_another_version_is_a_warning():
    assert doctor.judge_version(__version__).state == "ok"
    assert "install agentcom 9.9 here" in doctor.judge_version("9.9").fix


# ── a hub that does not ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("AGENTCOM_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data").mkdir(mode=0o755)
    (tmp_path / "data" / "repositories").mkdir()
    (tmp_path / "data" / "repositories" / "site.git").mkdir()
    (tmp_path / "data" / "hub.key").touch(mode=0o600)
    return tmp_path / "data"


def test_without_a_hub_its_directory_is_examined(agentcom, data_dir):
    done = agentcom(*NOBODY, "doctor", "--json")
    assert done.exit_code == Exit.NOT_DONE
    found = findings(done)
    assert "agentcom server start-dev" in found["client", "hub"]["fix"]
    assert found["hub", "permissions"]["fixable"] is True
    assert {("hub", "sqlite"), ("hub", "disk"), ("hub", "git"), ("hub", "store")} <= set(found)
    assert data_dir.stat().st_mode & 0o777 == 0o755


def test_without_a_hub_nothing_but_rights_is_mended(agentcom, data_dir):
    found = findings(agentcom(*NOBODY, "doctor", "--fix", "--json"))
    assert found["hub", "permissions"]["state"] == "ok"
    assert data_dir.stat().st_mode & 0o777 == 0o700
    assert (data_dir / "repositories" / "site.git").is_dir()


def test_the_directory_is_the_one_of_the_configuration(agentcom, data_dir, tmp_path, monkeypatch):
    monkeypatch.delenv("AGENTCOM_DATA_DIR")
    (tmp_path / "hub.toml").write_text('data_dir = "data"\n')
    done = agentcom(*NOBODY, "doctor", "--config", str(tmp_path / "hub.toml"), "--json")
    assert str(data_dir) in findings(done)["hub", "permissions"]["found"]


def test_a_hub_elsewhere_tells_nothing_about_this_machine(agentcom, data_dir, monkeypatch):
    monkeypatch.setattr(doctor, "is_loopback", lambda _url: False)
    done = agentcom(*NOBODY, "doctor", "--json")
    assert {side for side, _ in findings(done)} == {"client"}
    assert "check the address" in findings(done)["client", "hub"]["fix"]


# ── the sidecar ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def sidecar(monkeypatch):
    """What the sidecar's doctor prints, and how it ends."""

    def say(stdout="", stderr="", code=0, fault=None):
        def run(argv, **_):
            assert argv[1:] == ["-m", "sidecar", "doctor", "--config", "s.toml", "--json"]
            if fault is not None:
                raise fault
            return subprocess.CompletedProcess(argv, code, stdout, stderr)

        monkeypatch.setattr(doctor.subprocess, "run", run)

    return say


def test_what_the_sidecar_finds_is_merged(house, agentcom, sidecar):
    one = {"check": "shims", "state": "fail", "found": "1 orphan", "fix": "stop it", "fixable": False, "more": 1}
    sidecar(json.dumps({"findings": [one]}), code=6)
    done = agentcom("doctor", "--sidecar-config", "s.toml", "--json")
    assert done.exit_code == Exit.NOT_DONE
    del one["more"]
    assert findings(done)["sidecar", "shims"] == {"side": "sidecar"} | one


@pytest.mark.parametrize(
    "answer",
    [
        {"stderr": "Usage: …\n│ No such command 'doctor'. │\n╰────╯\n", "code": 2},
        {"stdout": "{"},
        {"stdout": "[]"},
        {"stdout": '{"findings": [{"check": "x"}]}'},
        {"stdout": '{"findings": [{"check": "x", "state": "odd", "found": "", "fix": null}]}'},
        {"stdout": '{"findings": 5}'},
        {"fault": subprocess.TimeoutExpired("x", 1)},
        {"fault": OSError("no such program")},
    ],
)
def test_a_sidecar_that_tells_nonsense_is_a_warning(house, agentcom, sidecar, answer):
    sidecar(**answer)
    done = agentcom("doctor", "--sidecar-config", "s.toml", "--json")
    assert done.exit_code == 0
    found = findings(done)["sidecar", "sidecar"]
    assert found["state"] == "warn"
    assert "-m sidecar doctor --config s.toml" in found["fix"]
    if "stderr" in answer:
        assert found["found"].endswith("No such command 'doctor'.")


def test_foreign_words_are_harmless(house, agentcom, sidecar):
    sidecar(
        json.dumps(
            {"findings": [{"check": "\x1b[2J", "state": "ok", "found": "\x1b[31m\u202e", "fix": "\x07", "fixable": False}]}
        )
    )
    house.doctor.findings = [Finding("a\x1b", FindingState.OK, "\x9b31m")]
    printed = agentcom("doctor", "--sidecar-config", "s.toml").output
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(printed)


# ── waiting for a hub ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def quickly(monkeypatch):
    monkeypatch.setattr(status, "LOOK_AGAIN_S", 0.001)


def test_waiting_ends_when_the_hub_is_ready(house, agentcom, monkeypatch, quickly):
    house.ready["store"] = False
    asked = []

    class Readiness(dict):
        def values(self):
            asked.append(1)
            self["store"] = len(asked) > 2
            return super().values()

    house.ready = Readiness(house.ready)
    done = agentcom("status", "--wait")
    assert done.exit_code == 0
    assert len(asked) >= 3
    assert "ready" in done.stdout


def test_a_hub_that_is_never_ready_is_7_and_says_what_is_missing(house, agentcom, quickly):
    house.ready["store"] = False
    done = agentcom("status", "--wait", "--timeout", "0.05")
    assert done.exit_code == Exit.LATER
    assert "waited 0.05 s: http://127.0.0.1:8790 answers, but is not ready: store" in done.stderr


def test_a_hub_that_never_answers_is_3(agentcom, quickly):
    done = agentcom(*NOBODY, "status", "--wait", "--timeout", "0.2")
    assert done.exit_code == Exit.UNREACHABLE
    assert "waited 0.2 s: no answer from http://127.0.0.1:9" in done.stderr


def test_without_waiting_a_hub_that_is_not_there_is_told_at_once(agentcom):
    assert agentcom(*NOBODY, "status").exit_code == Exit.UNREACHABLE


async def test_a_machine_that_only_has_agents_needs_no_token_of_a_person(house, monkeypatch, tmp_path):
    monkeypatch.setattr(session, "find_token", lambda target, admin=False: None)
    monkeypatch.setattr(doctor, "find_token", lambda target, admin=False: None)
    async with HubClient("http://hub", None, transport=httpx2.ASGITransport(house.app)) as hub:
        assert (await doctor._token(hub, session.Target())).state == "fail"
        (tmp_path / "none.toml").touch()
        assert (await doctor._token(hub, session.Target())).state == "warn"


@pytest.mark.parametrize("uid", [0, 1000])
def test_the_doctor_looks_where_a_join_of_the_same_user_writes(monkeypatch, uid):
    monkeypatch.setattr("os.geteuid", lambda: uid)
    assert JOINED_FILE() == sidecar_settings.default_file()
