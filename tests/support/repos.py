"""Real git repositories for tests: bare remotes with history, and what an agent does in a clone.

``git`` here is the plain program with a neutral environment, as a person or an agent would run it: nothing is hardened.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_EDITOR": "true",
}


def git(*args: str, cwd: Path, env: Mapping[str, str] | None = None, check: bool = True, stdin: bytes = b"") -> str:
    """Run plain git; its standard output, stripped of the last newline."""
    done = subprocess.run(["git", *args], cwd=cwd, env={**_ENV, **(env or {})}, input=stdin, capture_output=True, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"git {' '.join(args)}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode(errors="surrogateescape").removesuffix("\n")


def write(root: Path, files: Mapping[str, str | None]) -> None:
    """Create files with parents; None removes one."""
    for name, text in files.items():
        path = root / name
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def commit(tree: Path, files: Mapping[str, str | None], message: str = "work", env: Mapping[str, str] | None = None) -> str:
    """Write files in a work tree and commit them all, the way an agent does; the new commit's id."""
    write(tree, files)
    git("add", "-A", cwd=tree, env=env)
    git("commit", "-q", "-m", message, cwd=tree, env=env)
    return git("rev-parse", "HEAD", cwd=tree)


@dataclass(frozen=True, slots=True)
class Remote:
    """A bare repository, and the work tree of a colleague who pushes to it."""

    path: Path
    colleague: Path
    base: str

    @property
    def url(self) -> str:
        return str(self.path)

    def commit(self, files: Mapping[str, str | None], message: str = "work", branch: str | None = None) -> str:
        """The colleague commits on a branch (default: the base) and pushes."""
        branch = branch or self.base
        if git("symbolic-ref", "--short", "HEAD", cwd=self.colleague) != branch:
            git("checkout", "-q", "-B", branch, cwd=self.colleague)
        sha = commit(self.colleague, files, message)
        git("push", "-q", "origin", f"+HEAD:refs/heads/{branch}", cwd=self.colleague)
        return sha

    def rewind(self, sha: str, branch: str | None = None) -> None:
        """The colleague throws commits away; the next commit force-pushes."""
        git("checkout", "-q", "-B", branch or self.base, sha, cwd=self.colleague)
        git("reset", "-q", "--hard", sha, cwd=self.colleague)

    def sha(self, ref: str) -> str | None:
        return git("rev-parse", "--verify", "-q", ref, cwd=self.path, check=False) or None

    def branches(self) -> list[str]:
        return git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads", cwd=self.path).split()

    def show(self, spec: str) -> str:
        """Content of ``rev:path``."""
        return git("show", spec, cwd=self.path)

    def collect(self) -> None:
        """Drop everything unreachable, at once."""
        git("reflog", "expire", "--expire=now", "--all", cwd=self.path)
        git("gc", "-q", "--prune=now", cwd=self.path)


def make_remote(
    root: Path, files: Mapping[str, str | None] | None = None, *, base: str = "main", name: str = "remote"
) -> Remote:
    """A bare remote; with ``files`` it has one commit on ``base``, without it is empty."""
    path, colleague = root / f"{name}.git", root / f"{name}-colleague"
    root.mkdir(parents=True, exist_ok=True)
    git("init", "-q", "--bare", f"--initial-branch={base}", str(path), cwd=root)
    git("init", "-q", f"--initial-branch={base}", str(colleague), cwd=root)
    git("remote", "add", "origin", str(path), cwd=colleague)
    remote = Remote(path, colleague, base)
    if files:
        remote.commit(files, "first")
    return remote
