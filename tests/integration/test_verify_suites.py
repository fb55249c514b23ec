"""Verification with real test suites, and with processes that will not end by themselves."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from hub.ids import CheckStatus, VerificationKind
from hub.wire.spec import CheckReport, Verification
from sidecar.checks.verify import verify
from tests.support.repos import write

ENV = {
    "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}
TESTS = Verification(kind=VerificationKind.TEST_PASSES)
PASSING = {"test_it.py": "def test_it() -> None: pass\n"}


def command(*argv: str, **more: Any) -> Verification:
    return Verification(kind=VerificationKind.COMMAND_SUCCEEDS, argv=argv, **more)


def check(kind: VerificationKind, target: str) -> Verification:
    return Verification(kind=kind, target=target)


async def one(workspace: Path, asked: Verification, *, env: dict[str, str] | None = None) -> CheckReport:
    report = await verify(workspace, [asked], env=env or ENV, state=None)
    assert report.passed is (report.checks[0].status is CheckStatus.PASS)
    return report.checks[0]


async def test_timeout_kills_every_descendant_also_in_sessions_of_their_own(tmp_path: Path) -> None:
    script = "setsid sleep 97 & setsid sh -c 'sleep 98 & wait' & echo started; sleep 99"
    done = await one(tmp_path, command("sh", "-c", script, timeout_s=1), env={**ENV, "VERIFY_TEST": str(tmp_path)})
    assert (done.status, done.output) == (CheckStatus.TIMEOUT, "started\n")
    assert 900 <= done.duration_ms < 20_000
    assert alive_with(f"VERIFY_TEST={tmp_path}") == []


async def test_a_background_child_neither_delays_the_answer_nor_outlives_it(tmp_path: Path) -> None:
    done = await one(tmp_path, command("sh", "-c", "setsid sleep 96 & echo done"), env={**ENV, "VERIFY_TEST": str(tmp_path)})
    assert (done.status, done.output) == (CheckStatus.PASS, "done\n")
    assert done.duration_ms < 30_000
    assert alive_with(f"VERIFY_TEST={tmp_path}") == []


def alive_with(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("files", "status"),
    [
        (PASSING, CheckStatus.PASS),
        ({"tests/test_it.py": "def test_it() -> None: assert 0\n"}, CheckStatus.FAIL),
        ({"conftest.py": "raise RuntimeError\n"}, CheckStatus.ERROR),
        ({"pytest.ini": "[pytest]\n"}, CheckStatus.ERROR),  # nothing collected
        ({"Makefile": "test:\n\ttrue\n"}, CheckStatus.PASS),
        ({"Makefile": "test:\n\tfalse\n"}, CheckStatus.FAIL),
        ({"Makefile": "all:\n\ttrue\n"}, CheckStatus.ERROR),
        ({"Makefile": "test:\n", "test/x": ""}, CheckStatus.ERROR),  # make does nothing and succeeds
        ({"package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}'}, CheckStatus.ERROR),
        ({"package.json": "[" * 100_000}, CheckStatus.ERROR),
        ({"readme.txt": "nothing to recognise\n"}, CheckStatus.ERROR),
    ],
    ids=str,
)
async def test_suites_are_recognised_and_nothing_recognised_is_an_error(
    tmp_path: Path, files: dict[str, str], status: CheckStatus
) -> None:
    write(tmp_path, files)
    assert (await one(tmp_path, TESTS)).status is status
    assert not list(tmp_path.rglob("__pycache__"))
    assert not list(tmp_path.rglob(".pytest_cache"))


async def test_one_file_or_one_directory_of_tests(tmp_path: Path) -> None:
    write(
        tmp_path, {"sub/test_good.py": "def test_it() -> None: pass\n", "sub/test_bad.py": "def test_it() -> None: assert 0\n"}
    )
    write(tmp_path, {"conftest.py": "", "script.sh": ""})
    assert (await one(tmp_path, check(VerificationKind.TEST_PASSES, "sub/test_good.py"))).status is CheckStatus.PASS
    assert (await one(tmp_path, check(VerificationKind.TEST_PASSES, "sub"))).status is CheckStatus.FAIL
    assert (await one(tmp_path, check(VerificationKind.TEST_PASSES, "../x"))).status is CheckStatus.ERROR
