"""Tokens: issue, list, revoke, and who am I. A token's text is in exactly one answer, the one that issued it."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import AfterValidator, Field

from hub.core.commands import ReleaseAgent
from hub.core.errors import Refused
from hub.edge.http.access import ADMINS, Admin, Anybody, Hub, Sidecar
from hub.edge.http.fields import Body, Moment, Name, Out, TokenId
from hub.edge.http.reading import JsonRoute
from hub.ids import AGENT_ID, AGENT_PREFIX, ANY_AGENT, DAY, SECOND, Scope, agent_scope
from hub.store import tokens
from hub.store.tokens import TokenRecord

router = APIRouter(tags=["tokens"], route_class=JsonRoute)

EXPIRES_S = 10 * 366 * DAY // SECOND
"""Longest life that may be asked for; a token without any lives until it is revoked."""
_PLAIN = tuple(scope for scope in Scope if scope not in (Scope.AGENT, Scope.ENROL))


def _scope(word: str) -> str:
    agent = word.removeprefix(AGENT_PREFIX)
    if word in _PLAIN or (agent != word and (agent == ANY_AGENT or AGENT_ID.fullmatch(agent))):
        return word
    raise ValueError(
        f"{word[:80]!r} is not a scope; one of {', '.join(_PLAIN)}, agent:<id> or {agent_scope(ANY_AGENT)}"
        f"{'; codes for machines are made by POST /api/v1/enrolments' if word == Scope.ENROL else ''}"
    )


ScopeWord = Annotated[str, AfterValidator(_scope)]


def _apart(scopes: list[str]) -> list[str]:
    strong = [word for word in (Scope.ADMIN, Scope.APPROVER) if word in scopes]
    if strong and any(word.startswith(AGENT_PREFIX) for word in scopes):
        raise ValueError(f"{' and '.join(strong)} must not be within an agent's reach: issue two tokens")
    return scopes


def _not_the_hub(name: str) -> str:
    if name == "hub":
        raise ValueError("what the hub does itself appears as 'hub'; choose another name")
    return name


Scopes = Annotated[list[ScopeWord], Field(min_length=1, max_length=64), AfterValidator(_apart)]
TokenRef = Annotated[TokenId, Field(description="the part between the underscores", examples=["5f3a9c01"])]


class TokenOut(Out):
    """A token without its secret. ``ends_at`` is when it expires or was revoked; null: never.

    ``used``: a machine has joined with this code; it serves no other.
    """

    id: str
    name: str
    scopes: list[str]
    person: bool
    live: bool
    used: bool
    created_by: str
    created_at: Moment
    ends_at: Moment | None
    revoked_by: str | None
    install_id: str | None

    @classmethod
    def of(cls, token: TokenRecord, now: int) -> TokenOut:
        """From its record."""
        return cls.model_validate(
            {name: getattr(token, name) for name in cls.model_fields if name not in ("live", "used", "scopes")}
            | {"live": token.is_live(now), "used": token.used_by is not None, "scopes": list(token.scopes)}
        )


class IssuedOut(TokenOut):
    """A new token; ``token`` is its text, and this is the only time it is told."""

    token: str


class TokenList(Out):
    """Oldest first."""

    tokens: list[TokenOut]


class NewTokenBody(Body):
    """Whom it is for, and what it is good for. ``person``: its reviews count as a person's, not as a program's."""

    name: Annotated[Name, AfterValidator(_not_the_hub)] = Field(description="appears as created_by, reviewer …")
    scopes: Scopes
    person: bool = True
    expires_s: Annotated[int, Field(ge=60, le=EXPIRES_S)] | None = Field(default=None, description="absent: until revoked")


class WhoAmI(Out):
    """The caller, as the hub sees it."""

    name: str
    scopes: list[str]
    person: bool
    token_id: str
    expires_at: Moment | None


@router.get("/tokens", dependencies=[ADMINS])
async def listing(hub: Hub) -> TokenList:
    """All tokens, also those that ended in the last 90 days."""
    now = hub.now()
    return TokenList(tokens=[TokenOut.of(token, now) for token in await tokens.every(hub.reader)])


@router.post("/tokens", status_code=201)
async def issue(body: NewTokenBody, caller: Admin, hub: Hub, response: Response) -> IssuedOut:
    """Issue a token."""
    record, text = await hub.keyring.issue(caller.name, body.name, body.scopes, person=body.person, expires_s=body.expires_s)
    response.headers["Cache-Control"] = "no-store"
    return IssuedOut(**TokenOut.of(record, hub.now()).model_dump(), token=text)


@router.delete("/tokens/{token}")
async def revoke(token: TokenRef, caller: Admin, hub: Hub) -> TokenOut:
    """End a token now; what is open under it is closed. The last administrator's token stays."""
    return TokenOut.of(await hub.keyring.revoke(caller.name, token), hub.now())


@router.get("/whoami")
async def whoami(caller: Anybody) -> WhoAmI:
    """Who the caller's token says they are."""
    plain = [scope.value for scope in caller.scopes if scope is not Scope.AGENT]
    return WhoAmI(
        name=caller.name,
        scopes=sorted([*plain, *(agent_scope(agent) for agent in caller.agents)]),
        person=caller.person,
        token_id=caller.token,
        expires_at=caller.ends_at,
    )


@router.post("/leave", status_code=204)
async def leave(caller: Sidecar, hub: Hub) -> Response:
    """A machine that joined gives its own token back. It has stopped everything: what its agents held goes to others at once."""
    if caller.install_id is None:
        raise Refused(
            409, "not_enrolled", "this token was not given to a machine", hint=f"agentcom token revoke {caller.token}"
        )
    await hub.keyring.revoke(caller.name, caller.token)
    for agent in [agent for agent in hub.conductor.scheduler.agents() if agent.install_id == caller.install_id]:
        with suppress(Refused):  # what is connected again meanwhile, with another token, is alive
            await hub.conductor.do(ReleaseAgent(actor=caller.name, agent=agent.id, cause="left"))
    return Response(status_code=204)
