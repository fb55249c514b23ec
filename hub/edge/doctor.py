"""What the doors know: who can read the data directory, with its key and tokens, and how long the certificate is good for."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from hub.edge.credentials import KEY_FILE
from hub.edge.tls import TlsUnusable, ends_at, server_context
from hub.wire.finding import Finding, fail, ok, warn

RENEW = timedelta(days=14)
"""Before its end, a certificate that renews itself has done so."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def examine_permissions(data_dir: Path) -> list[Finding]:
    """The directory and the files directly in it."""
    if not data_dir.exists():
        return [
            warn(
                "permissions", f"there is no {data_dir} yet", "start the hub, or name the right one with --data-dir or --config"
            )
        ]
    try:
        exposed = list(_exposed(data_dir))
        owner = data_dir.stat().st_uid
    except OSError as fault:
        return [fail("permissions", f"{data_dir}: {fault.strerror}", "run this as the user of the hub")]
    if exposed:
        found = f"others can use {', '.join(str(path) for path in exposed)}"
        return [
            fail(
                "permissions",
                found,
                f"chmod go= {' '.join(shlex.quote(str(path)) for path in exposed)}",
                fixable=owner == os.geteuid() and (data_dir / KEY_FILE).is_file(),
            )
        ]
    return [ok("permissions", f"{data_dir} is for its owner alone")]


def close_permissions(data_dir: Path) -> None:
    """Take every right of others away from what :func:`examine_permissions` would name; what is not ours stays.

    A directory in which no hub has left its key is not one of ours, whatever it was said to be.
    """
    for path in _exposed(data_dir) if (data_dir / KEY_FILE).is_file() else ():
        if path.stat().st_uid == os.geteuid():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~OTHERS)


def examine_certificate(cert: Path, key: Path, now: datetime) -> list[Finding]:
    """The certificate as it lies on disk; a hub reads it when it starts."""
    try:
        until = ends_at(server_context(cert, key), cert)
    except TlsUnusable as unusable:
        return [fail("certificate", fault, "put that right, and start the hub again") for fault in unusable.faults]
    found = f"{cert}, until {until:%Y-%m-%d %H:%MZ}"
    if until - now < RENEW:
        return [warn("certificate", found, "renew it, and start the hub again; running agents do not notice")]
    return [ok("certificate", found)]


def _exposed(data_dir: Path) -> Iterator[Path]:
    """What a hub wrote there; directories within are closed by the one around them."""
    ours = [path for path in data_dir.iterdir() if path.name.startswith("hub.") or path.suffix == ".token"]
    for path in (data_dir, *sorted(ours)):
        found = path.lstat()
        if (path == data_dir or stat.S_ISREG(found.st_mode)) and stat.S_IMODE(found.st_mode) & OTHERS:
            yield path
