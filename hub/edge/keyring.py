"""Changes of who may come in: committed first, then true at every door at once.

A revoked token's open sockets are closed by whoever listens here; its next request is refused anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from hub.edge.auth import Authenticator, Identity, digest, digest_of_sha256, mint, new_id
from hub.ids import SECOND, AgentId, Scope, agent_scope
from hub.store import tokens
from hub.store.base import Operation
from hub.store.tokens import NewToken, TokenRecord

T = TypeVar("T")

MACHINE_PREFIX = "machine:"
"""Before the name of a machine: no person can be called so."""
ENROL_S = 900
"""How long an enrolment code is good, unless told otherwise."""


class Recorder(Protocol):
    """What the keyring needs of the conductor."""

    async def record(self, operation: Operation[T], /) -> T:
        """Run a record operation; returns after its commit."""


class Keyring:
    """Issues, exchanges and revokes tokens. ``revoked`` is called with the id of a token that ends before its time."""

    def __init__(
        self,
        key: bytes,
        auth: Authenticator,
        conductor: Recorder,
        now_us: Callable[[], int],
        revoked: Callable[[str], None] = lambda _token: None,
    ) -> None:
        self._key = key
        self._auth = auth
        self._conductor = conductor
        self._now_us = now_us
        self._revoked = revoked

    async def issue(
        self, actor: str, name: str, scopes: Sequence[str], *, person: bool, expires_s: int | None
    ) -> tuple[TokenRecord, str]:
        """A new token and, for this once, its text."""
        minted = mint()
        ends_at = None if expires_s is None else self._now_us() + expires_s * SECOND
        new = NewToken(
            id=minted.id,
            digest=digest(self._key, minted.secret),
            name=name,
            scopes=tuple(dict.fromkeys(scopes)),
            person=person,
            ends_at=ends_at,
        )
        token = await self._conductor.record(tokens.issue(actor, new))
        self._auth.admit(token)
        return token, minted.text

    async def enrolment(self, actor: str, *, expires_s: int = ENROL_S) -> tuple[TokenRecord, str]:
        """A code that registers one machine, and its text."""
        return await self.issue(actor, "enrolment", [Scope.ENROL], person=False, expires_s=expires_s)

    async def enrol(
        self, code: Identity, *, machine: str, install_id: str, secret_sha256: str, agents: Sequence[AgentId]
    ) -> TokenRecord:
        """Exchange a code for the token of a machine, which keeps the one it has."""
        new = NewToken(
            id=new_id(),
            digest=digest_of_sha256(self._key, secret_sha256),
            name=MACHINE_PREFIX + machine,
            scopes=tuple(map(agent_scope, agents)),
            install_id=install_id,
        )
        token = await self._conductor.record(tokens.enrol(code.token, new, agents))
        self._auth.admit(token)
        return token

    async def revoke(self, actor: str, token: str) -> TokenRecord:
        """End a token now, with everything that is open under it."""
        record = await self._conductor.record(tokens.revoke(actor, token))
        self._auth.forget(token)
        self._revoked(token)
        return record
