"""Which user agents run as, and what forbids it."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from hub.ids import Access
from sidecar.core.environment import agent_environment
from sidecar.runs import account
from sidecar.runs.account import Account, AccountError, as_account, as_ids, find_account
from sidecar.settings import account_faults, load

ME = pwd.getpwuid(os.geteuid()).pw_name


def entry(uid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd(("agents", "x", uid, 977, "", "/srv/agents", "/bin/false"))


def test_without_a_user_nothing_changes() -> None:
    assert find_account("") is None
    assert as_account(None, ["x"], {"LD_PRELOAD": "y"}) == (["x"], {"LD_PRELOAD": "y"})


def test_an_unknown_user_is_a_fault_that_says_how_to_make_it() -> None:
    with pytest.raises(AccountError, match="useradd --system --create-home nobody-of-that-name"):
        find_account("nobody-of-that-name")


def test_only_root_changes_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(account.pwd, "getpwnam", lambda _: entry(977))
    monkeypatch.setattr(account.os, "geteuid", lambda: 1000)
    with pytest.raises(AccountError, match="only root"):
        find_account("agents")
    (tmp_path / "s.toml").write_text('hub_url = "ws://h/ws"\nrun_as = "agents"\n[[agents]]\nid = "a"\nruntime = "mock"\n')
    assert account_faults(load(tmp_path / "s.toml"))[0].startswith("run_as: only root")
    monkeypatch.setattr(account.os, "geteuid", lambda: 977)
    assert find_account("agents") is None, "it is that user already"


def test_root_is_no_unprivileged_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account.pwd, "getpwnam", lambda _: entry(0))
    monkeypatch.setattr(account.os, "geteuid", lambda: 0)
    with pytest.raises(AccountError, match="root itself"):
        find_account("root")


def test_another_user_gets_no_groups_and_none_of_the_sidecars_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account.pwd, "getpwnam", lambda _: entry(977))
    monkeypatch.setattr(account.os, "geteuid", lambda: 0)
    found = find_account("agents")
    assert found is not None
    assert as_account(found, ["git", "x"], {"PATH": "/usr/bin"}) == (
        [account.setpriv(), "--reuid", "977", "--regid", "977", "--clear-groups", "--", "git", "x"],
        {"PATH": "/usr/bin"},
    )
    own = {"PATH": "/bin", "HOME": "/root", "TMPDIR": "/root/tmp", "XDG_RUNTIME_DIR": "/run/user/0", "LANG": "C"}
    made = agent_environment(
        own, allow=["XDG_RUNTIME_DIR"], add={"X": "1"}, workspace={"TMPDIR": "/w/tmp"}, access=Access.WRITE,
        identity=found.environment,
    )  # fmt: skip
    assert made == {
        "PATH": "/bin", "LANG": "C", "HOME": "/srv/agents", "USER": "agents", "LOGNAME": "agents", "X": "1",
        "TERM": "dumb", "TMPDIR": "/w/tmp", "AGENTCOM_ACCESS": "write",
    }  # fmt: skip


def test_the_program_that_changes_users_is_the_systems_whatever_an_agents_path_says(tmp_path: Path) -> None:
    (tmp_path / "setpriv").touch(0o755)
    (tmp_path / "work").touch(0o755)
    argv, _ = as_ids(977, 977, ["work"], {"PATH": str(tmp_path)})
    assert argv[0] in {"/usr/bin/setpriv", "/bin/setpriv"}


def test_what_makes_a_program_load_code_counts_only_for_the_other_user() -> None:
    argv, env = as_ids(977, 977, ["git"], {"PATH": "/usr/bin", "LD_PRELOAD": "/tmp/a.so", "AGENTCOM_RUN": "r"})
    assert env == {"PATH": "/usr/bin", "AGENTCOM_RUN": "r"}
    assert argv[argv.index("--") :] == ["--", "/usr/bin/env", "LD_PRELOAD=/tmp/a.so", "git"]


def test_a_program_that_is_not_there_is_found_before_the_user_is_changed() -> None:
    for name in ("no-such-program-anywhere", "/no/such/program"):
        with pytest.raises(FileNotFoundError, match=name):
            as_ids(977, 977, [name], {"PATH": "/usr/bin"})


def test_a_machine_that_cannot_change_users_is_a_fault_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account.pwd, "getpwnam", lambda _: entry(977))
    monkeypatch.setattr(account.os, "geteuid", lambda: 0)
    monkeypatch.setattr(account, "setpriv", lambda: None)
    with pytest.raises(AccountError, match="install util-linux"):
        find_account("agents")
    with pytest.raises(FileNotFoundError, match="setpriv"):
        as_account(Account("agents", 977, 977, Path("/")), ["git"], {"PATH": "/usr/bin"})
