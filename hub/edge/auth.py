"""Who is asking, and what they may do.

Tokens look like ``ac_<id>_<secret>``: the id (8 hex digits) may be shown, the secret (32 random bytes) is never stored;
the hub keeps a keyed BLAKE2b digest of the whole token. Doors authenticate first, then ask :func:`require`; nothing is
allowed by omission. This module knows no transport.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from hub.core.errors import Refused
from hub.ids import AgentId

TOKEN = re.compile(r"ac_[0-9a-f]{8}_[A-Za-z0-9_-]{43}")
_SECRET_BYTES = 32


class Scope(StrEnum):
    """What a token is good for. Approving is never implied by another scope: it needs a credential that agents cannot read."""

    ADMIN = "admin"
    """Registers projects and repositories; everything of an operator."""
    OPERATOR = "operator"
    """Steers tasks and agents; submits and observes."""
    APPROVER = "approver"
    """Approves and rejects changes; observes."""
    SUBMITTER = "submitter"
    """Submits tasks and observes."""
    OBSERVER = "observer"
    """Reads."""
    AGENT = "agent"
    """A sidecar: its socket and its blobs."""


_IMPLIED: dict[Scope, frozenset[Scope]] = {
    Scope.ADMIN: frozenset({Scope.ADMIN, Scope.OPERATOR, Scope.SUBMITTER, Scope.OBSERVER}),
    Scope.OPERATOR: frozenset({Scope.OPERATOR, Scope.SUBMITTER, Scope.OBSERVER}),
    Scope.APPROVER: frozenset({Scope.APPROVER, Scope.OBSERVER}),
    Scope.SUBMITTER: frozenset({Scope.SUBMITTER, Scope.OBSERVER}),
    Scope.OBSERVER: frozenset({Scope.OBSERVER}),
    Scope.AGENT: frozenset({Scope.AGENT}),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated caller.

    ``name`` is what appears as created_by, answered_by, reviewer; ``agent`` is set for a sidecar's token.
    """

    name: str
    scopes: frozenset[Scope]
    person: bool = False
    agent: AgentId | None = None

    def may(self, scope: Scope) -> bool:
        """Whether one of this identity's scopes is, or implies, ``scope``."""
        return any(scope in _IMPLIED[held] for held in self.scopes)


def require(identity: Identity, *scopes: Scope) -> None:
    """Refuse with 403 unless the identity has at least one of ``scopes``."""
    if not any(identity.may(scope) for scope in scopes):
        needed = " or ".join(scopes)
        raise Refused(403, "forbidden", f"this needs the scope {needed}", hint="use a token that has this scope")


def mint_token() -> str:
    """A new token; show it once and keep only its :func:`digest`."""
    return f"ac_{secrets.token_hex(4)}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def digest(key: bytes, token: str) -> bytes:
    """Keyed BLAKE2b of a token: without the hub's key (at most 64 bytes) a stolen table cannot be tested against guesses."""
    return blake2b(token.encode(), key=key, digest_size=32).digest()


class Authenticator:
    """Knows every valid token by its digest. Immutable; bounded by what the composition root gives it (tens of entries)."""

    def __init__(self, key: bytes, entries: Iterable[tuple[bytes, Identity]]) -> None:
        self._key = key
        self._entries = tuple(entries)

    def authenticate(self, authorization: str | None) -> Identity:
        """The identity behind an ``Authorization`` header value; refused 401 for anything but a known bearer token.

        Every entry is compared, in constant time, so neither position nor prefix of a token can be measured. The
        refusal is the same for a missing, malformed and unknown token and never repeats what was sent.
        """
        scheme, _, token = (authorization or "").partition(" ")
        found: Identity | None = None
        if scheme.lower() == "bearer" and TOKEN.fullmatch(token := token.strip()):
            given = digest(self._key, token)
            for known, identity in self._entries:
                if hmac.compare_digest(known, given):
                    found = identity
        if found is None:
            raise Refused(
                401, "unauthenticated", "a valid token is needed", hint="send it in the header Authorization: Bearer ac_…"
            )
        return found
