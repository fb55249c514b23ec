"""Which user agents run as, and what forbids it."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from hub.ids import Access
from sidecar.core.environment import agent_environment
from sidecar.runs import account
from sidecar.runs.account import AccountError, becoming, find_account
from sidecar.settings import account_faults, load

ME = pwd.getpwuid(os.geteuid()).pw_name


def entry(uid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd(("agents", "x", uid, 977, "", "/srv/agents", "/bin/false"))


def test_without_a_user_nothing_changes() -> None:
    assert find_account("") is None
    assert becoming(None) == {}


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
    assert becoming(found) == {"user": 977, "group": 977, "extra_groups": [], "umask": 0o022}
    own = {"PATH": "/bin", "HOME": "/root", "TMPDIR": "/root/tmp", "XDG_RUNTIME_DIR": "/run/user/0", "LANG": "C"}
    made = agent_environment(
        own, allow=["XDG_RUNTIME_DIR"], add={"X": "1"}, workspace={"TMPDIR": "/w/tmp"}, access=Access.WRITE,
        identity=found.environment,
    )  # fmt: skip
    assert made == {
        "PATH": "/bin", "LANG": "C", "HOME": "/srv/agents", "USER": "agents", "LOGNAME": "agents", "X": "1",
        "TERM": "dumb", "TMPDIR": "/w/tmp", "AGENTCOM_ACCESS": "write",
    }  # fmt: skip
