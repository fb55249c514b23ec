"""Enrolment: an administrator makes a code, a machine exchanges it once for a token of its own.

The machine makes its secret itself and sends only the SHA-256 of it, so the answer holds no secret and can be asked for again when it
was lost on the way.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field

from hub.edge.http.access import Admin, Code, Hub
from hub.edge.http.fields import AgentName, Body, Digest, InstallId, Moment, Out, SomeLine
from hub.edge.http.reading import JsonRoute
from hub.ids import AgentId

router = APIRouter(tags=["tokens"], route_class=JsonRoute)


class EnrolmentBody(Body):
    """How long the code is good."""

    expires_s: Annotated[int, Field(ge=60, le=3600)] = 900


class EnrolmentOut(Out):
    """``code`` registers one machine; it is told only here."""

    id: str
    code: str
    expires_at: Moment


class EnrolBody(Body):
    """A machine and its agents. ``secret_sha256`` is the SHA-256 of the 43 characters behind the second underscore of its token."""

    install_id: InstallId
    secret_sha256: Digest
    agents: Annotated[list[AgentName], Field(min_length=1, max_length=64)]
    hostname: Annotated[SomeLine, Field(max_length=64)] = "machine"


class EnrolledOut(Out):
    """The machine's token is ``ac_<token_id>_<secret>``; it is good for ``agents``."""

    token_id: str
    name: str
    agents: list[AgentId]
    hub_id: str


@router.post("/enrolments", status_code=201)
async def create(body: EnrolmentBody, caller: Admin, hub: Hub, response: Response) -> EnrolmentOut:
    """A code that registers one machine."""
    record, text = await hub.keyring.enrolment(caller.name, expires_s=body.expires_s)
    response.headers["Cache-Control"] = "no-store"
    return EnrolmentOut(id=record.id, code=text, expires_at=record.ends_at)


@router.post("/enrol")
async def enrol(body: EnrolBody, code: Code, hub: Hub) -> EnrolledOut:
    """Register the caller's machine. Saying the same again while the code is good gives the same answer."""
    agents = list(dict.fromkeys(body.agents))
    token = await hub.keyring.enrol(
        code, machine=body.hostname, install_id=body.install_id, secret_sha256=body.secret_sha256, agents=agents
    )
    return EnrolledOut(token_id=token.id, name=token.name, agents=agents, hub_id=hub.hub_id)
