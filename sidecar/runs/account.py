"""The unprivileged account under which agents, checks and git in an agent's files run while the sidecar itself is root.

Changing accounts needs root. Everything a process of that account leaves behind is read with that account's rights, never
with more, so that a link planted there leads nowhere its maker could not go.

The change is made by ``setpriv`` (util-linux), after the exec: in a child that changes before it, an agent could stop the
fork while this process waits for the exec, and with it all that the sidecar does.
"""

from __future__ import annotations

import errno
import functools
import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REACH_S = 10.0
SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/run/current-system/sw/bin"
"""Where ``setpriv`` is looked for: root starts it, so an agent's ``PATH`` does not count."""
LOADING = ("LD_", "GCONV_PATH", "LOCPATH", "NLSPATH", "GLIBC_TUNABLES")
"""Variables (or their beginnings) by which a program loads code: they count only once the user is changed."""


class AccountError(Exception):
    """The account cannot be used; the message ends with the cure."""

    code = "bad_account"
    retryable = False


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine, without supplementary groups. ``home`` is where its programs keep logins and caches."""

    name: str
    uid: int
    gid: int
    home: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What in the environment says who somebody is."""
        return {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name}

    def can_enter(self, directory: Path) -> bool:
        """Whether it may reach what lies below ``directory``: asked of the system, which alone knows all that closes a way."""
        argv, env = as_account(self, ["test", "-x", str(directory)], os.environ)
        try:
            return subprocess.run(argv, env=env, check=False, cwd="/", timeout=REACH_S).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


def as_account(account: Account | None, argv: Sequence[str], env: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Command and environment that run ``argv`` with ``env`` as ``account``; unchanged for one that stays who we are.

    Raises FileNotFoundError for a program that is not there, as ``subprocess`` would.
    """
    return (list(argv), dict(env)) if account is None else as_ids(account.uid, account.gid, argv, env)


def as_ids(
    uid: int, gid: int, argv: Sequence[str], env: Mapping[str, str], *, dies_with_parent: bool = False
) -> tuple[list[str], dict[str, str]]:
    """The same for a user given by numbers. ``dies_with_parent``: the kernel kills it when the thread that starts it ends."""
    program = setpriv()
    if program is None:
        raise FileNotFoundError(errno.ENOENT, "changing users takes util-linux", "setpriv")
    name = argv[0]
    if (os.sep not in name or name.startswith(os.sep)) and shutil.which(name, path=env.get("PATH", os.defpath)) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    # The kernel forgets whose death to follow when the user changes, so it is said again after that.
    death = ("--pdeathsig", "KILL") if dies_with_parent else ()
    late = {name: value for name, value in env.items() if name.startswith(LOADING)}
    loading = ("/usr/bin/env", *(f"{name}={value}" for name, value in late.items())) if late else ()
    change = (program, "--reuid", str(uid), "--regid", str(gid), "--clear-groups", *death, "--")
    return [*change, *loading, *argv], {name: value for name, value in env.items() if name not in late}


@functools.cache
def setpriv() -> str | None:
    """The program that changes users; busybox has another one of that name."""
    found = shutil.which("setpriv", path=SYSTEM_PATH)
    return None if found is None or Path(found).resolve().name == "busybox" else found


def find_account(name: str) -> Account | None:
    """The account to change to; None when ``name`` is empty or who this process is already. Raises :class:`AccountError`."""
    if not name:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise AccountError(f"there is no user {name!r}; create it: useradd --system --create-home {name}") from None
    if entry.pw_uid == os.geteuid() != 0:
        return None
    if os.geteuid() != 0:
        raise AccountError(f"only root can run agents as {name!r}; start the sidecar as root, or as {name} without run_as")
    if entry.pw_uid == 0:
        raise AccountError(f"{name!r} is root itself; name an unprivileged user")
    if setpriv() is None:
        raise AccountError("setpriv, which changes users, is not on this machine; install util-linux (2.33 or newer)")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def own_name() -> str:
    """The name of the user this process runs as, or its number."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def group_name(gid: int) -> str:
    """The name of a group, or its number."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
