"""The hub's key, and the files that let the first people and sidecars in; each is readable by its owner alone.

A file holds the secret of a token of the table; deleting it, or revoking its token, is for ever. They are made on a first start, and
an administrator's again when nobody could administrate the hub any more.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub.core.errors import HubError
from hub.edge.auth import digest, mint
from hub.ids import ANY_AGENT, Scope, agent_scope
from hub.store.files import sync_directory
from hub.store.tokens import NewToken, TokenRecord

KEY_FILE = "hub.key"
ADMIN_FILE = "admin.token"
OPERATOR_FILE = "operator.token"
AGENT_FILE = "agent.token"
KEY_BYTES = 32
_KEY_CURE = (
    "restore it from where you keep a copy, or run `agentcom token recover`, which ends all tokens and makes an administrator's"
)
_KEY = re.compile(rf"[0-9a-f]{{{2 * KEY_BYTES}}}")


class KeyLost(HubError):
    """The hub's key is gone, or is not the one its store was written with; the message names the cures."""

    code = "key_lost"


class InsecureFile(HubError):
    """A secret is readable by others; the message names the cure."""

    code = "insecure_file"


@dataclass(frozen=True, slots=True)
class _Role:
    file: str
    name: str
    scopes: tuple[str, ...]
    person: bool = True


_ADMIN = _Role(ADMIN_FILE, "admin", (Scope.ADMIN,))
_OPERATOR = _Role(OPERATOR_FILE, "operator", (Scope.OPERATOR, Scope.SUBMITTER))
_AGENT = _Role(AGENT_FILE, "sidecar", (agent_scope(ANY_AGENT),), person=False)


def open_key(data_dir: Path, mark: str | None) -> bytes:
    """The key all digests are made with, made on a first start, when ``mark`` is None.

    Otherwise ``mark`` is the :func:`mark_of` the key that the store was written with: without that very key no token opens
    anything. Raises KeyLost if it is gone or another, and InsecureFile if any secret here can be read by others, or cannot be used.
    """
    try:
        return _open_key(data_dir, mark)
    except (OSError, UnicodeDecodeError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "it is not text"
        where = getattr(fault, "filename", None) or data_dir / KEY_FILE
        raise InsecureFile(f"the data directory cannot be used: {why}: {where}; choose another --data-dir") from fault


def _open_key(data_dir: Path, mark: str | None) -> bytes:
    for name in (KEY_FILE, ADMIN_FILE, OPERATOR_FILE, AGENT_FILE):
        if (path := data_dir / name).exists() and path.stat().st_mode & 0o077:
            raise InsecureFile(f"{path} can be read by others; run: chmod 600 {path}")
    path = data_dir / KEY_FILE
    if not path.exists():
        if mark is not None:
            raise KeyLost(f"{path} is gone, and without it no token opens anything; {_KEY_CURE}")
        _write(path, secrets.token_hex(KEY_BYTES))
    text = path.read_text("utf-8").strip()
    key = bytes.fromhex(text) if _KEY.fullmatch(text) else b""
    if not key or mark not in (None, mark_of(key)):
        raise KeyLost(f"{path} is not the key that this hub's tokens were made with; {_KEY_CURE}")
    return key


def new_key(data_dir: Path) -> bytes:
    """Another key in place of one that is lost."""
    _write(data_dir / KEY_FILE, secrets.token_hex(KEY_BYTES))
    return open_key(data_dir, None)


def mark_of(key: bytes) -> str:
    """By what a key is known again; it tells nothing about the key."""
    return digest(key, KEY_FILE)


def first_tokens(
    data_dir: Path, key: bytes, known: Sequence[TokenRecord], now_us: int, *, local_agents: bool
) -> Iterator[NewToken]:
    """What has to be issued so that somebody may come in; the file of each is written before it is given out.

    ``local_agents`` adds a token for whichever agents run on this machine.
    """
    live = [token for token in known if token.is_live(now_us)]
    if not any(Scope.ADMIN in token.scopes for token in live):
        yield _make(data_dir, key, _ADMIN)
    if not known:
        yield _make(data_dir, key, _OPERATOR)
    if local_agents and not any(_AGENT.scopes[0] in token.scopes for token in live):
        yield _make(data_dir, key, _AGENT)


def admin_token(data_dir: Path, key: bytes) -> NewToken:
    """Another administrator's token, for whoever owns the data directory and has lost theirs; replaces the file."""
    return _make(data_dir, key, _ADMIN)


def _make(data_dir: Path, key: bytes, role: _Role) -> NewToken:
    minted = mint()
    _write(data_dir / role.file, minted.text)
    return NewToken(
        id=minted.id, digest=digest(key, minted.secret), name=role.name, scopes=tuple(role.scopes), person=role.person
    )


def _write(path: Path, secret: str) -> None:
    """A file that is whole or not there; once it is, no power cut takes it: the store remembers what was made with it."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_directory(path.parent)
    finally:
        fresh.unlink(missing_ok=True)
