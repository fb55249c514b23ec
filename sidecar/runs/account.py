"""The unprivileged account under which agents, checks and git in an agent's files run while the sidecar itself is root.

Changing accounts needs root. Everything a process of that account leaves behind is read with that account's rights, never
with more, so that a link planted there leads nowhere its maker could not go.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REACH_S = 10.0


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
        probe = ["test", "-x", str(directory)]
        return subprocess.run(probe, check=False, cwd="/", timeout=REACH_S, **becoming(self)).returncode == 0


def becoming(account: Account | None) -> dict[str, Any]:
    """The arguments with which ``subprocess`` starts a program as ``account``; none for one that stays who we are."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": [], "umask": 0o022}


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
