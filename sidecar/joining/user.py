"""Makes the unprivileged user that agents run as: a system account with a home for their logins, and no password."""

from __future__ import annotations

import pwd
import shutil
import subprocess
from pathlib import Path

MAKE_S = 30.0


class UserError(Exception):
    """The user could not be made; the message is what the system said."""

    code = "no_user"
    retryable = False


def exists(name: str) -> bool:
    """Whether the machine has such a user."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def make(name: str, home: Path) -> None:
    """Create it; raises :class:`UserError`."""
    home.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if shutil.which("useradd"):
        # a shell, since some agents start their tools with the one of the account; without a password nobody logs in
        argv = [
            "useradd",
            "--system",
            "--user-group",
            "--create-home",
            "--key",
            "HOME_MODE=0700",  # it will hold logins: at no moment are they others' to read
            "--home-dir",
            str(home),
            "--shell",
            "/bin/sh",
            "--",
            name,
        ]
    elif shutil.which("adduser"):  # busybox
        argv = ["adduser", "-S", "-D", "-h", str(home), "-s", "/bin/sh", name]
    else:
        raise UserError("there is neither useradd nor adduser")
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=MAKE_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise UserError(str(fault)) from fault
    if done.returncode != 0 or not exists(name):
        raise UserError(f"{argv[0]}: {done.stderr.strip()[-500:] or f'exit code {done.returncode}'}")
    home.chmod(0o700)  # also where it was made otherwise
