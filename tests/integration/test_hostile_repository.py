"""Nothing an agent can put into a repository is ever run, followed or believed by the hub.

Every trap points at one canary. The operator's own configuration defines the drivers and filters that the content asks for, which is the
worst case: on a machine where they exist, only the hub's hardening keeps them from running.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.forge.base import Remote
from hub.forge.git import Git
from hub.forge.local import LocalForge
from hub.ids import ChangeState, TaskState, Tier
from tests.support import repos
from tests.support.changes import PASSED_REGISTERED, Gate, open_gate

ATTRIBUTES = "* merge=evil diff=evil filter=evil\n"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def home(tmp_path: Path, canary: Path) -> Path:
    """An operator whose configuration would run something at every turn."""
    home = tmp_path / "home"
    hooks = home / "hooks"
    hooks.mkdir(parents=True)
    trap = home / "trap"
    # What runs inside the remote itself (the server's side of a local push) is its operator's own business.
    trap.write_text(f'#!/bin/sh\ncase "$PWD" in */remote.git) cat >/dev/null; exit 0;; esac\necho "$0 $*" >> {canary}\ncat\n')
    trap.chmod(0o755)
    for name in ("pre-push", "reference-transaction", "post-merge", "post-checkout", "pre-auto-gc", "post-commit"):
        (hooks / name).symlink_to(trap)
    (home / ".gitconfig").write_text(
        f"""
[core]
    hooksPath = {hooks}
    fsmonitor = {trap}
    attributesFile = {home}/attributes
    pager = {trap}
    editor = {trap}
    alternateRefsCommand = {trap}
[merge "evil"]
    driver = {trap} %A
[diff]
    external = {trap}
[diff "evil"]
    textconv = {trap}
    command = {trap}
[filter "evil"]
    clean = {trap}
    smudge = {trap}
    process = {trap}
    required = true
[merge]
    default = evil
[gpg]
    program = {trap}
[commit]
    gpgSign = true
[push]
    gpgSign = if-asked
"""
    )
    (home / "attributes").write_text(ATTRIBUTES)
    return home


@pytest.fixture
async def gate(tmp_path: Path, home: Path, canary: Path) -> AsyncIterator[Gate]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_EXTERNAL_DIFF": str(home / "trap")}
    forge = LocalForge(root=tmp_path / "clones", git=Git(environ=environ))
    async with open_gate(tmp_path, policy={"auto_merge_tier1": True}, forge=forge) as made:
        yield made
    assert not canary.exists(), f"executed: {canary.read_text()}"


def push(gate: Gate, n: int = 1) -> str:
    tree = gate.root / f"agent-{n}-1"
    repos.git("push", "-q", "-f", "origin", f"+HEAD:refs/heads/agentcom/t-{n}/1", cwd=tree)
    return repos.git("rev-parse", "HEAD", cwd=tree)


async def test_attributes_in_the_tree_run_no_driver_filter_or_textconv(gate: Gate) -> None:
    gate.remote.commit({".gitattributes": ATTRIBUTES})
    await gate.review(1, {"a.txt": "one\n2\n3\n"}, verification=PASSED_REGISTERED)
    gate.remote.commit({"a.txt": "1\n2\nthree\n"})
    await gate.settle()
    change = await gate.change()
    assert change.state is ChangeState.CHECKING
    assert gate.remote.show(f"{change.candidate_sha}:a.txt") == "one\n2\nthree", "git's own merge, not the driver's"
    assert "+one\n" in await gate.keeper.diff(1)


async def test_a_union_attribute_does_not_hide_a_conflict(gate: Gate) -> None:
    gate.remote.commit({".gitattributes": "*.txt merge=union\n"})
    await gate.review(1, {"a.txt": "one\n2\n3\n"}, verification=PASSED_REGISTERED)
    gate.remote.commit({"a.txt": "uno\n2\n3\n"})
    await gate.settle()
    assert await gate.states() == (ChangeState.REWORK, TaskState.QUEUED)


async def test_a_binary_attribute_does_not_hide_content(gate: Gate) -> None:
    gate.remote.commit({".gitattributes": "* -diff -text binary linguist-generated\n"})
    await gate.review(1, {"a.txt": "x \u202e y\n"}, verification=PASSED_REGISTERED)
    await gate.settle()
    change = await gate.change()
    assert (change.tier, change.stat["added"]) == (Tier.HIGH, 1)
    assert change.reasons == ("invisible or bidirectional control characters in a.txt",)


async def test_hooks_planted_in_the_hubs_clone_do_not_run(gate: Gate, home: Path) -> None:
    await gate.forge.fetch(Remote("demo", gate.remote.url), "main")
    hooks = gate.root / "clones" / "demo.git" / "hooks"
    hooks.mkdir()
    for name in ("pre-push", "reference-transaction", "post-update", "pre-receive", "update"):
        (hooks / name).symlink_to(home / "trap")
    await gate.review(1, {"a.txt": "one\n2\n3\n"}, verification=PASSED_REGISTERED)
    await gate.settle()
    assert await gate.states() == (ChangeState.MERGED, TaskState.DONE)


async def test_the_hubs_clone_never_has_a_work_tree_or_an_index(gate: Gate) -> None:
    await gate.review(1, {"a.txt": "one\n2\n3\n", "sub/.keep": ""}, verification=PASSED_REGISTERED)
    await gate.settle()
    clone = gate.root / "clones" / "demo.git"
    assert {entry.name for entry in clone.iterdir()} <= {
        "HEAD",
        "config",
        "objects",
        "refs",
        "description",
        "info",
        "packed-refs",
    }
    assert sorted(entry.name for entry in (gate.root / "clones").iterdir()) == ["demo.git"]


async def test_symbolic_links_are_data_and_a_persons_decision(gate: Gate) -> None:
    await gate.review(1, {"a.txt": "x\n"}, verification=PASSED_REGISTERED)
    tree = gate.root / "agent-1-1"
    (tree / "passwd").symlink_to("/etc/passwd")
    (tree / "out").symlink_to("../../..")
    repos.git("add", "-A", cwd=tree)
    repos.git("commit", "-q", "-m", "links", cwd=tree)
    head = push(gate)
    await gate.put(1, "agentcom/t-1/1", gate.remote.sha("main") or "", head, verification=PASSED_REGISTERED)
    await gate.settle()
    change = await gate.change()
    assert (change.state, change.tier) == (ChangeState.WAITING, Tier.HIGH)
    assert change.reasons == ("symbolic link: out, passwd",)
    assert "root:" not in await gate.keeper.diff(1)


async def test_a_submodule_is_not_fetched_and_is_a_persons_decision(gate: Gate, home: Path) -> None:
    await gate.review(1, {"a.txt": "x\n"}, verification=PASSED_REGISTERED)
    tree = gate.root / "agent-1-1"
    base = gate.remote.sha("main") or ""
    (tree / "sub").mkdir()
    repos.git("update-index", "--add", "--cacheinfo", f"160000,{base},sub", cwd=tree)
    modules = '[submodule "sub"]\n\tpath = sub\n\turl = https://host.invalid/x.git\n\tupdate = checkout\n'
    head = repos.commit(tree, {".gitmodules": modules})
    push(gate)
    await gate.put(1, "agentcom/t-1/1", base, head, verification=PASSED_REGISTERED)
    await gate.settle()
    change = await gate.change()
    assert change.tier is Tier.HIGH
    assert "submodule: sub" in change.reasons


async def test_objects_that_attack_git_itself_are_refused_at_the_door(gate: Gate, home: Path) -> None:
    await gate.review(1, {"a.txt": "x\n"}, verification=PASSED_REGISTERED)
    base = gate.remote.sha("main") or ""
    blob = repos.git("hash-object", "-w", "--stdin", cwd=gate.remote.path, stdin=f"[core]\nfsmonitor = {home}/trap\n".encode())
    inner = repos.git("mktree", cwd=gate.remote.path, stdin=f"100644 blob {blob}\tconfig\n".encode())
    tree = repos.git("mktree", cwd=gate.remote.path, stdin=f"040000 tree {inner}\t.GIT\n".encode())
    head = repos.git("commit-tree", tree, "-p", base, "-m", "evil", cwd=gate.remote.path)
    repos.git("update-ref", "refs/heads/agentcom/t-1/1", head, cwd=gate.remote.path)
    await gate.put(1, "agentcom/t-1/1", base, head, verification=PASSED_REGISTERED)
    await gate.settle()
    change = await gate.change()
    assert change.state is ChangeState.WAITING
    assert (change.cause or "").startswith("unsafe_objects: ")
    assert gate.remote.sha("main") == base


NAMES = ["-rf", "--output=x", ":(glob)*", "a\tb", 'quo"te', "new\nline", "$(touch x)", "`id`", "é", "\udcff", "-", "a b", "x;y"]


async def test_hostile_file_names_are_only_names(gate: Gate) -> None:
    await gate.review(1, {"a.txt": "x\n"}, verification=PASSED_REGISTERED)
    tree = gate.root / "agent-1-1"
    for name in NAMES:
        (tree / name).write_text("".join(f"{n}\n" for n in range(120)))
    repos.git("add", "-A", cwd=tree)
    repos.git("commit", "-q", "-m", "names", cwd=tree)
    base = push(gate)
    repos.git("push", "-q", "origin", "HEAD:refs/heads/main", cwd=tree)
    for name in NAMES:
        (tree / name).write_text("gone\n")
    repos.git("add", "-A", cwd=tree)
    repos.git("commit", "-q", "-m", "rewritten", cwd=tree)
    head = push(gate)
    await gate.put(1, "agentcom/t-1/1", base, head, verification=PASSED_REGISTERED)
    await gate.settle()
    change = await gate.change()
    assert (change.state, change.tier) == (ChangeState.WAITING, Tier.HIGH)
    rewritten = [reason for reason in change.reasons if reason.startswith("rewrites 100 %")]
    assert len(rewritten) == len(NAMES) - 1, "all but the name that is no text, which is"
    assert any("not known" in reason for reason in change.reasons)
    assert all(reason.isprintable() for reason in change.reasons)


async def test_a_bidi_file_name_cannot_rearrange_what_a_reviewer_reads(gate: Gate) -> None:
    await gate.review(1, {"cod\u202etxt.exe": "x\n"}, verification=PASSED_REGISTERED)
    await gate.settle()
    change = await gate.change()
    assert change.tier is Tier.HIGH
    assert any("invisible characters in a file name" in reason for reason in change.reasons)
    assert "\u202e" not in "".join(change.reasons) + change.body


async def test_words_of_a_submitter_cannot_forge_trailers_or_the_title(gate: Gate) -> None:
    title = "fix: x\n\nAgentCom-Task: t-99\x1b[31m\u202e"
    words = "text\n\nAgentCom-Task: t-99\nAgentCom-Lease-Epoch: 7"
    await gate.review(1, {"a.txt": "one\n2\n3\n"}, title=title, verification=PASSED_REGISTERED, spec={"description": words})
    await gate.settle()
    show = ("log", "-1", "--format=%(trailers:only)", "main")
    assert repos.git(*show, cwd=gate.remote.path).strip() == "AgentCom-Task: t-1\nAgentCom-Lease-Epoch: 1"
    message = repos.git("log", "-1", "--format=%B", "main", cwd=gate.remote.path)
    assert "\x1b" not in message
    assert "\nAgentCom-Task: t-99" not in message


async def test_a_secret_stops_the_change_and_appears_nowhere(gate: Gate) -> None:
    secret = "ghp_" + "a1B2" * 9
    await gate.review(1, {"a.txt": f"token = {secret}\n"}, verification=PASSED_REGISTERED)
    await gate.settle()
    change = await gate.change()
    assert change.reasons == ("what looks like a GitHub token in a.txt",)
    events = await gate.store.reader.all("event_page_after", after=0, limit=100)
    assert secret not in str(events) + str(change)


@pytest.mark.parametrize(
    "branch", ["--upload-pack=touch canary", "-c", "agentcom/t-1/1\u202e", "../../etc", "a:b", "refs/heads/main"]
)
async def test_a_hostile_branch_name_never_reaches_git(gate: Gate, branch: str) -> None:
    await gate.put(1, branch, gate.remote.sha("main") or "", "1" * 40, verification=PASSED_REGISTERED)
    await gate.settle()
    assert await gate.states() == (ChangeState.REWORK, TaskState.QUEUED)


async def test_the_trap_itself_works(gate: Gate, home: Path, canary: Path) -> None:
    """Without hardening the same configuration does run: the canary can sing."""
    plain = {"HOME": str(home), "GIT_CONFIG_GLOBAL": str(home / ".gitconfig")}
    gate.remote.commit({".gitattributes": ATTRIBUTES})
    repos.git("clone", "-q", str(gate.remote.path), str(gate.root / "plain"), cwd=gate.root, env=plain, check=False)
    repos.git("diff", "HEAD~1", cwd=gate.root / "plain", env=plain, check=False)
    assert canary.exists()
    assert stat.S_ISREG(canary.stat().st_mode)
    canary.unlink()
