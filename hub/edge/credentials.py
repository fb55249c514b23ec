"""The files that let people and sidecars in on a first start: the hub's key and two tokens, readable by their owner alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hub.core.errors import HubError
from hub.edge.auth import Authenticator, Identity, Scope, digest, mint_token

KEY_FILE = "hub.key"
OPERATOR_FILE = "operator.token"
AGENT_FILE = "agent.token"
KEY_BYTES = 32


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
        key=bytes.fromhex(_secret(data_dir / KEY_FILE, lambda: secrets.token_hex(KEY_BYTES))),
        operator=_secret(data_dir / OPERATOR_FILE, mint_token),
        agent=_secret(data_dir / AGENT_FILE, mint_token),
    )


def _secret(path: Path, make: Callable[[], str]) -> str:
    try:
        # O_EXCL: of two first starts one writes and the other reads what it wrote
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise InsecureFile(f"{path} can be read by others; run: chmod 600 {path}") from None
        return path.read_text("utf-8").strip()
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        secret = make()
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    return secret
