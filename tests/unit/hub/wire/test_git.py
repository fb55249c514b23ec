from __future__ import annotations

import subprocess

import pytest

from hub.ids import LeaseEpoch, TaskId
from hub.wire.git import (
    UnsafeNameError,
    assignment_branch,
    check_branch_name,
    check_ref_name,
    check_url,
    git_argv,
    git_env,
    has_controls,
    salvage_branch,
    trailers,
)

HOSTILE_NAMES = [
    "",
    "-rf",
    "--upload-pack=touch x",
    "a..b",
    "a b",
    "a~1",
    "a^",
    "a:b",
    "a?",
    "a*",
    "a[b",
    "a\\b",
    "a//b",
    "/a",
    "a/",
    ".a",
    "a/.b",
    "a.",
    "a.lock",
    "a.lock/b",
    "a@{1}",
    "@",
    "HEAD",
    "a\nb",
    "a\x7f",
    "a\x1b[31m",
    "a\u202eb",
    "a\u200bb",
    "a\ud800",
    "x" * 201,
    "refs/heads/a",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_branch_name_is_refused(name: str) -> None:
    with pytest.raises(UnsafeNameError) as refused:
        check_branch_name(name)
    assert refused.value.code == "invalid_branch"
    assert not has_controls(str(refused.value))


@pytest.mark.parametrize("name", ["main", "agentcom/t-1/3", "feature/ünïcode", "a.b", "v1.2-rc_3", "x" * 200, "a@b", "a{b}"])
def test_legal_branch_name_passes_and_git_agrees(name: str) -> None:
    assert check_branch_name(name) == name
    subprocess.run(["git", "check-ref-format", "--branch", name], check=True, capture_output=True)


def test_no_name_that_git_refuses_passes() -> None:
    for name in HOSTILE_NAMES:
        if "\ud800" in name or not name:
            continue
        git_refuses = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False).returncode != 0
        if git_refuses:
            with pytest.raises(UnsafeNameError):
                check_ref_name(f"refs/heads/{name}")


def test_ref_must_be_full() -> None:
    assert check_ref_name("refs/heads/main") == "refs/heads/main"
    for name in ("main", "HEAD", "--all", "refs/heads/../../config", "refs/heads/a b"):
        with pytest.raises(UnsafeNameError):
            check_ref_name(name)


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("https://example.org/a/b.git", "https"),
        ("https://example.org:8443/a", "https"),
        ("https://[::1]/a", "https"),
        ("ssh://git@example.org/a/b.git", "ssh"),
        ("ssh://git@example.org:2222/a", "ssh"),
        ("git@example.org:team/a.git", "ssh"),
        ("example.org:a", "ssh"),
        ("git@[::1]:a", "ssh"),
        ("/srv/git/a.git", "file"),
        ("/srv/with space/a.git", "file"),
        ("file:///srv/git/a.git", "file"),
    ],
)
def test_known_url_forms(url: str, protocol: str) -> None:
    assert check_url(url) == protocol


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-uroot",
        "--upload-pack=x",
        "ext::sh -c 'touch x'",
        "fd::17",
        "file::/a",
        "http://example.org/a",
        "git://example.org/a",
        "ftp://example.org/a",
        "javascript://x/a",
        "relative/path",
        "../up",
        "https://example.org/a\nb",
        "https://example.org/a%0ahost=evil.example",
        "https://example.org/a\u202e",
        "https:///a",
        "https://exa mple.org/a",
        "https://example.org:99999/a",
        "ssh://-oProxyCommand=touch/a",
        "ssh://-oProxyCommand@example.org/a",
        "-oProxyCommand=x:a",
        "git@-oProxyCommand=x:a",
        "host:-a",
        "file://otherhost/a",
        "file://relative",
        "x" * 2049,
    ],
)
def test_hostile_url_is_refused(url: str) -> None:
    with pytest.raises(UnsafeNameError) as refused:
        check_url(url)
    assert refused.value.code == "invalid_url"


@pytest.mark.parametrize(
    "url", ["https://me:pass-word@example.org/a", "https://to-ken@example.org/a", "ssh://me:pass-word@example.org/a"]
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UnsafeNameError) as refused:
        check_url(url)
    assert refused.value.code == "credentials_in_url"
    assert "pass-word" not in str(refused.value)
    assert "to-ken" not in str(refused.value)


def test_malformed_url_is_not_repeated_in_the_message() -> None:
    with pytest.raises(UnsafeNameError) as refused:
        check_url("https://me:pass-word@exa mple.org:port/a")
    assert "pass-word" not in str(refused.value)


def test_argv_puts_the_hardening_before_the_subcommand() -> None:
    argv = git_argv("status", "--short", git_dir="/g", work_tree="/w")
    assert argv[0] == "git"
    assert argv[-4:] == ["--git-dir=/g", "--work-tree=/w", "status", "--short"]
    settings = [argv[i + 1] for i, word in enumerate(argv) if word == "-c"]
    for needed in ("core.hooksPath=/dev/null", "core.fsmonitor=false", "transfer.fsckObjects=true", "gc.auto=0"):
        assert needed in settings


def test_git_accepts_every_setting() -> None:
    subprocess.run(git_argv("version"), check=True, capture_output=True, env=git_env({"PATH": "/usr/bin:/bin:/usr/local/bin"}))


def test_environment_is_built_from_nothing() -> None:
    hostile = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "GIT_SSH_COMMAND": "touch x",
        "GIT_DIR": "/elsewhere",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_PARAMETERS": "'core.pager=x'",
        "GIT_EXTERNAL_DIFF": "x",
        "LD_PRELOAD": "x",
        "SSH_AUTH_SOCK": "/s",
        "AGENTCOM_TOKEN": "x",
    }
    env = git_env(hostile)
    assert env["HOME"] != "/home/me"
    assert env["GIT_CONFIG_GLOBAL"] == "/dev/null"
    for name in set(hostile) - {"PATH", "HOME"}:
        assert name not in env
    assert env["GIT_TERMINAL_PROMPT"] == "0"
    assert env["LC_ALL"] == "C"


def test_credentials_pass_only_when_asked_for_and_never_the_system_configuration() -> None:
    environ = {"PATH": "/bin", "HOME": "/home/me", "SSH_AUTH_SOCK": "/s", "GIT_CONFIG_GLOBAL": "/g", "GIT_DIR": "/d"}
    env = git_env(environ, credentials=True)
    assert (env["HOME"], env["SSH_AUTH_SOCK"], env["GIT_CONFIG_GLOBAL"]) == ("/home/me", "/s", "/g")
    assert env["GIT_CONFIG_NOSYSTEM"] == "1"
    assert "GIT_DIR" not in env
    assert "GIT_CONFIG_GLOBAL" not in git_env({"HOME": "/home/me"}, credentials=True)


def test_file_transport_only_when_asked_for() -> None:
    assert git_env({})["GIT_ALLOW_PROTOCOL"] == "https:ssh"
    assert git_env({}, allow_file=True)["GIT_ALLOW_PROTOCOL"] == "file:https:ssh"


def test_names_carry_the_fence() -> None:
    task, epoch = TaskId(17), LeaseEpoch(3)
    assert assignment_branch(task, epoch) == "agentcom/t-17/3"
    assert salvage_branch(task, epoch) == "agentcom/salvage/t-17/3"
    assert trailers(task, epoch) == "AgentCom-Task: t-17\nAgentCom-Lease-Epoch: 3"
    check_branch_name(assignment_branch(task, epoch))
