"""What an agent plants in its clone must not act when the sidecar looks at it. A planted command would create the canary."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from hub.ids import LeaseEpoch, TaskId
from hub.wire.spec import RepoRef, Spec
from sidecar.workspace.git import Git, _memory_limit
from sidecar.workspace.workspaces import GitIdentity, Workspace, WorkspaceError, Workspaces, WorkState
from tests.support.repos import Remote, commit, git, make_remote, write

HOOKS = (
    *("pre-commit", "post-commit", "commit-msg", "prepare-commit-msg", "post-checkout", "post-merge", "pre-push"),
    *("reference-transaction", "post-index-change", "pre-auto-gc", "fsmonitor-watchman", "post-rewrite", "push-to-checkout"),
)
EXECUTING_SETTINGS = (
    *("core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "core.gitProxy"),
    *("core.alternateRefsCommand", "diff.external", "diff.evil.textconv", "diff.evil.command", "merge.evil.driver"),
    *("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "gpg.program", "credential.helper"),
    *("uploadpack.packObjectsHook", "sequence.editor", "alias.add", "alias.status", "alias.read-tree", "pager.log"),
)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return make_remote(tmp_path / "remotes", {"a.txt": "one\n", "src/b.txt": "two\n"})


@pytest.fixture
def spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspaces:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    return Workspaces(tmp_path / "state", identity=GitIdentity(name="Smith", email="s@example.org"), git_timeout_s=30)


@pytest.fixture
async def workspace(remote: Remote, spaces: Workspaces) -> Workspace:
    repo = RepoRef(name="repo", url=remote.url, base="main")
    return await spaces.prepare(Spec(task=TaskId(1), lease_epoch=LeaseEpoch(1), title="Work", repo=repo))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def trap(tmp_path: Path, canary: Path) -> Path:
    """A program that leaves the canary."""
    script = tmp_path / "trap.sh"
    script.write_text(f'#!/bin/sh\necho "$0 $*" >> {canary}\nexit 0\n')
    script.chmod(0o755)
    return script


async def go_through(spaces: Workspaces, workspace: Workspace) -> WorkState:
    """Everything the sidecar does with a workspace after the agent has ended."""
    state = await spaces.inspect(workspace)
    assert state is not None
    assert state.head_sha is not None
    await spaces.push(workspace, state.head_sha)
    ref = await spaces.salvage(workspace)
    if ref is not None:
        await spaces.push_salvage(workspace, ref)
    await spaces.release(workspace)
    return state


async def refusal(spaces: Workspaces, workspace: Workspace) -> str:
    with pytest.raises(WorkspaceError) as caught:
        await spaces.inspect(workspace)
    return caught.value.code


async def test_planted_hooks_do_not_run(
    remote: Remote, spaces: Workspaces, workspace: Workspace, trap: Path, canary: Path
) -> None:
    head = commit(workspace.path, {"c.txt": "x\n"})
    for directory in (workspace.path / ".git/hooks", workspace.path / "myhooks"):
        directory.mkdir()
        for hook in HOOKS:
            shutil.copy(trap, directory / hook)
    git("commit", "-q", "--allow-empty", "-m", "the trap works", cwd=workspace.path)
    assert canary.exists(), "a plain git runs the planted hooks: the test can fail"
    canary.unlink()
    git("-c", "core.hooksPath=/dev/null", "config", "core.hooksPath", str(workspace.path / "myhooks"), cwd=workspace.path)
    write(workspace.path, {"left.txt": "left\n"})
    state = await go_through(spaces, workspace)
    assert not canary.exists()
    assert state.commits[0].sha == head
    assert remote.sha("agentcom/t-1/1") == state.head_sha


async def test_planted_configuration_does_not_act(
    remote: Remote, spaces: Workspaces, workspace: Workspace, trap: Path, canary: Path
) -> None:
    head = commit(workspace.path, {"c.txt": "x\n", ".gitattributes": "* filter=evil diff=evil merge=evil\n"})
    write(workspace.path, {"a.txt": "edited\n", "left.txt": "left\n"})
    included = workspace.path / "evil.config"
    for setting in EXECUTING_SETTINGS:
        command = f"!{trap}" if setting.startswith(("alias", "credential")) else str(trap)
        git("config", "--file", str(included), setting, command, cwd=workspace.path)
    config = workspace.path / ".git/config"
    with config.open("a") as file:
        file.write(
            f'[include]\n\tpath = {included}\n[commit]\n\tgpgSign = true\n[url "ext::{trap} "]\n\tinsteadOf = {remote.path}\n'
        )
        file.write('[protocol "ext"]\n\tallow = always\n[core]\n\tworktree = /etc\n\tbare = true\n')
    env = {"GIT_WORK_TREE": str(workspace.path), "GIT_DIR": str(workspace.path / ".git")}
    git("update-index", "--refresh", cwd=workspace.path, env=env, check=False)
    assert canary.exists(), "a plain git obeys the planted configuration: the test can fail"
    canary.unlink()
    state = await go_through(spaces, workspace)
    assert not canary.exists()
    assert (state.head_sha, state.dirty) == (head, ("a.txt", "evil.config", "left.txt"))
    assert remote.show("agentcom/salvage/t-1/1:a.txt") == "edited"


async def test_embedded_repositories_are_not_entered_and_left_out(
    remote: Remote, spaces: Workspaces, workspace: Workspace, trap: Path, canary: Path
) -> None:
    for name in ("tracked", "untracked", "src/deep"):
        inner = workspace.path / name
        inner.mkdir(parents=True)
        git("init", "-q", cwd=inner)
        commit(inner, {"inner.txt": "x\n"})
    git("add", "tracked", cwd=workspace.path)
    git("commit", "-q", "-m", "a gitlink", cwd=workspace.path)
    for name in ("tracked", "untracked", "src/deep"):
        git("config", "core.fsmonitor", str(trap), cwd=workspace.path / name)
        write(workspace.path / name, {"inner.txt": "dirty\n"})
    (workspace.path / "a.txt").unlink()
    shutil.copytree(workspace.path / "untracked", workspace.path / "a.txt")
    git("status", cwd=workspace.path)
    assert canary.exists(), "a plain git enters the repository inside: the test can fail"
    canary.unlink()
    write(workspace.path, {"left.txt": "left\n"})
    state = await go_through(spaces, workspace)
    assert not canary.exists()
    assert {"left.txt", "src/deep/", "untracked/"} <= set(state.dirty)
    salvaged = git("diff", "--name-status", "agentcom/t-1/1", "agentcom/salvage/t-1/1", cwd=remote.path).split("\n")
    assert salvaged == ["D\ta.txt", "A\tleft.txt"]
    assert "Left out" in git("log", "-1", "--format=%B", "agentcom/salvage/t-1/1", cwd=remote.path)


async def test_chained_alternates_are_refused(remote: Remote, spaces: Workspaces, workspace: Workspace, tmp_path: Path) -> None:
    """Followed, they would publish another repository's history as this task's branch."""
    private = make_remote(tmp_path / "private", {"secret.txt": "secret\n"})
    secret = private.sha("main")
    assert secret is not None
    alternates = workspace.path / ".git/objects/info/alternates"
    honest = alternates.read_text()
    alternates.write_text(f"{honest}{private.path}/objects\n")
    git("update-ref", "HEAD", secret, cwd=workspace.path)
    write(workspace.path, {"left.txt": "left\n"})
    assert await refusal(spaces, workspace) == "unsafe_objects"
    with pytest.raises(WorkspaceError):
        await spaces.push(workspace, secret)
    ref = await spaces.salvage(workspace)
    assert ref is not None
    await spaces.push_salvage(workspace, ref)
    assert remote.show("agentcom/salvage/t-1/1:left.txt") == "left", "the files are saved all the same"
    assert remote.sha(f"{secret}^{{commit}}") is None

    alternates.write_text(honest)
    assert await refusal(spaces, workspace) == "bad_objects", "without the chain its objects are simply not there"


async def test_chain_behind_the_caches_own_objects_is_refused(spaces: Workspaces, workspace: Workspace, tmp_path: Path) -> None:
    head = commit(workspace.path, {"c.txt": "x\n"})
    other = make_remote(tmp_path / "other", {"o.txt": "x\n"})
    (workspace.path / ".git/objects/info/alternates").write_text(f"{other.path}/objects\n")
    assert await refusal(spaces, workspace) == "unsafe_objects"
    with pytest.raises(WorkspaceError):
        await spaces.push(workspace, head)


def link_git_dir(tree: Path, elsewhere: Path) -> None:
    (tree / ".git").rename(elsewhere / "git")
    (tree / ".git").symlink_to(elsewhere / "git")


def git_file(tree: Path, elsewhere: Path) -> None:
    shutil.rmtree(tree / ".git")
    (tree / ".git").write_text(f"gitdir: {elsewhere}/.git\n")


def link_head(tree: Path, elsewhere: Path) -> None:
    (tree / ".git/HEAD").rename(elsewhere / "HEAD")
    (tree / ".git/HEAD").symlink_to(elsewhere / "HEAD")


def link_refs(tree: Path, elsewhere: Path) -> None:
    (tree / ".git/refs").rename(elsewhere / "refs")
    (tree / ".git/refs").symlink_to(elsewhere / "refs")


def fifo_head(tree: Path, _: Path) -> None:
    (tree / ".git/HEAD").unlink()
    os.mkfifo(tree / ".git/HEAD")


def huge_head(tree: Path, _: Path) -> None:
    (tree / ".git/HEAD").write_text("ref: refs/heads/" + "x" * 10_000)


def climbing_head(tree: Path, elsewhere: Path) -> None:
    (tree / ".git/HEAD").write_text(f"ref: refs/../../../../../../../../..{elsewhere}/.git/HEAD\n")


def nonsense_head(tree: Path, _: Path) -> None:
    (tree / ".git/HEAD").write_bytes(b"\xff\x00\x1b[31m\n")


def circular_head(tree: Path, _: Path) -> None:
    (tree / ".git/HEAD").write_text("ref: refs/heads/x\n")
    (tree / ".git/refs/heads/x").write_text("ref: refs/heads/x\n")


def unborn_head(tree: Path, _: Path) -> None:
    (tree / ".git/HEAD").write_text("ref: refs/heads/nowhere\n")


def no_git_dir(tree: Path, _: Path) -> None:
    shutil.rmtree(tree / ".git")


@pytest.mark.parametrize(
    "plant",
    [
        link_git_dir,
        git_file,
        link_head,
        link_refs,
        fifo_head,
        huge_head,
        climbing_head,
        nonsense_head,
        circular_head,
        unborn_head,
        no_git_dir,
    ],
    ids=lambda plant: plant.__name__,
)
async def test_head_that_leads_elsewhere_is_refused_and_the_files_are_saved(
    plant: Any, remote: Remote, spaces: Workspaces, workspace: Workspace, tmp_path: Path
) -> None:
    elsewhere = make_remote(tmp_path / "elsewhere", {"secret.txt": "secret\n"}).colleague
    write(workspace.path, {"left.txt": "left\n"})
    plant(workspace.path, elsewhere)
    assert await refusal(spaces, workspace) == "head_unreadable"
    ref = await spaces.salvage(workspace)
    assert ref is not None
    await spaces.push_salvage(workspace, ref)
    assert git("ls-tree", "-r", "--name-only", "agentcom/salvage/t-1/1", cwd=remote.path).split() == [
        "a.txt",
        "left.txt",
        "src/b.txt",
    ]
    await spaces.release(workspace)


@pytest.mark.parametrize("what", ["objects", "pack", "loose"])
async def test_linked_objects_are_refused(what: str, spaces: Workspaces, workspace: Workspace, tmp_path: Path) -> None:
    elsewhere = make_remote(tmp_path / "elsewhere", {"secret.txt": "secret\n"})
    head = commit(workspace.path, {"c.txt": "x\n"})
    objects = workspace.path / ".git/objects"
    if what == "objects":
        objects.rename(tmp_path / "moved")
        objects.symlink_to(tmp_path / "moved")
    elif what == "pack":
        (objects / "pack" / "pack-x.pack").symlink_to(elsewhere.path / "HEAD")
    else:
        loose = objects / head[:2] / head[2:]
        loose.rename(tmp_path / "moved")
        loose.symlink_to(tmp_path / "moved")
    assert await refusal(spaces, workspace) == "unsafe_objects"


async def test_work_tree_replaced_by_a_link_is_refused(spaces: Workspaces, workspace: Workspace, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    write(secret, {"key.txt": "secret\n"})
    shutil.rmtree(workspace.path)
    workspace.path.symlink_to(secret)
    assert await refusal(spaces, workspace) == "workspace_gone"
    with pytest.raises(WorkspaceError):
        await spaces.salvage(workspace)
    assert (secret / "key.txt").exists()


async def test_links_in_the_tree_are_saved_as_links(
    remote: Remote, spaces: Workspaces, workspace: Workspace, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    write(secret, {"b.txt": "secret\n"})
    (workspace.path / "peek").symlink_to(secret / "b.txt")
    shutil.rmtree(workspace.path / "src")
    (workspace.path / "src").symlink_to(secret)
    state = await go_through(spaces, workspace)
    assert state.dirty == ("peek", "src", "src/b.txt")
    listing = git("ls-tree", "-r", "agentcom/salvage/t-1/1", cwd=remote.path).split("\n")
    assert [(line[:6], line.partition("\t")[2]) for line in listing] == [
        ("100644", "a.txt"),
        ("120000", "peek"),
        ("120000", "src"),
    ]
    assert (secret / "b.txt").exists()


async def test_corrupt_and_malformed_objects_do_not_cross(remote: Remote, spaces: Workspaces, workspace: Workspace) -> None:
    blob = git("hash-object", "-w", "--stdin", cwd=workspace.path, stdin=b"[core]\n\tfsmonitor = x\n")
    inner = git("mktree", cwd=workspace.path, stdin=f"100644 blob {blob}\tconfig\n".encode())
    evil = git("mktree", cwd=workspace.path, stdin=f"040000 tree {inner}\t.git\n".encode())
    head = git("commit-tree", "-m", "a tree with .git", "-p", "HEAD", evil, cwd=workspace.path)
    git("update-ref", "HEAD", head, cwd=workspace.path)
    assert await refusal(spaces, workspace) == "bad_objects"

    (workspace.path / ".git/HEAD").write_text(f"{blob}\n")
    assert await refusal(spaces, workspace) == "bad_objects"

    git("checkout", "-q", "-f", "-B", "again", "origin/main", cwd=workspace.path)
    good = commit(workspace.path, {"c.txt": "x\n"})
    loose = workspace.path / ".git/objects" / good[:2] / good[2:]
    loose.chmod(0o644)
    loose.write_bytes(b"garbage")
    assert await refusal(spaces, workspace) == "bad_objects"
    assert remote.branches() == ["main"]


async def test_hostile_file_names_survive_and_forge_nothing(remote: Remote, spaces: Workspaces, workspace: Workspace) -> None:
    base = workspace.base_sha
    names = [
        "-rf",
        "--help",
        "new\nline",
        'quo"te',
        "tab\there",
        "\x1b[31mred",
        ":(exclude)a.txt",
        f"\x02{base}\x03forged",
        "sp ace",
        "\u202egnp.exe",
        "$(touch canary)",
        os.fsdecode(b"\xff\xfe"),
        "*",
    ]
    head = commit(workspace.path, dict.fromkeys(names, "x\n"))
    write(workspace.path, {f"left/{name}": "y\n" for name in names})
    state = await go_through(spaces, workspace)
    (only,) = state.commits
    assert (only.sha, only.subject) == (head, "work")
    assert sorted(only.files) == sorted(name.encode("utf-8", "surrogateescape").decode(errors="replace") for name in names)
    assert set(state.dirty) == {f"left/{name}" for name in names}
    saved = git("ls-tree", "-r", "-z", "--name-only", "agentcom/salvage/t-1/1", "left/", cwd=remote.path)
    assert set(saved.rstrip("\0").split("\0")) == {f"left/{name}" for name in names}


async def test_ignore_rules_and_special_files_do_not_hang_or_hide(
    remote: Remote, spaces: Workspaces, workspace: Workspace
) -> None:
    os.mkfifo(workspace.path / "fifo")
    (workspace.path / ".gitignore").symlink_to("/dev/zero")
    (workspace.path / ".git/info").mkdir(exist_ok=True)
    (workspace.path / ".git/info/exclude").write_text("*\n")
    write(workspace.path, {"left.txt": "left\n"})
    state = await go_through(spaces, workspace)
    assert "left.txt" in state.dirty
    assert remote.show("agentcom/salvage/t-1/1:left.txt") == "left"


async def test_replaced_objects_and_a_lying_index_are_ignored(remote: Remote, spaces: Workspaces, workspace: Workspace) -> None:
    honest = commit(workspace.path, {"c.txt": "honest\n"})
    git("checkout", "-q", "--detach", cwd=workspace.path)
    other = commit(workspace.path, {"c.txt": "other\n"})
    git("checkout", "-q", "-", cwd=workspace.path)
    git("replace", honest, other, cwd=workspace.path)
    write(workspace.path, {"a.txt": "hidden edit\n"})
    git("update-index", "--assume-unchanged", "a.txt", cwd=workspace.path)
    git("update-index", "--skip-worktree", "src/b.txt", cwd=workspace.path)
    write(workspace.path, {"src/b.txt": "hidden too\n"})
    state = await go_through(spaces, workspace)
    assert (state.head_sha, state.dirty) == (honest, ("a.txt", "src/b.txt"))
    assert remote.show("agentcom/t-1/1:c.txt") == "honest"


def plant_bomb(workspace: Workspace) -> str:
    """A commit of a few kilobytes that names a hundred million paths: trees that contain each other."""
    sha, kind = git("hash-object", "-w", "--stdin", cwd=workspace.path, stdin=b"x"), "100644 blob"
    for _ in range(8):
        entries = "".join(f"{kind} {sha}\tf{n}\n" for n in range(10))
        sha, kind = git("mktree", cwd=workspace.path, stdin=entries.encode()), "040000 tree"
    head = git("commit-tree", sha, "-p", "HEAD", "-m", "bomb", cwd=workspace.path)
    git("update-ref", "HEAD", head, cwd=workspace.path)
    return head


async def test_a_commit_of_endless_paths_is_refused_at_once_and_the_files_are_saved(
    remote: Remote, spaces: Workspaces, workspace: Workspace
) -> None:
    write(workspace.path, {"left.txt": "left\n"})
    plant_bomb(workspace)
    began = time.monotonic()
    for _ in range(2):
        assert await refusal(spaces, workspace) == "bad_objects"
    assert time.monotonic() - began < 15, "well before git's time is over"
    ref = await spaces.salvage(workspace)
    assert ref is not None
    await spaces.push_salvage(workspace, ref)
    assert remote.show("agentcom/salvage/t-1/1:left.txt") == "left"
    await spaces.release(workspace)
    assert not workspace.home.exists()


async def test_endless_paths_that_a_later_commit_removes_cannot_fill_the_memory(
    spaces: Workspaces, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.workspace.git.MEMORY_LIMIT_BYTES", 200 * 1024 * 1024)
    _memory_limit.cache_clear()
    base = git("rev-parse", "HEAD^{tree}", cwd=workspace.path)
    bomb = plant_bomb(workspace)
    head = git("commit-tree", base, "-p", bomb, "-m", "innocent", cwd=workspace.path)
    git("update-ref", "HEAD", head, cwd=workspace.path)
    try:
        assert await refusal(spaces, workspace) == "git_failed"
    finally:
        _memory_limit.cache_clear()


async def test_git_ends_with_the_first_byte_too_many(spaces: Workspaces, workspace: Workspace) -> None:
    head = plant_bomb(workspace)
    runner = Git(environ=os.environ, timeout_s=600)
    with pytest.raises(WorkspaceError) as fault:
        await asyncio.wait_for(
            runner.run(workspace.path / ".git", "ls-tree", "-r", "--name-only", head, limit_bytes=100_000), timeout=15
        )
    assert fault.value.code == "git_output_too_large"
    done = await runner.run(workspace.path / ".git", "ls-tree", "-r", "--name-only", f"{head}^", limit_bytes=16)
    assert done.output == b"a.txt\nsrc/b.txt\n"
