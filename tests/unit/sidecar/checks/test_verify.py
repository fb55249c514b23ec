from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from hub.ids import CheckStatus, VerificationKind
from hub.wire.spec import CheckReport, Verification, VerificationReport
from sidecar.checks.detect import detect_tests
from sidecar.checks.leaks import leaks_in, leaks_in_patch
from sidecar.checks.verify import FEEDBACK_LIMIT_CHARS, feedback, verify
from sidecar.workspace.workdir import WorkState
from tests.support.repos import write

ENV = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
CLEAN = WorkState(head_sha="0" * 40)
GITHUB = "ghp_" + "a1B2" * 9


def check(kind: VerificationKind, target: str = "", *argv: str, **more: Any) -> Verification:
    return Verification(kind=kind, target=target, argv=argv, **more)


def command(*argv: str, **more: Any) -> Verification:
    return check(VerificationKind.COMMAND_SUCCEEDS, "", *argv, **more)


TESTS = check(VerificationKind.TEST_PASSES)


async def one(
    workspace: Path, asked: Verification, *, env: dict[str, str] | None = None, state: WorkState | None = CLEAN
) -> CheckReport:
    report = await verify(workspace, [asked], env=ENV if env is None else env, state=state)
    assert report.passed is (report.checks[0].status is CheckStatus.PASS)
    return report.checks[0]


async def test_every_check_runs_whatever_an_earlier_one_said(tmp_path: Path) -> None:
    checks = [
        command("false"),
        command("/no/such/program"),
        check(VerificationKind.FILE_EXISTS, "missing"),
        command("touch", "made"),
        check(VerificationKind.FILE_EXISTS, "made"),
    ]
    report = await verify(tmp_path, checks, env=ENV, state=None)
    assert [c.status.value for c in report.checks] == ["fail", "error", "fail", "pass", "pass"]
    assert report.passed is False


async def test_all_passed_is_passed_and_nothing_to_check_is_an_empty_report(tmp_path: Path) -> None:
    assert (await verify(tmp_path, [command("true")], env=ENV, state=None)).passed
    assert await verify(tmp_path, [], env=ENV, state=None) == VerificationReport(passed=True)


async def test_a_command_is_an_argument_list_never_a_shell_line(tmp_path: Path) -> None:
    done = await one(tmp_path, command("printf", "%s", "a; touch canary $(touch canary)"))
    assert (done.status, done.output) == (CheckStatus.PASS, "a; touch canary $(touch canary)")
    assert not (tmp_path / "canary").exists()
    assert done.target == "printf %s 'a; touch canary $(touch canary)'"


@pytest.mark.parametrize(
    "argv", [(), ("/no/such/program",), ("no-such-program-anywhere",), ("sh", "-c", "nosuch"), ("sh", "-c", "/etc/passwd")]
)
async def test_a_command_that_could_not_run_is_an_error(tmp_path: Path, argv: tuple[str, ...]) -> None:
    done = await one(tmp_path, command(*argv))
    assert done.status is CheckStatus.ERROR
    assert done.output


async def test_a_command_runs_in_the_directory_it_names_with_exactly_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SIDECAR", "x")
    (tmp_path / "sub").mkdir()
    done = await one(
        tmp_path, check(VerificationKind.COMMAND_SUCCEEDS, "sub", "sh", "-c", "pwd; env"), env={**ENV, "MINE": "1"}
    )
    assert str(tmp_path / "sub") in done.output
    assert "MINE=1" in done.output
    assert "SECRET_OF_THE_SIDECAR" not in done.output
    for target in ("nowhere", "../", "/"):
        assert (await one(tmp_path, check(VerificationKind.COMMAND_SUCCEEDS, target, "true"))).status is CheckStatus.ERROR


async def test_checks_have_an_empty_home_of_their_own_that_goes_with_them(tmp_path: Path) -> None:
    """An agent's home is shared with later checks; what it leaves there must not run in them."""
    workspace, home = tmp_path / "work" / "tree", tmp_path / "home"
    workspace.mkdir(parents=True)
    env = {**ENV, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "PYTHONUSERBASE": str(home)}
    asked = [command("sh", "-c", 'ls -A "$HOME"; env; echo kept > "$HOME/kept"'), command("sh", "-c", 'cat "$HOME/kept"')]
    report = await verify(workspace, asked, env=env, state=None)
    assert [check.status for check in report.checks] == [CheckStatus.PASS] * 2
    said = report.checks[0].output
    assert str(home) not in said
    assert f"HOME={tmp_path / 'work'}" in said
    assert "PYTHONNOUSERSITE=1" in said
    assert "kept" not in said
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["tree"]


async def test_a_usercustomize_that_an_agent_left_does_not_decide_what_passes(tmp_path: Path) -> None:
    home, version = tmp_path / "home", f"python{sys.version_info.major}.{sys.version_info.minor}"
    write(home, {f".local/lib/{version}/site-packages/usercustomize.py": "import os\nos._exit(0)\n"})
    workspace = tmp_path / "work" / "tree"
    workspace.mkdir(parents=True)
    python = os.path.realpath(sys.executable)  # the interpreter of a virtual environment looks at no user's directory
    subverted = await one(workspace, command(python, "-c", "raise SystemExit(1)"), env={**ENV, "HOME": str(home)})
    assert subverted.status is CheckStatus.FAIL


async def test_only_the_tail_of_the_output_is_kept_and_bad_bytes_are_replaced(tmp_path: Path) -> None:
    done = await one(tmp_path, command("sh", "-c", r"head -c 300000 /dev/zero | tr '\0' x; printf 'end\377'; echo err >&2"))
    assert done.status is CheckStatus.PASS
    assert len(done.output) == 4096
    assert done.output.endswith("end\ufffderr\n")


async def test_a_command_killed_by_a_signal_fails_and_says_so(tmp_path: Path) -> None:
    done = await one(tmp_path, command("sh", "-c", "kill -SEGV $$"))
    assert (done.status, done.output.strip()) == (CheckStatus.FAIL, "ended by signal 11")


PASSING = {"test_it.py": "def test_it() -> None: pass\n"}


@pytest.mark.parametrize(
    ("files", "argv"),
    [
        ({"package.json": '{"scripts": {"test": "jest"}}'}, "npm test --silent"),
        ({"Cargo.toml": ""}, "cargo test --quiet"),
        ({"go.mod": ""}, "go test ./..."),
        ({"mix.exs": ""}, "mix test"),
        ({"pyproject.toml": "[tool.pytest.ini_options]\n", "Makefile": "test:\n"}, "python -m pytest -q -p no:cacheprovider"),
    ],
)
async def test_each_suite_is_run_by_its_own_program(tmp_path: Path, files: dict[str, str], argv: str) -> None:
    write(tmp_path / "work", files)
    program = argv.split(" ")[0]
    write(tmp_path / "bin", {program: f'#!/bin/sh\necho "{program} $*"\n'})
    (tmp_path / "bin" / program).chmod(0o755)
    found = await one(tmp_path / "work", TESTS, env={"PATH": str(tmp_path / "bin")})
    assert (found.status, found.output) == (CheckStatus.PASS, f"{argv}\n")
    absent = await one(tmp_path / "work", TESTS, env={"PATH": "/nonexistent"})
    assert absent.status is CheckStatus.ERROR


async def test_python_without_pytest_is_an_error_not_a_failure(tmp_path: Path) -> None:
    write(tmp_path, PASSING)
    write(tmp_path / "bin", {"python": '#!/bin/sh\necho "/bin/python: No module named pytest" >&2\nexit 1\n'})
    (tmp_path / "bin/python").chmod(0o755)
    assert (await one(tmp_path, TESTS, env={"PATH": str(tmp_path / "bin")})).status is CheckStatus.ERROR


async def test_a_fifo_left_in_place_of_a_project_file_does_not_hang(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "package.json", "Makefile"):
        os.mkfifo(tmp_path / name)
    assert (await one(tmp_path, TESTS)).status is CheckStatus.ERROR


@pytest.mark.parametrize(("name", "text"), [("Makefile", "test:\n\ttrue\n"), ("pyproject.toml", "[tool.pytest]\n")])
def test_a_link_in_place_of_a_project_file_is_not_read(tmp_path: Path, name: str, text: str) -> None:
    """It may lead to a device that never answers (/proc/kmsg), with rights the agent has not."""
    write(tmp_path, {"aside": text})
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / name).symlink_to(tmp_path / "aside")
    assert detect_tests(tmp_path / "work", os.defpath) is None


async def test_file_exists_only_inside_the_workspace(tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    write(workspace, {"a.txt": "", "sub/b.txt": ""})
    write(tmp_path, {"secret": ""})
    (workspace / "out").symlink_to(tmp_path / "secret")
    (workspace / "up").symlink_to("..")
    (workspace / "in").symlink_to("a.txt")
    (workspace / "broken").symlink_to("nowhere")
    expected = {
        "a.txt": "pass",
        "sub": "pass",
        "in": "pass",
        "none": "fail",
        "out": "fail",
        "up/secret": "fail",
        "broken": "fail",
    }
    expected |= {"../secret": "error", str(workspace / "a.txt"): "error", "": "error", "sub/../a.txt": "error", "a\0b": "error"}
    found = {target: (await one(workspace, check(VerificationKind.FILE_EXISTS, target))).status.value for target in expected}
    assert found == expected


async def test_git_clean_judges_the_inspected_state(tmp_path: Path) -> None:
    asked = check(VerificationKind.GIT_CLEAN)
    assert (await one(tmp_path, asked)).status is CheckStatus.PASS
    dirty = await one(tmp_path, asked, state=WorkState(head_sha=None, dirty=("a\x1b[31m.txt",), dirty_count=300))
    assert dirty.status is CheckStatus.FAIL
    assert "300 uncommitted" in dirty.output
    assert "\x1b" not in dirty.output
    assert (await one(tmp_path, asked, state=None)).status is CheckStatus.ERROR


def patch(path: str, *lines: str) -> bytes:
    return (
        f"commit {'0' * 40}\nmessage\n\ndiff --git a/{path} b/{path}\n@@ -0,0 +1 @@\n".encode()
        + "\n".join((*lines, "")).encode()
    )


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (CLEAN, CheckStatus.PASS),
        (WorkState(head_sha=None, patch=patch("a.py", "+x = 1")), CheckStatus.PASS),
        (WorkState(head_sha=None, patch=patch("a.py", f"-x = '{GITHUB}'")), CheckStatus.PASS),
        (WorkState(head_sha=None, patch=patch("a.py", f"+x = '{GITHUB}'")), CheckStatus.FAIL),
        (
            WorkState(head_sha=None, patch=patch("a.py", f"+x = '{GITHUB}'") + patch("a.py", f"-x = '{GITHUB}'")),
            CheckStatus.FAIL,
        ),
        (WorkState(head_sha=None, patch=f"commit {'0' * 40}\nuse {GITHUB}\n".encode()), CheckStatus.FAIL),
        (WorkState(head_sha=None, patch=None), CheckStatus.ERROR),
        (WorkState(head_sha=None, dirty=("a",), dirty_count=2), CheckStatus.ERROR),
        (WorkState(head_sha=None, dirty=("left.txt", "gone.txt", "inner/"), dirty_count=3), CheckStatus.FAIL),
        (WorkState(head_sha=None, dirty=("link",), dirty_count=1), CheckStatus.PASS),
        (WorkState(head_sha=None, dirty=("huge",), dirty_count=1), CheckStatus.ERROR),
        (None, CheckStatus.ERROR),
    ],
)
async def test_no_secrets_searches_every_commit_and_every_leftover(
    tmp_path: Path, state: WorkState | None, status: CheckStatus
) -> None:
    write(tmp_path, {"left.txt": f"token = {GITHUB}\n", "inner/x": GITHUB})
    (tmp_path / "link").symlink_to("left.txt")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(5 * 1024 * 1024)
    found = await one(tmp_path, check(VerificationKind.NO_SECRETS), state=state)
    assert found.status is status
    assert GITHUB not in found.output


def test_findings_name_the_file_and_the_kind() -> None:
    text = patch("with space.txt", f"+{GITHUB}", "\r-+x") + patch("key.pem", "+-----BEGIN RSA PRIVATE" + " KEY-----")
    assert list(leaks_in_patch(text)) == [("with space.txt", "GitHub token"), ("key.pem", "private key")]


def test_a_carriage_return_does_not_hide_a_secret() -> None:
    assert list(leaks_in_patch(patch("a", f"+x\r-{GITHUB}"))) == [("a", "GitHub token")]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("AWS access key", "AKIA" + "ABCDEFGHIJKLMNOP"),
        ("GitLab token", "glpat-" + "x" * 20),
        ("Slack token", "xoxb-" + "1" * 24),
        ("Stripe key", "sk_live_" + "a" * 24),
        ("Anthropic key", "sk-ant-" + "api03-" + "a" * 40),
        ("OpenAI key", "sk-" + "a" * 48),
        ("Google API key", "AIza" + "a" * 35),
        ("npm token", "npm_" + "a" * 36),
        ("private key", "-----BEGIN OPENSSH PRIVATE" + " KEY-----"),
        ("private key", "-----BEGIN PRIVATE" + " KEY-----"),
    ],
)
def test_known_shapes(kind: str, text: str) -> None:
    assert list(leaks_in(f"x = '{text}'".encode())) == [kind]


@pytest.mark.parametrize(
    "text", ["sk-learn", "task-list", "ghp_short", "AKIA", "npm_config_cache", "-----BEGIN CERTIFICATE-----", "0" * 64]
)
def test_ordinary_words_are_no_secrets(text: str) -> None:
    assert list(leaks_in(text.encode())) == []


def test_feedback_tells_what_failed_and_stays_bounded() -> None:
    failed = CheckReport(
        kind=VerificationKind.TEST_PASSES, status=CheckStatus.FAIL, duration_ms=1500, output="x" * 4000 + " the end"
    )
    passed = CheckReport(kind=VerificationKind.GIT_CLEAN, status=CheckStatus.PASS, output="unseen")
    text = feedback(VerificationReport(passed=False, checks=(failed, passed)))
    assert "1 of 2 checks" in text
    assert "test_passes" in text
    assert "the end" in text
    assert "unseen" not in text
    assert len(feedback(VerificationReport(passed=False, checks=(failed,) * 128))) <= FEEDBACK_LIMIT_CHARS
