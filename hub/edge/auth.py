"""Who is asking, and what they may do.

Tokens look like ``ac_<id>_<secret>``: the id (8 hex digits) may be shown; the secret (32 random bytes) is never stored. The hub keeps a
keyed BLAKE2b of the secret's SHA-256, so a machine can register a secret of its own without sending it. Doors authenticate first,
then ask :func:`require`; nothing is allowed by omission. This module knows no transport.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b, sha256

from hub.core.errors import Refused
from hub.ids import AGENT_PREFIX, ANY_AGENT, AgentId, Scope
from hub.store.tokens import TokenRecord, agents_of

TOKEN = re.compile(r"ac_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
_SECRET_BYTES = 32
_ID_BYTES = 4

_IMPLIED: dict[Scope, frozenset[Scope]] = {
    Scope.ADMIN: frozenset({Scope.ADMIN, Scope.OPERATOR, Scope.SUBMITTER, Scope.OBSERVER}),
    Scope.OPERATOR: frozenset({Scope.OPERATOR, Scope.SUBMITTER, Scope.OBSERVER}),
    Scope.APPROVER: frozenset({Scope.APPROVER, Scope.OBSERVER}),
    Scope.SUBMITTER: frozenset({Scope.SUBMITTER, Scope.OBSERVER}),
    Scope.OBSERVER: frozenset({Scope.OBSERVER}),
    Scope.AGENT: frozenset({Scope.AGENT}),
    Scope.ENROL: frozenset({Scope.ENROL}),
}


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated caller.

    ``name`` is what appears as created_by, answered_by, reviewer. ``agents`` are those a sidecar's token is good for, and
    ``install_id`` is the installation it belongs to (None: any). ``created_at`` and ``ends_at`` are microseconds UTC.
    """

    name: str
    scopes: frozenset[Scope]
    person: bool = False
    agents: frozenset[AgentId] = frozenset()
    token: str = ""
    install_id: str | None = None
    created_at: int = 0
    ends_at: int | None = None

    @classmethod
    def of(cls, record: TokenRecord) -> Identity:
        """Whoever comes with this token."""
        words = {scope.partition(":")[0] if scope.startswith(AGENT_PREFIX) else scope for scope in record.scopes}
        return cls(
            name=record.name,
            scopes=frozenset(map(Scope, words)),
            person=record.person,
            agents=frozenset(agents_of(record)),
            token=record.id,
            install_id=record.install_id,
            created_at=record.created_at,
            ends_at=record.ends_at,
        )

    def may(self, scope: Scope) -> bool:
        """Whether one of this identity's scopes is, or implies, ``scope``."""
        return any(scope in _IMPLIED[held] for held in self.scopes)

    def may_be(self, agent: AgentId) -> bool:
        """Whether it may speak as this agent."""
        return self.may(Scope.AGENT) and not self.agents.isdisjoint({agent, ANY_AGENT})


def require(identity: Identity, *scopes: Scope) -> None:
    """Refuse with 403 unless the identity has at least one of ``scopes``."""
    if not any(identity.may(scope) for scope in scopes):
        needed = " or ".join(scopes)
        raise Refused(403, "forbidden", f"this needs the scope {needed}", hint="use a token that has this scope")


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token, whole. Show ``text`` once and keep only the digest."""

    id: str
    secret: str

    @property
    def text(self) -> str:
        """What its bearer sends."""
        return f"ac_{self.id}_{self.secret}"


def mint() -> Minted:
    """A new token."""
    return Minted(new_id(), secrets.token_urlsafe(_SECRET_BYTES))


def new_id() -> str:
    """The id of a token whose secret somebody else made."""
    return secrets.token_hex(_ID_BYTES)


def digest(key: bytes, secret: str) -> str:
    """What is stored of a secret: see :func:`digest_of_sha256`."""
    return digest_of_sha256(key, sha256(secret.encode()).hexdigest())


def digest_of_sha256(key: bytes, secret_sha256: str) -> str:
    """Keyed BLAKE2b (hex) of a secret's SHA-256 (hex): without the hub's key a stolen table cannot be tested against guesses."""
    return blake2b(bytes.fromhex(secret_sha256), key=key, digest_size=32).hexdigest()


class Authenticator:
    """Every live token, by id. Bounded by ``hub.store.tokens.MAX_TOKENS``; whoever changes the table tells it."""

    def __init__(self, key: bytes, tokens: Iterable[TokenRecord], now_us: Callable[[], int]) -> None:
        self._key = key
        self._now_us = now_us
        self._known = {token.id: (token.digest, Identity.of(token)) for token in tokens if token.is_live(now_us())}

    def admit(self, token: TokenRecord) -> None:
        """Let this token in, with what it is good for now; those that have ended meanwhile are let go."""
        self._known = {known: entry for known, entry in self._known.items() if self.holds(entry[1])}
        if token.is_live(self._now_us()):
            self._known[token.id] = token.digest, Identity.of(token)

    def forget(self, token: str) -> None:
        """Let this token in no more."""
        self._known.pop(token, None)

    def holds(self, identity: Identity) -> bool:
        """Whether the token it came with is still good."""
        known = self._known.get(identity.token)
        return known is not None and (identity.ends_at is None or identity.ends_at > self._now_us())

    def authenticate(self, authorization: str | None) -> Identity:
        """The identity behind an ``Authorization`` header value; refused 401 for anything but a live bearer token.

        The secret is compared by its digest in constant time. The refusal is the same for a missing, malformed, unknown and
        ended token, and never repeats what was sent.
        """
        scheme, _, text = (authorization or "").partition(" ")
        token = TOKEN.fullmatch(text.strip())
        if scheme.lower() == "bearer" and token is not None:
            known, identity = self._known.get(token[1], ("", None))
            if hmac.compare_digest(known, digest(self._key, token[2])) and identity is not None and self.holds(identity):
                return identity
        raise Refused(
            401, "unauthenticated", "a valid token is needed", hint="send it in the header Authorization: Bearer ac_…"
        )
