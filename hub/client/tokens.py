"""Tokens and enrolments over HTTP: who may come in, and as what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from hub.client.transport import Transport, given, part


class Token(TypedDict):
    """A token without its secret. ``ends_at``: when it expires or was revoked; None: never."""

    id: str
    name: str
    scopes: list[str]
    person: bool
    live: bool
    used: bool
    created_by: str
    created_at: str
    ends_at: str | None
    revoked_by: str | None
    install_id: str | None


class Issued(Token):
    """A new token with its text, which is told only once."""

    token: str


class Tokens(TypedDict):
    """Oldest first."""

    tokens: list[Token]


class Enrolment(TypedDict):
    """A code that registers one machine."""

    id: str
    code: str
    expires_at: str


class WhoAmI(TypedDict):
    """The caller, as the hub sees it."""

    name: str
    scopes: list[str]
    person: bool
    token_id: str
    expires_at: str | None


class Enrolled(TypedDict):
    """A registered machine: its token is ``ac_<token_id>_<secret>``, with the secret it made itself."""

    token_id: str
    name: str
    agents: list[str]
    hub_id: str


class TokenApi(Transport):
    """Issue, list and revoke tokens; register and deregister the machine that asks."""

    async def whoami(self) -> WhoAmI:
        """Who this client's token says it is."""
        return await self.ask(WhoAmI, "GET", "/whoami")

    async def tokens(self) -> Tokens:
        """All tokens, also those that ended in the last 90 days."""
        return await self.ask(Tokens, "GET", "/tokens")

    async def issue_token(
        self, name: str, scopes: Sequence[str], *, person: bool = True, expires_s: int | None = None
    ) -> Issued:
        """Issue a token; an agent's scope is written ``agent:<id>``."""
        body = {"name": name, "scopes": list(scopes), "person": person, **given(expires_s=expires_s)}
        return await self.ask(Issued, "POST", "/tokens", body=body)

    async def revoke_token(self, token: str) -> Token:
        """End a token now, with everything that is open under it. ``token`` is its id, 8 hexadecimal digits."""
        return await self.ask(Token, "DELETE", f"/tokens/{part(token)}")

    async def create_enrolment(self, *, expires_s: int = 900) -> Enrolment:
        """A code with which one machine can join."""
        return await self.ask(Enrolment, "POST", "/enrolments", body={"expires_s": expires_s})

    async def enrol(self, *, install_id: str, secret_sha256: str, agents: Sequence[str], hostname: str) -> Enrolled:
        """Register a machine; this client's token is the code. May be repeated with the same words."""
        body = {"install_id": install_id, "secret_sha256": secret_sha256, "agents": list(agents), "hostname": hostname}
        return await self.ask(Enrolled, "POST", "/enrol", body=body)

    async def leave(self) -> None:
        """Give this client's own token, a machine's, back."""
        await self.send("POST", "/leave")
