"""The files that let people and sidecars in on a first start: the hub's key and two tokens, readable by their owner alone."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hub.core.errors import HubError
from hub.edge.auth import TOKEN, Authenticator, Identity, Scope, digest, mint_token

KEY_FILE = "hub.key"
OPERATOR_FILE = "operator.token"
AGENT_FILE = "agent.token"
KEY_BYTES = 32
_KEY = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}")


class InsecureFile(HubError):
    """A secret is readable by others; the message names the cure."""

    code = "insecure_file"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the data directory holds. ``agent`` is the token sidecars on this machine use."""

    key: bytes
    operator: str
    agent: str

    def authenticator(self, approver_digest: bytes | None) -> Authenticator:
        """Everybody who may come in. The approver's token is known by its digest only: it is on no disk."""
        entries = [
            (digest(self.key, self.operator), Identity("operator", frozenset({Scope.ADMIN}), person=True)),
            (digest(self.key, self.agent), Identity("sidecar", frozenset({Scope.AGENT}), person=False)),
        ]
        if approver_digest is not None:
            entries.append((approver_digest, Identity("approver", frozenset({Scope.APPROVER}), person=True)))
        return Authenticator(self.key, entries)


def open_credentials(data_dir: Path) -> Credentials:
    """Read the files, making those that are missing; raises InsecureFile if somebody else could read one."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Credentials(
        key=bytes.fromhex(_secret(data_dir / KEY_FILE, _KEY, lambda: secrets.token_hex(KEY_BYTES))),
        operator=_secret(data_dir / OPERATOR_FILE, TOKEN, mint_token),
        agent=_secret(data_dir / AGENT_FILE, TOKEN, mint_token),
    )


def _secret(path: Path, shape: re.Pattern[str], make: Callable[[], str]) -> str:
    """The secret in a file, made if there is none; a file that holds something else is refused."""
    if not path.exists():
        _create(path, make())
    if path.stat().st_mode & 0o077:
        raise InsecureFile(f"{path} can be read by others; run: chmod 600 {path}")
    secret = path.read_text("utf-8").strip()
    if not shape.fullmatch(secret):
        raise InsecureFile(f"{path} does not hold what this hub wrote; restore it, or remove it to have a new one made")
    return secret


def _create(path: Path, secret: str) -> None:
    """Write a new file that is whole or not there; of two first starts one wins and both read what it wrote."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink()
