"""The machine a sidecar is to live on. Each function looks at one thing and says what it found. Blocking."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from hub.wire.finding import Finding, fail, ok, warn
from sidecar.runs import sweep
from sidecar.runs.account import Account, as_account, own_name
from sidecar.workspace.premises import state_faults

PYTHON = (3, 11)
GIT = (2, 38)
"""The first git with ``merge-tree --write-tree``; see the workspace's documentation."""
ASK_S = 10.0
LOW_BYTES = 256 * 1024**2
"""Less free space than this and neither journal nor clone can be relied on."""
SCARCE_BYTES = 2 * 1024**3
SHARED_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs"}
)
"""File systems whose locks and syncs another machine keeps, or does not."""
TELLS_ITS_VERSION = frozenset({"claude", "codex", "openclaw", "gemini", "opencode"})
"""Programs known to do nothing but print it for ``--version``; another might start to work."""


def agentcom() -> Finding:
    """The version of this program."""
    try:
        return ok("agentcom", f"agentcom {metadata.version('agentcom')}")
    except metadata.PackageNotFoundError:
        return warn("agentcom", "it runs from a source tree that is not installed", "install it: pip install -e .")


def python() -> Finding:
    """The interpreter."""
    found = f"Python {sys.version.split()[0]} ({sys.executable})"
    if sys.version_info < PYTHON:
        return fail("python", found, f"install Python {'.'.join(map(str, PYTHON))} or newer")
    return ok("python", found)


def git() -> Finding:
    """The git on PATH."""
    needed = f"install git {'.'.join(map(str, GIT))} or newer: apt install git, dnf install git, apk add git …"
    said = _says(["git", "--version"])
    if said is None:
        return fail("git", "git was not found on PATH", needed)
    version = re.search(r"(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < GIT:
        return fail("git", said, needed)
    return ok("git", said)


def program(check: str, name: str, account: Account | None = None) -> Finding:
    """A program that agents run, by name or path; with ``account`` it must be that user's to run."""
    path = shutil.which(name)
    if path is None:
        return there(check, name)
    if account is not None and not _may_run(path, account):
        return fail(
            check,
            f"{path} cannot be run by {account.name}",
            f"install it where {account.name} can reach it, such as /usr/local/bin, or open the directories above it",
        )
    version = _says([path, "--version"], account) if Path(path).name in TELLS_ITS_VERSION else None
    return ok(check, f"{path}{f' ({version})' if version else ''}")


def there(check: str, name: str) -> Finding:
    """Whether a program is on this machine; it is not started, since it may be somebody else's."""
    path = shutil.which(name)
    if path is None:
        return fail(check, f"{name!r} was not found", "install it, or put its directory on the PATH")
    return ok(check, path)


def home(account: Account) -> Finding:
    """Where that user's programs keep their logins and caches."""
    if not account.home.is_dir():
        cure = f"make it: install -d -o {account.name} -m 700 {account.home}; or set HOME in env_set"
        return warn("home", f"{account.name}'s home {account.home} does not exist: programs that keep a login there fail", cure)
    return ok("home", f"{account.home}: programs keep {account.name}'s logins there")


def disk(directory: Path) -> Finding:
    """Free space where the state is, or will be."""
    place = existing(directory)
    free = shutil.disk_usage(place).free
    found = f"{free / 1024**3:.1f} GiB free in {place}"
    cure = f"make room on that file system, or set another state_dir than {directory}"
    if free < LOW_BYTES:
        return fail("disk", found, cure)
    return warn("disk", found, cure) if free < SCARCE_BYTES else ok("disk", found)


def state_directory(directory: Path) -> Finding:
    """Whether the state can live there: ours alone, written by us, on a file system of this machine."""
    place = existing(directory)
    try:
        if faults := state_faults(directory):
            return fail(
                "state_dir",
                f"{directory}: {'; '.join(faults)}",
                "name another directory: --state-dir, or state_dir in the file",
            )
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"x")
            os.fsync(probe.fileno())
    except OSError as fault:
        return fail(
            "state_dir", f"{place} cannot be written: {fault.strerror}", f"chown {own_name()} {place}, or set another state_dir"
        )
    kind = file_system(place)
    if kind in SHARED_FILE_SYSTEMS:
        cure = "set state_dir to a directory on a disk of this machine: locks and syncs of a shared file system cannot be relied on"
        return fail("state_dir", f"{place} is on {kind}", cure)
    return ok("state_dir", f"{directory}{f' on {kind}' if kind else ''}")


def linux(account: Account | None = None) -> Finding:
    """What the sidecar needs of the kernel to find and end everything a run starts."""
    missing = [what for what, there in _FACILITIES if not there()]
    if missing:
        return warn(
            "kernel",
            f"without {', '.join(missing)}",
            "processes an agent leaves behind may outlive it: use Linux 5.4 or newer with /proc",
        )
    if account is not None and not _sees_environment_of(account):
        return warn(
            "kernel",
            f"the environment of {account.name}'s processes cannot be read",
            "a process that leaves its session may outlive its run: give this container CAP_SYS_PTRACE (--cap-add SYS_PTRACE)",
        )
    return ok("kernel", f"{os.uname().sysname} {os.uname().release}: subreaper, pidfd, /proc")


def existing(directory: Path) -> Path:
    """The directory, or the nearest one above it that exists."""
    return next(place for place in (directory, *directory.parents) if place.is_dir())


def file_system(directory: Path) -> str:
    """The type of the file system a directory is on; empty where ``/proc`` does not tell."""
    device, best = directory.stat().st_dev, ("", "")
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split(" ", 1)[0]
        major, _, minor = fields[2].partition(":")
        if os.makedev(int(major), int(minor)) == device:
            return kind
        mount = fields[4].encode().decode("unicode_escape", "replace")
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, kind)  # btrfs and overlays hide their device numbers
    return best[1]


def _says(argv: list[str], account: Account | None = None) -> str | None:
    """The first line a program prints; None when it does not run. As ``account`` it learns nothing of our environment."""
    env = os.environ if account is None else {"PATH": os.environ.get("PATH", os.defpath), **account.environment}
    try:
        command, env = as_account(account, argv, env)
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, errors="replace", timeout=ASK_S, check=False,
            stdin=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(done.stdout.splitlines()), "")[:200] if done.returncode == 0 else None


def _may_run(path: str, account: Account) -> bool:
    return account.can_enter(Path(path))


def _sees_environment_of(account: Account) -> bool:
    """Try it on a process of that user; a container may keep even root from it."""
    mark = b"AGENTCOM_PROBE=1"
    argv, env = as_account(account, ["sh", "-c", "echo; exec sleep 30"], {"AGENTCOM_PROBE": "1", "PATH": os.defpath})
    with subprocess.Popen(argv, env=env, cwd="/", stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it is that user by now
            return sweep.carries(process.pid, mark)
        finally:
            process.kill()


_FACILITIES: tuple[tuple[str, Callable[[], bool]], ...] = (
    ("/proc", lambda: bool(sweep.processes())),
    ("PR_SET_CHILD_SUBREAPER", sweep.can_adopt),
    ("pidfd_open", lambda: hasattr(os, "pidfd_open")),
)
