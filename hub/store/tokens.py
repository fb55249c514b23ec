"""Tokens and enrolments: who may come in, by digest. Knows no secret and nothing of how a request carries one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from hub.core.errors import Fault, Refused
from hub.core.rows import EventRow
from hub.ids import AGENT_PREFIX, DAY, AgentId, Scope, agent_scope
from hub.store.base import Operation, Reader, Record, Tx

MAX_TOKENS = 10_000
"""Live tokens; beyond, issuing is refused. The doors hold them in memory."""
KEPT_US = 90 * DAY
"""How long a token that has ended is still listed."""
KEPT = 10_000
"""And how many of them; the oldest go first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token as it is remembered; times are microseconds UTC.

    ``digest`` is hexadecimal. ``scopes`` are the words of :class:`hub.ids.Scope`, an agent's as ``agent:<id>``. ``ends_at`` is when
    it expires or was revoked (``revoked_by``); None is never. ``install_id`` binds it to a sidecar's installation. ``used_by`` is,
    for an enrolment code, the token it was exchanged for.
    """

    id: str
    digest: str
    name: str
    person: bool
    scopes: tuple[str, ...]
    install_id: str | None = None
    created_by: str
    created_at: int
    ends_at: int | None = None
    revoked_by: str | None = None
    used_by: str | None = None

    def is_live(self, now: int) -> bool:
        """Whether it opens anything."""
        return self.revoked_by is None and (self.ends_at is None or self.ends_at > now)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token to be issued."""

    id: str
    digest: str
    name: str
    scopes: tuple[str, ...]
    person: bool = False
    install_id: str | None = None
    ends_at: int | None = None


async def every(reader: Reader) -> list[TokenRecord]:
    """All tokens, oldest first; bounded by :data:`MAX_TOKENS` and :data:`KEPT`."""
    return [_record(row) for row in await reader.all("token_all")]


def issue(actor: str, new: NewToken, *, bounded: bool = True) -> Operation[TokenRecord]:
    """Remember a new token; refused 429 when there are too many. What lets the owner of the hub back in is not ``bounded``."""

    def operation(tx: Tx) -> TokenRecord:
        prune()(tx)
        counted = tx.one("token_count", now=tx.now)
        if bounded and counted is not None and counted["number"] >= MAX_TOKENS:
            raise Refused(429, "too_many_tokens", f"there are {MAX_TOKENS} tokens", hint="revoke what is not used any more")
        return _insert(tx, actor, new, "token.issued")

    return operation


def prune() -> Operation[int]:
    """Forget tokens that ended long ago, and those beyond what is kept; how many."""

    def operation(tx: Tx) -> int:
        return tx.run("token_prune", before=tx.now - KEPT_US, now=tx.now, kept=KEPT)

    return operation


def revoke(actor: str, token: str) -> Operation[TokenRecord]:
    """End a token now; repeating it is nothing. Refused 404, and 409 ``last_admin``."""

    def operation(tx: Tx) -> TokenRecord:
        _load(tx, token)
        live = [known for row in tx.all("token_all") if (known := _record(row)).is_live(tx.now)]
        if [known.id for known in live if Scope.ADMIN in known.scopes] == [token]:
            hint = "issue another administrator's token first"
            raise Refused(409, "last_admin", "nobody could administrate the hub any more", hint=hint)
        return _revoke(tx, actor, token)

    return operation


def revoke_all(actor: str) -> Operation[None]:
    """End every token, the last administrator's, too: the key they were made with is lost."""

    def operation(tx: Tx) -> None:
        for row in tx.all("token_all"):
            _revoke(tx, actor, row["id"])

    return operation


def enrol(code: str, machine: NewToken, agents: Sequence[AgentId]) -> Operation[TokenRecord]:
    """Exchange an enrolment code for a machine's token that is good for ``agents``.

    A machine is its installation together with its secret. Repeating it, also with another code, gives the token it has, now good
    for ``agents``, too: what is open under it stays open. Refused 401 when the code has ended, 409 ``enrolment_used`` by another
    registration, 409 ``name_taken`` naming every agent that is another's.
    """

    def operation(tx: Tx) -> TokenRecord:
        used = _load(tx, code)
        if not used.is_live(tx.now):
            raise Refused(401, "unauthenticated", "the enrolment code has ended", hint="make a new one: agentcom enrol create")
        known = used.used_by or _token_of(tx, machine)
        if known is None:
            _check_names(tx, machine, agents)
            token = _insert(tx, machine.name, machine, "machine.enrolled")
            _name_agents(tx, token.id, agents)
        else:
            token = _again(tx, known, machine, agents)
        tx.run("token_use", id=code, used_by=token.id)
        return token

    return operation


def _token_of(tx: Tx, machine: NewToken) -> str | None:
    """The live token a machine has already."""
    row = tx.one("token_of_machine", install_id=machine.install_id, digest=machine.digest, now=tx.now)
    return None if row is None else str(row["id"])


def _again(tx: Tx, token: str, machine: NewToken, agents: Sequence[AgentId]) -> TokenRecord:
    """The token of a machine that registers again: its answer was lost, or it has more agents now."""
    known = _load(tx, token)
    same = (known.install_id, known.digest) == (machine.install_id, machine.digest)
    if not same or not known.is_live(tx.now):
        raise Refused(
            409, "enrolment_used", "another registration has used this code", hint="make a new one: agentcom enrol create"
        )
    _check_names(tx, machine, agents)
    scopes = tuple(dict.fromkeys([*known.scopes, *map(agent_scope, agents)]))
    if scopes != known.scopes:
        tx.run("token_rescope", id=token, scopes=orjson.dumps(scopes).decode())
        _name_agents(tx, token, agents)
    return _load(tx, token)


def _check_names(tx: Tx, machine: NewToken, agents: Sequence[AgentId]) -> None:
    ours = {"install_id": machine.install_id, "digest": machine.digest, "now": tx.now}
    owners = [(agent, tx.one("token_agent_taken", agent=agent, **ours)) for agent in agents]
    faults = tuple(
        Fault(f"agents.{i}", "name_taken", f"{agent} belongs to {owner['name']}")
        for i, (agent, owner) in enumerate(owners)
        if owner is not None
    )
    if faults:
        raise Refused(
            409,
            "name_taken",
            "agents of these names belong to another machine",
            faults=faults,
            hint="choose another --name, or end that machine's token: agentcom token revoke",
        )


def _name_agents(tx: Tx, token: str, agents: Sequence[AgentId]) -> None:
    for agent in agents:
        tx.run("token_agent_insert", agent=agent, token=token)


def _insert(tx: Tx, actor: str, new: NewToken, kind: str) -> TokenRecord:
    tx.run(
        "token_insert",
        id=new.id,
        digest=new.digest,
        name=new.name,
        person=int(new.person),
        scopes=orjson.dumps(new.scopes).decode(),
        install_id=new.install_id,
        created_by=actor,
        now=tx.now,
        ends_at=new.ends_at,
    )
    made = _load(tx, new.id)
    _note(tx, kind, actor, made)
    return made


def _revoke(tx: Tx, actor: str, token: str) -> TokenRecord:
    if tx.run("token_revoke", id=token, by=actor, now=tx.now):
        _note(tx, "token.revoked", actor, _load(tx, token))
    return _load(tx, token)


def _load(tx: Tx, token: str) -> TokenRecord:
    row = tx.one("token_by_id", id=token)
    if row is None:
        raise Refused(404, "unknown_token", f"there is no token {token!r}", hint="agentcom token list")
    return _record(row)


def _note(tx: Tx, kind: str, actor: str, token: TokenRecord) -> None:
    data: dict[str, Any] = {"token": token.id, "name": token.name, "scopes": token.scopes}
    tx.emit(EventRow(tx.now, kind, actor, data=orjson.dumps(data).decode()))


def _record(row: Record) -> TokenRecord:
    return TokenRecord(**{**row, "person": bool(row["person"]), "scopes": tuple(orjson.loads(row["scopes"]))})


def agents_of(token: TokenRecord) -> tuple[AgentId, ...]:
    """The agents a token is good for."""
    return tuple(AgentId(scope.removeprefix(AGENT_PREFIX)) for scope in token.scopes if scope.startswith(AGENT_PREFIX))
