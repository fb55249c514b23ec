"""What every forge promises, on real repositories."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from hub.core.change import Candidate
from hub.core.risk import FileFact
from hub.forge.base import BaseMoved, Forge, ForgeError, PushRejected, Remote, RemoteUnavailable, Unusable
from hub.forge.git import Git
from hub.forge.local import LocalForge
from tests.support import repos
from tests.support.changes import local_forge
from tests.support.repos import make_remote


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return local_forge(tmp_path / "clones")


@pytest.fixture
def there(tmp_path: Path) -> repos.Remote:
    return make_remote(tmp_path, {"a.txt": "1\n2\n3\n", "old.txt": "same\n" * 30})


@pytest.fixture
def remote(there: repos.Remote) -> Remote:
    return Remote("demo", there.url)


def plan(base: str, tree: str, *parents: str) -> Candidate:
    return Candidate(
        sha="", expected_base=base, tree=tree, parents=parents, date_s=1_700_000_000, message="fix: x\n\nbody\n# kept\n"
    )


async def test_fetch_gives_the_head_and_none_for_a_missing_branch(forge: Forge, remote: Remote, there: repos.Remote) -> None:
    assert await forge.fetch(remote, "main") == there.sha("main")
    assert await forge.fetch(remote, "nope") is None
    newer = there.commit({"a.txt": "x\n"})
    assert await forge.fetch(remote, "main") == newer


async def test_those_who_come_at_once_find_one_clone_and_the_same_head(
    forge: Forge, remote: Remote, there: repos.Remote
) -> None:
    """Each made the clone, and took it from under the others: the gatekeeper's first look and a person's came together."""
    heads = await asyncio.gather(*(forge.fetch(remote, "main") for _ in range(4)))
    assert set(heads) == {there.sha("main")}
    there.commit({"a.txt": "x\n"})
    heads = await asyncio.gather(*(forge.fetch(remote, "main") for _ in range(4)))
    assert set(heads) == {there.sha("main")}


async def test_a_fetch_sees_a_rewritten_branch(forge: Forge, remote: Remote, there: repos.Remote) -> None:
    first = there.sha("main")
    assert first is not None
    there.commit({"a.txt": "x\n"})
    await forge.fetch(remote, "main")
    there.rewind(first)
    other = there.commit({"a.txt": "y\n"})
    assert await forge.fetch(remote, "main") == other


async def test_an_unreachable_remote_is_retryable_and_says_nothing_about_its_state(forge: Forge, tmp_path: Path) -> None:
    with pytest.raises(RemoteUnavailable) as refused:
        await forge.fetch(Remote("gone", str(tmp_path / "gone.git")), "main")
    assert refused.value.retryable


@pytest.mark.parametrize("url", ["ext::sh -c 'touch canary'", "-oProxyCommand=x", "relative/path", "http://u:p@host/x"])
async def test_an_unsafe_address_never_reaches_git(forge: Forge, url: str) -> None:
    with pytest.raises(Unusable):
        await forge.fetch(Remote("bad", url), "main")


@pytest.mark.parametrize("name", ["--upload-pack=touch canary", "-x", "a..b", "a b", "a:b", "refs/heads/x", "", "x\u202ey"])
async def test_an_unsafe_branch_name_never_reaches_git(forge: Forge, remote: Remote, name: str) -> None:
    with pytest.raises(Unusable):
        await forge.fetch(remote, name)


async def test_a_clean_merge_gives_a_tree_and_a_conflict_its_paths(forge: Forge, remote: Remote, there: repos.Remote) -> None:
    first = there.sha("main")
    assert first is not None
    there.commit({"b.txt": "b\n"}, branch="side")
    there.rewind(first)
    base = there.commit({"a.txt": "one\n2\n3\n"})
    side, clash = there.sha("side"), None
    there.rewind(first, "clash")
    clash = there.commit({"a.txt": "uno\n2\n3\n"}, branch="clash")
    for branch in ("main", "side", "clash"):
        await forge.fetch(remote, branch)
    assert side is not None
    merged = await forge.merge(remote, base, side)
    assert merged.tree is not None
    assert [file.path for file in (await forge.measure(remote, base, merged.tree)).files] == ["b.txt"]
    assert (await forge.merge(remote, base, clash)).conflicts == ("a.txt",)


async def test_the_same_plan_always_gives_the_same_commit(
    forge: Forge, remote: Remote, there: repos.Remote, tmp_path: Path
) -> None:
    base = await forge.fetch(remote, "main")
    assert base is not None
    tree = await forge.tree_of(remote, base)
    again = local_forge(tmp_path / "other-clones")
    await again.fetch(remote, "main")
    sha = await forge.commit(remote, plan(base, tree, base))
    assert await again.commit(remote, plan(base, tree, base)) == sha
    await forge.push_base(remote, "main", expected=base, sha=sha)
    assert repos.git("log", "-1", "--format=%B", "main", cwd=there.path).strip() == "fix: x\n\nbody\n# kept"


async def test_a_push_needs_the_expected_base(forge: Forge, remote: Remote, there: repos.Remote) -> None:
    base = await forge.fetch(remote, "main")
    assert base is not None
    sha = await forge.commit(remote, plan(base, await forge.tree_of(remote, base), base))
    newer = there.commit({"a.txt": "newer\n"})
    with pytest.raises(BaseMoved):
        await forge.push_base(remote, "main", expected=base, sha=sha)
    assert there.sha("main") == newer


async def test_a_push_that_would_drop_work_is_refused_before_it_is_sent(
    forge: Forge, remote: Remote, there: repos.Remote
) -> None:
    old = there.sha("main")
    newer = there.commit({"a.txt": "newer\n"})
    await forge.fetch(remote, "main")
    assert old is not None
    with pytest.raises(ForgeError) as refused:
        await forge.push_base(remote, "main", expected=newer, sha=old)
    assert refused.value.code == "not_a_descendant"
    assert there.sha("main") == newer


async def test_a_push_that_the_remote_rejects_is_not_retryable(forge: Forge, remote: Remote, there: repos.Remote) -> None:
    base = await forge.fetch(remote, "main")
    assert base is not None
    sha = await forge.commit(remote, plan(base, await forge.tree_of(remote, base), base))
    hook = there.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(PushRejected, match="not today") as refused:
        await forge.push_base(remote, "main", expected=base, sha=sha)
    assert not refused.value.retryable


async def test_contains_is_true_only_for_ancestors_that_are_here(forge: Forge, remote: Remote, there: repos.Remote) -> None:
    first = there.sha("main")
    assert first is not None
    tip = there.commit({"a.txt": "x\n"})
    await forge.fetch(remote, "main")
    assert await forge.contains(remote, tip, first)
    assert not await forge.contains(remote, first, tip)
    assert not await forge.contains(remote, tip, "0123456789012345678901234567890123456789")


async def test_log_is_oldest_first_and_bounded(forge: Forge, remote: Remote, there: repos.Remote) -> None:
    base = there.sha("main")
    assert base is not None
    shas = [there.commit({"a.txt": f"{n}\n"}, f"feat: {n}") for n in range(3)]
    await forge.fetch(remote, "main")
    log = await forge.log(remote, base, shas[-1], limit=10)
    assert [(c.sha, c.subject) for c in log] == [(sha, f"feat: {n}") for n, sha in enumerate(shas)]
    assert log[0].parents == (base,)
    assert [c.sha for c in await forge.log(remote, base, shas[-1], limit=2)] == shas[1:]


async def test_measure_tells_kinds_modes_counts_and_old_lengths(forge: Forge, remote: Remote, there: repos.Remote) -> None:
    old = there.sha("main")
    assert old is not None
    tree = there.colleague
    repos.git("mv", "old.txt", "new.txt", cwd=tree)
    (tree / "link").symlink_to("/etc/passwd")
    (tree / "bin.dat").write_bytes(b"\0\1\2")
    (tree / "run.sh").write_text("x\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "sub").mkdir()  # an empty directory: the submodule is not checked out
    repos.git("update-index", "--add", "--cacheinfo", f"160000,{old},sub", cwd=tree)
    new = there.commit({"a.txt": "one\ntwo\nthree\nfour\n", "odd\tname.txt": "x\n"})
    await forge.fetch(remote, "main")
    files = {file.path: file for file in (await forge.measure(remote, old, new)).files}
    assert files["new.txt"].status == "R"
    assert files["new.txt"].old_path == "old.txt"
    assert files["link"].new_mode == "120000"
    assert files["bin.dat"].binary
    assert files["run.sh"].new_mode == "100755"
    assert files["sub"].new_mode == "160000"
    assert files["odd\tname.txt"].added == 1
    assert files["a.txt"] == FileFact(path="a.txt", status="M", added=4, deleted=3, old_mode="100644", new_mode="100644")


async def test_measure_looks_up_old_lengths_of_rewritten_files(forge: Forge, remote: Remote, there: repos.Remote) -> None:
    old = there.commit({"long.txt": "".join(f"{n}\n" for n in range(200))})
    new = there.commit({"long.txt": "".join(f"{n if n < 100 else -n}\n" for n in range(200))})
    await forge.fetch(remote, "main")
    (file,) = (await forge.measure(remote, old, new)).files
    assert (file.deleted, file.old_lines) == (100, 200)


async def test_measure_finds_what_the_text_hides(forge: Forge, remote: Remote, there: repos.Remote) -> None:
    old = there.sha("main")
    assert old is not None
    new = there.commit({"x.py": "a = 1  # \u202e evil\n", "y.py": "k = 'AKIA" + "ABCDEFGHIJKLMNOP'\n"})
    await forge.fetch(remote, "main")
    findings = (await forge.measure(remote, old, new)).findings
    assert findings.hidden == ("x.py",)
    assert findings.secrets == (("y.py", "an AWS key"),)


async def test_a_change_too_large_to_read_is_not_complete(
    forge: Forge, remote: Remote, there: repos.Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.forge.local.PATCH_BYTES", 1000)
    old = there.sha("main")
    assert old is not None
    new = there.commit({"x.txt": "text\n" * 1000})
    await forge.fetch(remote, "main")
    assert not (await forge.measure(remote, old, new)).complete
    assert "cut off after 1000 bytes" in await forge.diff(remote, old, new, limit_bytes=1000)


async def test_delete_takes_only_branches_that_are_where_they_were(forge: Forge, remote: Remote, there: repos.Remote) -> None:
    base = await forge.fetch(remote, "main")
    assert base is not None
    await forge.publish(remote, "agentcom/candidate/1", base)
    await forge.publish(remote, "agentcom/candidate/2", base)
    moved = there.commit({"a.txt": "x\n"}, branch="agentcom/candidate/2")
    await forge.delete(remote, [("agentcom/candidate/1", base), ("agentcom/candidate/2", base), ("agentcom/none", base)])
    assert there.sha("agentcom/candidate/1") is None
    assert there.sha("agentcom/candidate/2") == moved


async def test_probe_accepts_a_bare_repository_with_its_base(forge: Forge, remote: Remote) -> None:
    await forge.probe(remote, "main")


async def test_probe_refuses_a_checked_out_base_and_names_the_cure(forge: Forge, there: repos.Remote) -> None:
    for url in (str(there.colleague), f"file://{there.colleague}"):
        with pytest.raises(Unusable, match="git clone --bare") as refused:
            await forge.probe(Remote("work", url), "main")
        assert (refused.value.status, refused.value.code) == (422, "base_checked_out")
    repos.git("switch", "-q", "--detach", cwd=there.colleague)
    await forge.probe(Remote("work", str(there.colleague)), "main")


async def test_probe_refuses_a_missing_base_and_a_directory_without_repository(
    forge: Forge, remote: Remote, tmp_path: Path
) -> None:
    with pytest.raises(Unusable) as missing:
        await forge.probe(remote, "trunk")
    assert missing.value.code == "base_missing"
    with pytest.raises(Unusable) as nothing:
        await forge.probe(Remote("none", str(tmp_path)), "main")
    assert nothing.value.code == "not_a_repository"


async def test_locks_left_by_a_killed_hub_do_not_stop_the_next_one(remote: Remote, tmp_path: Path) -> None:
    root = tmp_path / "locked"
    await local_forge(root).fetch(remote, "main")
    (root / "demo.git" / "packed-refs.lock").touch()
    (root / "demo.git" / "refs" / "remotes" / "origin" / "main.lock").touch()
    assert await local_forge(root).fetch(remote, "main") is not None


async def test_a_remote_that_hangs_ends_in_a_timeout_and_leaves_no_process(tmp_path: Path, there: repos.Remote) -> None:
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    ssh.chmod(0o755)
    forge = LocalForge(root=tmp_path / "c", git=Git(environ={"PATH": f"{ssh.parent}:{os.environ['PATH']}"}, talk_timeout_s=0.5))
    with pytest.raises(RemoteUnavailable, match="no answer"):
        await forge.fetch(Remote("slow", "ssh://host.invalid/x.git"), "main")
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the transport helper lives on")


async def test_git_that_cannot_be_started_is_told_apart_and_retryable(
    forge: Forge, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", full)
    with pytest.raises(ForgeError) as trouble:
        await forge.fetch(remote, "main")
    assert (trouble.value.code, trouble.value.retryable) == ("git_not_started", True)


async def test_a_clone_that_cannot_be_made_is_a_failure_of_the_forge(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "full").write_text("")
    with pytest.raises(ForgeError) as trouble:
        await local_forge(tmp_path / "full").fetch(remote, "main")
    assert trouble.value.code == "clone_failed"


async def test_the_heads_of_a_prefix_are_known_with_their_commits(forge: Forge, remote: Remote, there: repos.Remote) -> None:
    there.commit({"b.txt": "b\n"}, branch="agentcom/t-1/1")
    there.commit({"c.txt": "c\n"}, branch="agentcomx/t-2/1")
    assert await forge.heads(remote, "agentcom/") == {"agentcom/t-1/1": there.sha("agentcom/t-1/1")}
    assert await forge.heads(remote, "nothing/") == {}


async def test_the_heads_of_a_remote_that_is_away_are_not_none_but_unknown(forge: Forge, tmp_path: Path) -> None:
    with pytest.raises(RemoteUnavailable):
        await forge.heads(Remote("gone", str(tmp_path / "gone.git")), "agentcom/")


async def test_what_is_forgotten_can_be_fetched_again(
    forge: Forge, remote: Remote, there: repos.Remote, tmp_path: Path
) -> None:
    assert list(forge.kept()) == []
    await forge.fetch(remote, "main")
    assert list(forge.kept()) == ["demo"]
    await forge.forget("demo")
    await forge.forget("never-there")
    assert list(forge.kept()) == []
    assert list((tmp_path / "clones").iterdir()) == []
    assert await forge.fetch(remote, "main") == there.sha("main")
