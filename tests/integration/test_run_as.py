"""A sidecar that is root runs agents and checks as somebody else, who can reach the work and nothing beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hub.ids import LeaseEpoch, TaskId, VerificationKind
from hub.wire import frames
from hub.wire.spec import RepoRef, Spec, Verification
from sidecar.checks.verify import verify
from sidecar.runs import sweep
from sidecar.runs.account import Account, as_account, find_account
from sidecar.runs.clock import boot_us
from sidecar.runs.process import run
from sidecar.runs.runner import Deadline, Order, Runner
from sidecar.runtimes.base import Launch
from sidecar.workspace.premises import open_premises
from sidecar.workspace.workspaces import GitIdentity, Workspace, WorkspaceError, Workspaces
from tests.support.fake_hub import FakeHub, running
from tests.support.repos import Remote, git, make_remote

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run agents as another user")

ROOT = Path(__file__).parents[2]
NOBODY = "nobody"
AGENT = """
set -u
{ id -u; id -g; id -G; echo "$HOME"; } > who.txt
cat "$1" > prompt.txt || exit 3
echo said > /dev/stderr
: > "$TMPDIR/mine" || exit 4
for secret in token state/agents/a/journal state/lock state/install_id; do
  cat "$2/$secret" >> stolen.txt 2>/dev/null
done
for place in state state/agents state/workspaces/work; do ls "$2/$place" >> stolen.txt 2>/dev/null; done
find "$2/state/workspaces/repos" -writable > written.txt
( sleep 600 & ) ; setsid sleep 601 &
git add -A && git commit -q -m "Work as somebody else"
echo "left by $$" > left-over.txt
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that others can reach: pytest's own are closed to them."""
    directory = Path(tempfile.mkdtemp(prefix="agentcom-run-as-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def account() -> Account:
    found = find_account(NOBODY)
    assert found is not None
    return found


@pytest.fixture
def remote(place: Path) -> Remote:
    return make_remote(place / "remotes", {"a.txt": "one\n", "src/b.txt": "two\n"})


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with running(FakeHub()) as hub:
        yield hub


async def test_an_agent_of_a_root_sidecar_is_nobody_and_its_work_is_verified_and_pushed(
    place: Path, remote: Remote, hub: FakeHub
) -> None:
    sidecar = await start(place, hub)
    try:
        checks = (
            Verification(
                kind=VerificationKind.COMMAND_SUCCEEDS, argv=("sh", "-c", f"test $(id -u) = {pwd.getpwnam(NOBODY).pw_uid}")
            ),
            Verification(kind=VerificationKind.COMMAND_SUCCEEDS, argv=("sh", "-c", f"! cat {place}/token"), target="src"),
            Verification(kind=VerificationKind.COMMAND_SUCCEEDS, argv=("sh", "-c", "echo told > /dev/stderr")),
            Verification(kind=VerificationKind.COMMAND_SUCCEEDS, argv=("git", "status")),
            Verification(
                kind=VerificationKind.COMMAND_SUCCEEDS, argv=("sh", "-c", 'test -z "$(ls -A "$HOME")" && touch "$HOME/x"')
            ),
        )
        await hub.assign(spec(remote, verification=checks))
        result = await hub.expect(frames.Result)
        assert result.outcome == "succeeded", result
        assert [check.status for check in result.verification.checks] == ["pass"] * 5
        assert git("rev-parse", "agentcom/t-1/1", cwd=remote.path) == result.head_sha
        entry = pwd.getpwnam(NOBODY)
        shown = lambda path: git("show", f"agentcom/t-1/1:{path}", cwd=remote.path)  # noqa: E731  a name for one expression
        assert shown("who.txt").split() == [str(entry.pw_uid), str(entry.pw_gid), str(entry.pw_gid), entry.pw_dir]
        assert "Work" in shown("prompt.txt")
        assert shown("stolen.txt") == ""
        assert shown("written.txt") == ""
        salvage = result.salvage_ref
        assert salvage is not None
        assert git("show", f"{salvage}:left-over.txt", cwd=remote.path).startswith("left by")
        assert not sleeping_below(place), "nothing of the run is alive"
        sidecar.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(sidecar.wait(), 15) == 0
        assert not list((place / "state" / "workspaces" / "work").iterdir())
    finally:
        await kill(sidecar)


async def test_a_killed_sidecars_agent_of_another_user_is_found_and_swept(place: Path, remote: Remote, hub: FakeHub) -> None:
    sidecar = await start(place, hub, script="setsid sleep 600 & sleep 600")
    try:
        await hub.assign(spec(remote))
        run = place / "state" / "agents" / "a" / "runs" / "1-1-0"
        await until(lambda: len(sweep.marked(str(run), sweep.processes())) >= 3)
        shim = int((run / "lock").read_text().split()[0])
        await kill(sidecar)
        os.kill(shim, signal.SIGKILL)
        sidecar = await start(place, hub, script="sleep 600")
        result = await hub.expect(frames.Result)
        assert result.outcome == "lost"
        assert not [found for found in sweep.marked(str(run), sweep.processes()) if found.state not in "ZX"]
    finally:
        await kill(sidecar)


async def test_a_state_directory_the_user_cannot_enter_is_a_fault_with_its_cure(place: Path, hub: FakeHub) -> None:
    place.chmod(0o700)
    sidecar = await start(place, hub)
    assert await asyncio.wait_for(sidecar.wait(), 20) == 2
    assert "cannot enter" in (place / "sidecar.log").read_text()
    assert "/var/lib/agentcom" in (place / "sidecar.log").read_text()


async def test_a_state_directory_below_one_of_the_agents_user_is_refused(place: Path, account: Account, hub: FakeHub) -> None:
    os.chown(place, account.uid, account.gid)
    sidecar = await start(place, hub)
    assert await asyncio.wait_for(sidecar.wait(), 20) == 2
    assert "could put another in its place" in (place / "sidecar.log").read_text()


async def test_an_agent_of_another_user_dies_with_its_shim(place: Path, account: Account) -> None:
    runner, now = Runner(place / "runs", account), boot_us()
    launch = Launch(argv=("sh", "-c", "id -u > who; exec sleep 600"), env={"PATH": os.environ["PATH"]})
    (place / "cwd").mkdir()
    os.chown(place / "cwd", account.uid, account.gid)
    order = Order(launch=launch, cwd=place / "cwd", prompt="", prompt_file=place / "prompt.md", wall_s=600)
    await runner.start("1-1-0", order, Deadline(now + 600_000_000, now + 601_000_000))
    await until(lambda: sleeping_below(place))
    assert (place / "cwd" / "who").read_text().strip() == str(account.uid)
    os.kill(int((place / "runs" / "1-1-0" / "lock").read_text().split()[0]), signal.SIGKILL)
    await until(lambda: not sleeping_below(place))
    await runner.close()


FREEZER = """
import os, pathlib, signal, sys, time
place, parent = pathlib.Path(sys.argv[1]), int(sys.argv[2])
(place / "ready").touch()
def children():
    for task in pathlib.Path(f"/proc/{parent}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())
while True:
    for pid in children():
        if pid == os.getpid(): continue
        try: os.kill(pid, signal.SIGSTOP)
        except OSError: continue
        (place / "stopped").touch()
        for _ in range(1000):
            if (place / "seen").exists(): break
            time.sleep(0.01)
        else: (place / "gave-up").touch()
        os.kill(pid, signal.SIGCONT)
        sys.exit()
"""


async def test_an_agent_that_stops_a_process_about_to_become_its_user_stops_nothing_else(place: Path, account: Account) -> None:
    """A search of a long PATH keeps the new process between the change of user and its program for long enough."""
    watched = place / "watched"
    watched.mkdir()
    os.chown(watched, account.uid, account.gid)
    argv, env = as_account(
        account,
        [
            shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3",
            "-S",
            "-c",
            FREEZER,
            str(watched),
            str(os.getpid()),
        ],
        {"PATH": "/usr/bin:/bin"},
    )
    freezer = await asyncio.create_subprocess_exec(*argv, env=env)

    async def see() -> None:
        while not (watched / "stopped").exists():
            await asyncio.sleep(0.01)
        (watched / "seen").touch()

    try:
        await until((watched / "ready").exists)
        seeing = asyncio.create_task(see())
        env = {"PATH": ":".join(["/x"] * 40_000) + ":/usr/bin:/bin"}
        while not (watched / "stopped").exists():
            assert (await run(["true"], env=env, timeout_s=60, account=account)).returncode == 0
        await seeing
        await freezer.wait()
        assert not (watched / "gave-up").exists(), "the event loop went on while the process was stopped"
    finally:
        if freezer.returncode is None:
            freezer.kill()
        await freezer.wait()


# --- what is left in a workspace is read with the rights of who left it


@pytest.fixture
def spaces(place: Path, account: Account, monkeypatch: pytest.MonkeyPatch) -> Workspaces:
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    open_premises(place / "state", account)
    identity = GitIdentity(name="Smith", email="s@example.org")
    return Workspaces(place / "state" / "workspaces", identity=identity, git_timeout_s=30, account=account)


@pytest.fixture
async def workspace(remote: Remote, spaces: Workspaces) -> Workspace:
    return await spaces.prepare(spec(remote))


def as_agent(account: Account, *argv: str, cwd: Path) -> str:
    identity = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **identity}
    command, env = as_account(account, argv, env)
    return subprocess.run(command, cwd=cwd, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


async def test_everything_in_a_tree_is_the_users_and_nothing_around_it(workspace: Workspace, account: Account) -> None:
    assert {path.lstat().st_uid for path in [workspace.path, *workspace.path.rglob("*")]} == {account.uid}
    assert workspace.home.stat().st_uid == 0
    assert (workspace.home / "workspace.json").stat().st_uid == 0
    assert workspace.path.stat().st_mode & 0o777 == 0o700


async def test_commits_and_left_overs_are_taken_over(spaces: Workspaces, workspace: Workspace, account: Account) -> None:
    as_agent(account, "sh", "-c", "echo x > x && git add x && git commit -qm x && echo y > y && rm a.txt", cwd=workspace.path)
    state = await spaces.inspect(workspace)
    assert state is not None
    assert [commit.files for commit in state.commits] == [("x",)]
    assert state.dirty == ("a.txt", "y")
    ref = await spaces.salvage(workspace)
    assert ref is not None
    await spaces.push_salvage(workspace, ref)
    assert workspace.repo is not None
    branch = "agentcom/salvage/t-1/1"
    assert git("show", f"{branch}:y", cwd=Path(workspace.repo.url)) == "y"
    assert await spaces.salvage(workspace) == ref
    await spaces.release(workspace)
    assert not workspace.home.exists()


async def test_objects_the_user_may_not_read_are_not_read_for_it(
    spaces: Workspaces, workspace: Workspace, account: Account
) -> None:
    as_agent(account, "sh", "-c", "echo x > x && git add x && git commit -qm x", cwd=workspace.path)
    blob = as_agent(account, "git", "rev-parse", "HEAD:x", cwd=workspace.path).strip()
    loose = workspace.path / ".git" / "objects" / blob[:2] / blob[2:]
    os.chown(loose, 0, 0)
    loose.chmod(0o400)
    with pytest.raises(WorkspaceError) as refused:
        await spaces.inspect(workspace)
    assert refused.value.code == "bad_objects"


async def test_files_the_user_may_not_read_are_not_salvaged_for_it(spaces: Workspaces, workspace: Workspace) -> None:
    (workspace.path / "secret").write_text("of root\n")
    (workspace.path / "secret").chmod(0o400)
    with pytest.raises(WorkspaceError) as refused:
        await spaces.salvage(workspace)
    assert refused.value.code == "salvage_failed"


async def test_an_agents_link_in_place_of_a_directory_leads_no_command_out(
    workspace: Workspace, account: Account, place: Path
) -> None:
    """The directory is swapped between the look and the start, which the entered descriptor makes harmless."""
    from sidecar.checks.verify import _entered

    closed = place / "closed"
    (closed / "inner").mkdir(parents=True)
    closed.chmod(0o700)
    as_agent(account, "sh", "-c", f"rm -r src && ln -s {closed / 'inner'} src", cwd=workspace.path)
    with pytest.raises(OSError, match="src"), _entered(workspace.path, workspace.path / "src"):
        pass
    check = Verification(kind=VerificationKind.COMMAND_SUCCEEDS, argv=("pwd",), target="src")
    report = await verify(workspace.path, [check], env={"PATH": os.environ["PATH"]}, state=None, account=account)
    assert report.checks[0].status == "error"


async def test_a_workspace_from_before_the_user_existed_is_handed_over(place: Path, remote: Remote, account: Account) -> None:
    identity = GitIdentity(name="Smith", email="s@example.org")
    before = await Workspaces(place / "state" / "workspaces", identity=identity).prepare(spec(remote))
    assert before.path.stat().st_uid == 0
    open_premises(place / "state", account)
    after = await Workspaces(place / "state" / "workspaces", identity=identity, account=account).prepare(spec(remote))
    assert after == before
    assert {path.lstat().st_uid for path in after.path.rglob("*")} == {account.uid}


# ---


async def start(place: Path, hub: FakeHub, *, script: str = AGENT) -> asyncio.subprocess.Process:
    token = place / "token"
    token.write_text(hub.token)
    token.chmod(0o600)
    argv = json.dumps(["sh", "-c", script, "agent", "{prompt_file}", str(place)])
    (place / "sidecar.toml").write_text(
        f'hub_url = "{hub.url}"\ntoken_file = "token"\nstate_dir = "state"\nrun_as = "{NOBODY}"\nreconnect_first_s = 0.2\n'
        f'[log]\nformat = "json"\n[[agents]]\nid = "a"\nruntime = "command"\n[agents.command]\nargv = {argv}\n'
    )
    with (place / "sidecar.log").open("a") as log:
        command = [sys.executable, "-m", "sidecar", "run", "--config", str(place / "sidecar.toml"), "--stop-agents"]
        return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=log)


async def kill(sidecar: asyncio.subprocess.Process) -> None:
    if sidecar.returncode is None:
        sidecar.kill()
    await sidecar.wait()


def spec(remote: Remote, **more) -> Spec:
    repo = RepoRef(name="r", url=str(remote.path), base="main")
    return Spec(task=TaskId(1), lease_epoch=LeaseEpoch(1), title="Work", repo=repo, max_fix_rounds=0, **more)


async def until(condition, within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.05)


def sleeping_below(place: Path) -> list[int]:
    """Processes the agent left behind to sleep."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"sleep"):
                found += [int(entry.name)] if str((entry / "cwd").readlink()).startswith(str(place)) else []
    return found
