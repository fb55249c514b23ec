"""Two hubs on one machine at once: ten agents of the same names, three repositories, two users where that can be had."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.client import HubClient
from hub.ids import CHECKS
from tests.support.fleet import ENDED, Fleet, wait_until
from tests.support.interpreters import interpreter_for_all
from tests.support.repos import git

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[2]
AGENTS = ["w-1", "w-2", "w-3", "w-4"]
CHECK = {"kind": "file_exists", "target": "README.md"}


class Tenant(Fleet):
    """A fleet whose processes belong to a user of their own."""

    def __init__(self, root: Path, user: str | None) -> None:
        super().__init__(root, agents=len(AGENTS))
        self.user = user

    def hand_over(self) -> None:
        """Everything made so far is that user's alone."""
        if self.user is not None:
            for path in [self.root, *self.root.rglob("*")]:
                shutil.chown(path, self.user)
        self.root.chmod(0o700)

    async def _spawn(self, argv: list[str], name: str, env: dict[str, str]) -> asyncio.subprocess.Process:
        home = {"HOME": str(self.root), "XDG_STATE_HOME": str(self.root / "xdg"), "XDG_DATA_HOME": str(self.root / "xdg")}
        interpreter, path = interpreter_for_all() if self.user else (sys.executable, str(ROOT))
        self.hand_over()
        with (self.root / f"{name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                interpreter,
                "-m",
                *argv,
                cwd=self.root,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**env, **home, "PYTHONPATH": path},
                start_new_session=True,
                user=self.user,
                group=pwd.getpwnam(self.user).pw_gid if self.user else None,
                extra_groups=[] if self.user else None,
            )


def second_user() -> str | None:
    """Another user than ours who can run the program; None where there is none (then both hubs are one user's)."""
    if os.geteuid() != 0:
        return None
    interpreter, path = interpreter_for_all()
    if not Path(interpreter).exists():
        return None
    account = pwd.getpwnam("nobody")
    tried = subprocess.run(
        [interpreter, "-c", "import hub.app, sidecar.app"],
        env={**os.environ, "PYTHONPATH": path},
        user="nobody",
        group=account.pw_gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        check=False,
    )
    return "nobody" if tried.returncode == 0 else None


@pytest.fixture
def roots() -> Iterator[tuple[Path, Path]]:
    """Two directories below one that everybody may pass: pytest's own is closed to other users."""
    top = Path(tempfile.mkdtemp(prefix="agentcom-two-"))
    top.chmod(0o755)
    for name in ("one", "two"):
        (top / name).mkdir()
    yield top / "one", top / "two"
    shutil.rmtree(top)


def repository(tenant: Tenant, name: str) -> Path:
    bare = tenant.root / f"{name}.git"
    seed = tenant.root / f"{name}-seed"
    git("init", "-q", "-b", "main", str(seed), cwd=tenant.root)
    (seed / "README.md").write_text(f"# {name}\n")
    git("add", "-A", cwd=seed)
    git("commit", "-q", "-m", f"Begin {name}", cwd=seed)
    git("clone", "-q", "--bare", str(seed), str(bare), cwd=tenant.root)
    return bare


async def start(tenant: Tenant, repositories: list[str]) -> None:
    for name in repositories:
        repository(tenant, name)
    await tenant.start_hub()
    for name in AGENTS:
        tenant.configure_sidecar(name, [])
        await tenant.start_sidecar(name)
    tenant.configure_sidecar("checks", [CHECKS])
    await tenant.start_sidecar("checks")
    async with tenant.client() as hub:
        for name in repositories:
            await hub.add_repo(
                name, str(tenant.root / f"{name}.git"), base="main", policy={"auto_merge_tier1": True}, checks=[CHECK]
            )  # type: ignore[list-item]  # a literal is no TypedDict to mypy


async def work(tenant: Tenant, repositories: list[str], each: int) -> None:
    """Submit ``each`` tasks per repository and wait until all are merged."""
    async with tenant.client() as hub:
        for i in range(each):
            for name in repositories:
                step = {"do": "change", "path": f"{name}-{i}.txt", "text": name, "message": f"feat: {name} {i}"}
                await hub.submit({"title": f"{name} {i}", "repo": name, "metadata": {"mock": [step]}})

        async def over() -> bool:
            tasks = [task async for task in hub.every_task()]
            return len(tasks) == each * len(repositories) and all(task["state"] in ENDED for task in tasks)

        await wait_until(over, limit_s=90, what=f"all tasks of {tenant.root.name} end")
        assert {task["state"] async for task in hub.every_task()} == {"done"}
        assert {agent["id"] for agent in (await hub.agents())["agents"]} == {*AGENTS, "checks"}
        status = await hub.status()
        assert (status["changes"], status["finished_24h"]["done"] >= each * len(repositories)) == ({}, True)


async def test_two_hubs_with_ten_agents_and_three_repositories_do_not_meet(roots: tuple[Path, Path]) -> None:
    one, two = Tenant(roots[0], None), Tenant(roots[1], second_user())
    work_of = {one: ["alpha", "beta"], two: ["gamma"]}
    try:
        await asyncio.gather(*(start(tenant, names) for tenant, names in work_of.items()))
        assert one.port != two.port
        async with HubClient(one.url, two.admin_token) as wrong:
            with pytest.raises(Exception, match="a valid token is needed"):
                await wrong.status()
        await asyncio.gather(work(one, work_of[one], 3), work(two, work_of[two], 4))
        for tenant, names in work_of.items():
            for name in names:
                shown = git("--git-dir", f"{name}.git", "ls-tree", "-r", "--name-only", "main", cwd=tenant.root, env=TRUSTED)
                assert {line.split("-")[0] for line in shown.splitlines() if line != "README.md"} == {name}
                assert len(shown.splitlines()) == 1 + (3 if tenant is one else 4)
        if two.user is not None:
            owners = {path.owner() for path in two.root.rglob("*") if path.suffix != ".log"}
            assert owners == {two.user}, "whatever the second hub and its sidecars wrote is its user's"
    finally:
        await asyncio.gather(one.close(), two.close())


TRUSTED = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}


async def test_what_two_hubs_cannot_share_is_refused_with_the_cure(roots: tuple[Path, Path]) -> None:
    one, two = Tenant(roots[0], None), Tenant(roots[1], None)
    two.port, two.url = one.port, one.url
    same_data = Tenant(roots[0], None)
    try:
        await one.start_hub()
        for tenant, said in ((two, "cannot listen on"), (same_data, "another hub has")):
            argv = [sys.executable, "-m", "hub.cli", "server", "start-dev"]
            argv += ["--port", str(tenant.port), "--data-dir", str(tenant.data_dir)]
            done = await asyncio.to_thread(
                subprocess.run, argv, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
            )
            assert done.returncode == 1, done.stderr
            assert said in done.stderr
            assert "--port" in done.stderr or "--data-dir" in done.stderr
            assert "Traceback" not in done.stderr
    finally:
        await one.close()
