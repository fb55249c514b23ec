"""Workspaces on real git: where work starts from, what is read back, and that none of it is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hub.ids import LeaseEpoch, TaskId
from hub.wire.spec import CheckJob, RepoRef, Spec, StartPoint
from sidecar.workspace.workspaces import GitIdentity, Workspace, WorkspaceError, Workspaces, WorkState
from tests.support.repos import Remote, commit, git, make_remote, write

IDENTITY = GitIdentity(name="Agent Smith", email="smith@example.org")
FIRST = {"a.txt": "one\n", "src/b.txt": "two\n"}


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return make_remote(tmp_path / "remotes", FIRST)


@pytest.fixture
def spaces(tmp_path: Path) -> Workspaces:
    return Workspaces(tmp_path / "state", identity=IDENTITY, git_timeout_s=30)


@pytest.fixture(autouse=True)
def neutral_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")


def spec(remote: Remote | None, task: int = 1, epoch: int = 1, **more: Any) -> Spec:
    repo = None if remote is None else RepoRef(name="repo", url=remote.url, base=remote.base)
    return Spec(task=TaskId(task), lease_epoch=LeaseEpoch(epoch), title="Work", repo=repo, **more)


async def seen(spaces: Workspaces, workspace: Workspace) -> WorkState:
    state = await spaces.inspect(workspace)
    assert state is not None
    return state


def agent_commits(spaces: Workspaces, workspace: Workspace, files: dict[str, str | None], message: str = "work") -> str:
    return commit(workspace.path, files, message, env=spaces.agent_env(workspace))


async def refused(action: Any) -> WorkspaceError:
    with pytest.raises(WorkspaceError) as caught:
        await action
    return caught.value


async def test_work_begins_at_the_base_and_ends_as_a_pushed_branch(remote: Remote, spaces: Workspaces) -> None:
    workspace = await spaces.prepare(spec(remote, task=7, epoch=3))
    assert (workspace.path / "src/b.txt").read_text() == "two\n"
    assert git("branch", "--show-current", cwd=workspace.path) == "agentcom/t-7/3"
    assert workspace.base_sha == remote.sha("main")
    assert await seen(spaces, workspace) == WorkState(head_sha=workspace.base_sha)

    one = agent_commits(spaces, workspace, {"c.txt": "three\n"}, "Add c")
    two = agent_commits(spaces, workspace, {"a.txt": None, "d e.txt": "x\n"}, "Swap a")
    state = await seen(spaces, workspace)
    assert [(c.sha, c.subject, c.files) for c in state.commits] == [
        (one, "Add c", ("c.txt",)),
        (two, "Swap a", ("a.txt", "d e.txt")),
    ]
    assert (state.head_sha, state.advanced, state.contains_base, state.dirty) == (two, True, True, ())

    await spaces.push(workspace, two)
    await spaces.push(workspace, two)  # again changes nothing
    assert remote.sha("refs/heads/agentcom/t-7/3") == two
    assert git("log", "-1", "--format=%an <%ae> %cn", two, cwd=remote.path) == "Agent Smith <smith@example.org> Agent Smith"


async def test_base_that_moved_since_the_last_fetch_is_the_start(remote: Remote, spaces: Workspaces) -> None:
    await spaces.prepare(spec(remote, task=1))
    moved = remote.commit({"a.txt": "newer\n"})
    workspace = await spaces.prepare(spec(remote, task=2))
    assert workspace.base_sha == moved
    assert (workspace.path / "a.txt").read_text() == "newer\n"


async def test_prepared_workspace_is_returned_again_untouched(remote: Remote, spaces: Workspaces, tmp_path: Path) -> None:
    workspace = await spaces.prepare(spec(remote))
    write(workspace.path, {"a.txt": "mine\n"})
    remote.commit({"z.txt": "later\n"})
    again = Workspaces(tmp_path / "state", identity=IDENTITY)
    assert await again.prepare(spec(remote)) == workspace
    assert await again.find(workspace.task, workspace.lease_epoch) == workspace
    assert (workspace.path / "a.txt").read_text() == "mine\n"


async def test_preparation_that_was_cut_short_is_made_anew(remote: Remote, spaces: Workspaces) -> None:
    workspace = await spaces.prepare(spec(remote))
    (workspace.home / "workspace.json").unlink()
    (workspace.path / "a.txt").unlink()
    assert await spaces.find(workspace.task, workspace.lease_epoch) is None
    assert await spaces.prepare(spec(remote)) == workspace
    assert (workspace.path / "a.txt").exists()


async def test_stale_locks_of_a_killed_git_do_not_stop_the_next_process(
    remote: Remote, spaces: Workspaces, tmp_path: Path
) -> None:
    await spaces.prepare(spec(remote))
    (cache,) = (tmp_path / "state/repos").iterdir()
    latest = next((cache / "refs/agentcom/base").iterdir())
    for lock in (cache / "packed-refs.lock", latest.with_name(latest.name + ".lock")):
        lock.touch()
    remote.commit({"z.txt": "later\n"})
    again = Workspaces(tmp_path / "state", identity=IDENTITY)
    assert (await again.prepare(spec(remote, task=2))).base_sha == remote.sha("main")


async def test_many_tasks_at_once_in_one_repository(remote: Remote, spaces: Workspaces) -> None:
    async def work(task: int) -> Workspace:
        workspace = await spaces.prepare(spec(remote, task=task))
        sha = await asyncio.to_thread(agent_commits, spaces, workspace, {f"{task}.txt": "x\n"})
        state = await seen(spaces, workspace)
        assert [c.files for c in state.commits] == [(f"{task}.txt",)]
        await spaces.push(workspace, sha)
        return workspace

    done = await asyncio.gather(*(work(task) for task in range(1, 5)))
    assert [b for b in remote.branches() if b != "main"] == [f"agentcom/t-{n}/1" for n in range(1, 5)]
    await asyncio.gather(*(spaces.release(workspace) for workspace in done))
    assert await spaces.all() == ()


async def test_dirty_tree_is_seen_and_salvaged(remote: Remote, spaces: Workspaces) -> None:
    workspace = await spaces.prepare(spec(remote))
    head = agent_commits(spaces, workspace, {"done.txt": "done\n", ".gitignore": "*.log\n"})
    write(workspace.path, {"a.txt": "edited\n", "src/b.txt": None, "new/n.txt": "new\n", "noise.log": "x"})
    git("add", "new/n.txt", cwd=workspace.path)
    state = await seen(spaces, workspace)
    assert state.dirty == ("a.txt", "new/n.txt", "src/b.txt")
    assert (state.head_sha, state.dirty_count) == (head, 3)

    ref = await spaces.salvage(workspace)
    assert ref == "refs/agentcom/salvage/t-1/1"
    assert await spaces.push_salvage(workspace, ref) == "agentcom/salvage/t-1/1"
    branch = "refs/heads/agentcom/salvage/t-1/1"
    assert git("diff", "--name-status", head, branch, cwd=remote.path).split("\n") == [
        "M\ta.txt",
        "A\tnew/n.txt",
        "D\tsrc/b.txt",
    ]
    assert remote.show(f"{branch}:a.txt") == "edited"
    assert git("rev-parse", f"{branch}^", cwd=remote.path) == head
    assert "AgentCom-Task: t-1\nAgentCom-Lease-Epoch: 1" in git("log", "-1", "--format=%B", branch, cwd=remote.path)
    assert (workspace.path / "a.txt").read_text() == "edited\n", "salvaging changes nothing in the workspace"

    first = remote.sha(branch)
    assert await spaces.salvage(workspace) == ref
    await spaces.push_salvage(workspace, ref)
    assert remote.sha(branch) == first, "salvaging the same files again is the same salvage"


async def test_clean_tree_needs_no_salvage(remote: Remote, spaces: Workspaces) -> None:
    workspace = await spaces.prepare(spec(remote))
    assert await spaces.salvage(workspace, commits=True) is None
    agent_commits(spaces, workspace, {"c.txt": "x\n"})
    (workspace.path / "a.txt").touch()
    assert await spaces.salvage(workspace) is None
    assert (await seen(spaces, workspace)).dirty == ()


async def test_release_keeps_what_was_not_pushed(remote: Remote, spaces: Workspaces, tmp_path: Path) -> None:
    workspace = await spaces.prepare(spec(remote))
    head = agent_commits(spaces, workspace, {"c.txt": "unpushed\n"})
    await spaces.release(workspace)
    assert not workspace.home.exists()
    (cache,) = (tmp_path / "state/repos").iterdir()
    git("gc", "-q", "--prune=now", cwd=cache)
    refs = git("for-each-ref", "--format=%(refname) %(objectname)", "refs/agentcom/lease", "refs/agentcom/salvage", cwd=cache)
    assert refs == f"refs/agentcom/salvage/t-1/1 {head}"
    assert git("show", f"{head}:c.txt", cwd=cache) == "unpushed"


async def test_release_of_pushed_work_leaves_nothing_behind(remote: Remote, spaces: Workspaces, tmp_path: Path) -> None:
    workspace = await spaces.prepare(spec(remote))
    await spaces.push(workspace, agent_commits(spaces, workspace, {"c.txt": "x\n"}))
    (workspace.path / "cache").mkdir(mode=0o500)
    await spaces.release(workspace)
    await spaces.release(workspace)
    (cache,) = (tmp_path / "state/repos").iterdir()
    assert git("for-each-ref", "refs/agentcom/lease", "refs/agentcom/salvage", cwd=cache) == ""


async def test_removal_that_was_cut_short_is_completed(remote: Remote, spaces: Workspaces, tmp_path: Path) -> None:
    workspace = await spaces.prepare(spec(remote))
    (workspace.home / "workspace.json").unlink()
    (cache,) = (tmp_path / "state/repos").iterdir()
    git("update-ref", "refs/agentcom/lease/t-99/1/pin", "refs/agentcom/lease/t-1/1/pin", cwd=cache)
    await spaces.release(workspace)
    assert not workspace.home.exists()
    assert git("for-each-ref", "refs/agentcom/lease", cwd=cache) == "", "pins without a workspace are forgotten"


async def test_unreadable_record_never_costs_the_work_beside_it(remote: Remote, spaces: Workspaces) -> None:
    workspace = await spaces.prepare(spec(remote))
    write(workspace.home, {"workspace.json": "{}", "tree/a.txt": "mine\n"})
    for action in (spaces.prepare(spec(remote)), spaces.release(workspace)):
        fault = await refused(action)
        assert (fault.code, fault.retryable) == ("record_unreadable", False)
    assert (workspace.path / "a.txt").read_text() == "mine\n"


async def test_collecting_garbage_waits_for_the_last_workspace(remote: Remote, spaces: Workspaces, tmp_path: Path) -> None:
    """An object that only a living clone needs must survive the release of another workspace."""
    living = await spaces.prepare(spec(remote, task=1))
    first = remote.sha("main")
    remote.rewind(git("commit-tree", "-m", "other", "HEAD^{tree}", cwd=remote.colleague))
    remote.commit({"z.txt": "after the force-push\n"})
    other = await spaces.prepare(spec(remote, task=2))
    await spaces.release(other)
    (cache,) = (tmp_path / "state/repos").iterdir()
    git("gc", "-q", "--prune=now", cwd=cache)  # worse than ours: the pin alone must hold it
    git("fsck", "--connectivity-only", cwd=living.path)
    assert living.base_sha == first == git("rev-parse", "HEAD", cwd=living.path)


async def test_upstream_force_push_under_a_live_clone(remote: Remote, spaces: Workspaces) -> None:
    workspace = await spaces.prepare(spec(remote))
    remote.rewind(git("commit-tree", "-m", "rewritten", "HEAD^{tree}", cwd=remote.colleague))
    forced = remote.commit({"a.txt": "rewritten\n"})
    remote.collect()
    sha = agent_commits(spaces, workspace, {"c.txt": "x\n"})
    state = await seen(spaces, workspace)
    assert (len(state.commits), state.contains_base) == (1, True)
    await spaces.push(workspace, sha)
    assert remote.sha("refs/heads/agentcom/t-1/1") == sha
    assert (await spaces.prepare(spec(remote, task=2))).base_sha == forced


async def test_unreachable_remote_is_retryable_and_leaves_no_half_workspace(remote: Remote, spaces: Workspaces) -> None:
    workspace = await spaces.prepare(spec(remote, task=1))
    sha = agent_commits(spaces, workspace, {"c.txt": "x\n"})
    away = remote.path.with_name("away")
    remote.path.rename(away)
    fault = await refused(spaces.prepare(spec(remote, task=2)))
    assert (fault.code, fault.retryable) == ("remote_unreachable", True)
    fault = await refused(spaces.push(workspace, sha))
    assert (fault.code, fault.retryable) == ("remote_unreachable", True)
    assert await spaces.find(TaskId(2), LeaseEpoch(1)) is None
    away.rename(remote.path)
    await spaces.push(workspace, sha)
    await spaces.prepare(spec(remote, task=2))


async def test_remote_that_never_answers_ends_at_the_timeout(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "silent-ssh"
    ssh.write_text("#!/bin/sh\nexec sleep 60\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    spaces = Workspaces(tmp_path / "state", identity=IDENTITY, git_timeout_s=0.5, urls={"repo": "git@example.org:a.git"})
    fault = await refused(spaces.prepare(spec(remote)))
    assert (fault.code, fault.retryable) == ("remote_unreachable", True)


async def test_ssh_remote_is_fetched_and_pushed(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ssh transport with a stand-in for the ssh program: git's own side of it is real."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setenv("GIT_SSH_VARIANT", "ssh")
    for number, url in enumerate((f"ssh://git@example.org{remote.path}", f"git@example.org:{remote.path}"), start=1):
        spaces = Workspaces(tmp_path / f"state{number}", identity=IDENTITY, urls={"repo": url})
        workspace = await spaces.prepare(spec(remote, task=number))
        await spaces.push(workspace, agent_commits(spaces, workspace, {"c.txt": "x\n"}))
        assert remote.sha(f"refs/heads/agentcom/t-{number}/1") is not None


@pytest.mark.parametrize("form", [lambda r: str(r.path), lambda r: f"file://{r.path}"])
async def test_file_remotes(form: Callable[[Remote], str], remote: Remote, tmp_path: Path) -> None:
    spaces = Workspaces(tmp_path / "state", identity=IDENTITY, urls={"repo": form(remote)})
    workspace = await spaces.prepare(spec(remote))
    await spaces.push(workspace, agent_commits(spaces, workspace, {"c.txt": "x\n"}))
    assert "agentcom/t-1/1" in remote.branches()


@pytest.mark.parametrize("url", ["ext::sh -c 'touch {canary}'", "-u touch {canary}", "--upload-pack=touch {canary}"])
async def test_hostile_url_is_refused_before_git_runs(url: str, remote: Remote, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    spaces = Workspaces(tmp_path / "state", identity=IDENTITY, urls={"repo": url.format(canary=canary)})
    fault = await refused(spaces.prepare(spec(remote)))
    assert (fault.code, fault.retryable) == ("invalid_url", False)
    assert not canary.exists()


async def test_hostile_base_branch_is_refused(remote: Remote, spaces: Workspaces) -> None:
    for base in ("--upload-pack=touch x", "a..b", "main:refs/heads/other", "+main"):
        hostile = Spec(task=TaskId(1), lease_epoch=LeaseEpoch(1), title="x", repo=RepoRef(name="r", url=remote.url, base=base))
        fault = await refused(spaces.prepare(hostile))
        assert fault.code in {"invalid_branch", "base_missing"}
        assert fault.retryable is False


async def test_missing_base_branch(remote: Remote, spaces: Workspaces) -> None:
    other = Spec(task=TaskId(1), lease_epoch=LeaseEpoch(1), title="x", repo=RepoRef(name="r", url=remote.url, base="trunk"))
    fault = await refused(spaces.prepare(other))
    assert (fault.code, fault.retryable) == ("base_missing", False)


async def test_default_branch_that_is_not_main(tmp_path: Path, spaces: Workspaces) -> None:
    remote = make_remote(tmp_path / "remotes", FIRST, base="release/2.x")
    workspace = await spaces.prepare(spec(remote))
    assert workspace.base_sha == remote.sha("refs/heads/release/2.x")
    assert git("rev-parse", "origin/release/2.x", cwd=workspace.path) == workspace.base_sha


async def test_empty_repository_gets_its_first_commit(tmp_path: Path, spaces: Workspaces) -> None:
    remote = make_remote(tmp_path / "remotes")
    workspace = await spaces.prepare(spec(remote))
    assert workspace.base_sha is None
    assert await seen(spaces, workspace) == WorkState(head_sha=None)
    write(workspace.path, {"left.txt": "left\n"})
    ref = await spaces.salvage(workspace)
    assert ref is not None
    await spaces.push_salvage(workspace, ref)
    assert remote.show("agentcom/salvage/t-1/1:left.txt") == "left"

    sha = agent_commits(spaces, workspace, {"a.txt": "x\n"}, "First")
    state = await seen(spaces, workspace)
    assert [(c.subject, c.files) for c in state.commits] == [("First", ("a.txt", "left.txt"))]
    assert (state.advanced, state.contains_base) == (True, True)
    await spaces.push(workspace, sha)
    assert remote.sha("refs/heads/agentcom/t-1/1") == sha


async def test_without_a_repository_no_git_is_needed(spaces: Workspaces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    workspace = await spaces.prepare(spec(None))
    assert list(workspace.path.iterdir()) == []
    assert await spaces.inspect(workspace) is None
    assert await spaces.salvage(workspace) is None
    assert (await refused(spaces.push(workspace, "0" * 40))).code == "no_repository"
    await spaces.release(workspace)
    assert not workspace.home.exists()


async def test_missing_git_is_named(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    spaces = Workspaces(tmp_path / "state", identity=IDENTITY)
    assert (await refused(spaces.prepare(spec(remote)))).code == "git_missing"


async def test_push_over_somebody_elses_commit_is_rejected(remote: Remote, spaces: Workspaces) -> None:
    workspace = await spaces.prepare(spec(remote))
    theirs = remote.commit({"theirs.txt": "x\n"}, branch="agentcom/t-1/1")
    sha = agent_commits(spaces, workspace, {"c.txt": "x\n"})
    fault = await refused(spaces.push(workspace, sha))
    assert (fault.code, fault.retryable) == ("rejected", False)
    assert remote.sha("refs/heads/agentcom/t-1/1") == theirs


async def first_attempt(remote: Remote, spaces: Workspaces, files: dict[str, str | None]) -> StartPoint:
    workspace = await spaces.prepare(spec(remote, epoch=1))
    sha = agent_commits(spaces, workspace, files, "First attempt")
    await spaces.push(workspace, sha)
    await spaces.release(workspace)
    return StartPoint(branch=workspace.branch, head_sha=sha)


async def test_rework_starts_from_the_previous_head_with_the_base_merged_in(remote: Remote, spaces: Workspaces) -> None:
    start = await first_attempt(remote, spaces, {"c.txt": "mine\n"})
    moved = remote.commit({"a.txt": "newer\n"})
    workspace = await spaces.prepare(spec(remote, epoch=2, start=start))
    assert (workspace.conflict, workspace.base_sha) == (False, moved)
    assert (workspace.path / "c.txt").read_text() == "mine\n"
    assert (workspace.path / "a.txt").read_text() == "newer\n"
    state = await seen(spaces, workspace)
    assert (state.advanced, state.contains_base, state.dirty) == (False, True, ())
    assert state.commits[0].sha == start.head_sha
    agent_commits(spaces, workspace, {"c.txt": "better\n"})
    assert (await seen(spaces, workspace)).advanced


async def test_rework_with_a_conflict_leaves_it_to_the_agent(remote: Remote, spaces: Workspaces, tmp_path: Path) -> None:
    start = await first_attempt(remote, spaces, {"a.txt": "mine\n"})
    remote.commit({"a.txt": "theirs\n"})
    workspace = await spaces.prepare(spec(remote, epoch=2, start=start))
    assert workspace.conflict
    assert "<<<<<<<" in (workspace.path / "a.txt").read_text()
    state = await seen(spaces, workspace)
    assert (state.dirty, state.contains_base, state.advanced) == (("a.txt",), False, False)

    remote.rewind(git("commit-tree", "-m", "forced", "HEAD^{tree}", cwd=remote.colleague))
    remote.commit({"z.txt": "x\n"})
    await spaces.prepare(spec(remote, task=2))
    (cache,) = (tmp_path / "state/repos").iterdir()
    git("gc", "-q", "--prune=now", cwd=cache)  # worse than ours: the pin alone must hold the base that is being merged
    agent_commits(spaces, workspace, {"a.txt": "both\n"})
    state = await seen(spaces, workspace)
    assert (state.dirty, state.contains_base, state.advanced) == ((), True, True)
    assert [len(c.sha) for c in state.commits] == [40, 40]


async def test_rework_on_another_machine_fetches_the_previous_head(remote: Remote, spaces: Workspaces, tmp_path: Path) -> None:
    start = await first_attempt(remote, spaces, {"c.txt": "mine\n"})
    elsewhere = Workspaces(tmp_path / "elsewhere", identity=IDENTITY)
    workspace = await elsewhere.prepare(spec(remote, epoch=2, start=start))
    assert (workspace.path / "c.txt").read_text() == "mine\n"


async def test_rework_whose_branch_is_gone(remote: Remote, spaces: Workspaces, tmp_path: Path) -> None:
    start = await first_attempt(remote, spaces, {"c.txt": "mine\n"})
    git("branch", "-D", start.branch, cwd=remote.path)
    assert (await spaces.prepare(spec(remote, epoch=2, start=start))).conflict is False, "the cache still has it"
    shutil.rmtree(tmp_path / "state")
    fresh = Workspaces(tmp_path / "state", identity=IDENTITY)
    fault = await refused(fresh.prepare(spec(remote, epoch=2, start=start)))
    assert (fault.code, fault.retryable) == ("start_missing", False)


async def test_check_gets_exactly_its_commit(remote: Remote, spaces: Workspaces) -> None:
    base = remote.sha("main")
    sha = remote.commit({"c.txt": "candidate\n"}, branch="agentcom/candidate/4")
    job = CheckJob(sha=sha, ref="agentcom/candidate/4", checks=())
    workspace = await spaces.prepare(spec(remote, check=job))
    assert git("rev-parse", "HEAD", cwd=workspace.path) == sha
    state = await seen(spaces, workspace)
    assert (workspace.base_sha, [c.files for c in state.commits], state.advanced) == (base, [("c.txt",)], False)
    write(workspace.path, {"built.o": "x"})
    await spaces.release(workspace)
    assert not workspace.home.exists()


async def test_check_of_a_name_that_moved_is_refused(remote: Remote, spaces: Workspaces) -> None:
    sha = remote.commit({"c.txt": "candidate\n"}, branch="agentcom/candidate/4")
    remote.commit({"c.txt": "other\n"}, branch="agentcom/candidate/4")
    for ref, code in (("refs/heads/agentcom/candidate/4", "check_moved"), ("agentcom/candidate/5", "check_missing")):
        fault = await refused(spaces.prepare(spec(remote, check=CheckJob(sha=sha, ref=ref, checks=()))))
        assert (fault.code, fault.retryable) == (code, False)


async def test_head_that_was_detached_or_packed_is_still_read(remote: Remote, spaces: Workspaces) -> None:
    workspace = await spaces.prepare(spec(remote))
    agent_commits(spaces, workspace, {"c.txt": "x\n"})
    git("pack-refs", "--all", cwd=workspace.path)
    git("gc", "-q", cwd=workspace.path)
    assert (await seen(spaces, workspace)).head_sha == git("rev-parse", "HEAD", cwd=workspace.path)
    git("checkout", "-q", "--detach", cwd=workspace.path)
    sha = agent_commits(spaces, workspace, {"d.txt": "x\n"})
    state = await seen(spaces, workspace)
    assert (state.head_sha, len(state.commits)) == (sha, 2)


async def test_history_that_leaves_the_base_is_reported(remote: Remote, spaces: Workspaces) -> None:
    workspace = await spaces.prepare(spec(remote))
    git("checkout", "-q", "--orphan", "alone", cwd=workspace.path)
    agent_commits(spaces, workspace, {"c.txt": "x\n"})
    state = await seen(spaces, workspace)
    assert (state.contains_base, len(state.commits)) == (False, 1)


async def test_long_history_and_many_files_are_bounded(remote: Remote, spaces: Workspaces) -> None:
    workspace = await spaces.prepare(spec(remote))
    agent_commits(spaces, workspace, {f"many/{n}.txt": "x" for n in range(300)})
    write(workspace.path, {f"dirt/{n}.txt": "x" for n in range(300)})
    state = await seen(spaces, workspace)
    assert len(state.commits[0].files) == 256
    assert (len(state.dirty), state.dirty_count) == (256, 300)

    stream = b"".join(
        b"commit refs/heads/agentcom/t-1/1\ncommitter A <a@b> %d +0000\ndata 3\n%03d\n" % (n, n) for n in range(300)
    )
    git("fast-import", "--quiet", "--force", cwd=workspace.path, stdin=stream)
    state = await seen(spaces, workspace)
    assert [c.subject for c in state.commits] == [f"{n:03d}" for n in range(44, 300)]


async def test_the_loop_stays_free_while_git_works(remote: Remote, spaces: Workspaces) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(tick())
        await spaces.prepare(spec(remote))
        ticking.cancel()
    assert ticks > 100


def test_the_agents_environment_names_the_lease(tmp_path: Path) -> None:
    spaces = Workspaces(tmp_path, identity=IDENTITY)
    workspace = Workspace(path=tmp_path / "tree", task=TaskId(7), lease_epoch=LeaseEpoch(3), branch="b")
    env = spaces.agent_env(workspace)
    assert (env["AGENTCOM_TASK"], env["AGENTCOM_LEASE_EPOCH"]) == ("t-7", "3")
    assert (env["GIT_AUTHOR_NAME"], env["GIT_COMMITTER_EMAIL"]) == ("Agent Smith", "smith@example.org")
    assert not set(env) & set(os.environ)
