"""Repositories: list, show, register, update, pause."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

import orjson
from fastapi import APIRouter
from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from hub.core.errors import Fault, HubError, Refused
from hub.core.risk import parse_policy
from hub.edge.http.access import READS, Admin, Edits, Hub, Operator
from hub.edge.http.doors import Doors
from hub.edge.http.fields import Body, Branch, Moment, Name, Out, RemoteUrl
from hub.edge.http.reading import JsonRoute
from hub.edge.http.registry import IfMatch, version_read
from hub.edge.http.task_bodies import Verification
from hub.store import repositories
from hub.store.repositories import RepositoryEdit, RepositoryRecord

router = APIRouter(prefix="/repos", tags=["repositories"], route_class=JsonRoute)

POLICY_BYTES = 65_536
_ABOUT_BASE = frozenset({"base_missing", "base_checked_out", "invalid_branch"})
_SILENT = frozenset({"remote_unavailable", "auth_failed"})
"""Codes of a forge that got no answer, or none for it."""


def _policy(document: dict[str, Any]) -> dict[str, Any]:
    """The document unchanged, once the rules accept it; its faults stand among those of the body."""
    try:
        text = orjson.dumps(document)
    except TypeError as unfit:
        raise ValueError(f"the policy must be plain JSON: {unfit}") from None
    if len(text) > POLICY_BYTES:
        raise ValueError(f"the policy has {len(text)} bytes; the limit is {POLICY_BYTES}")
    try:
        parse_policy(text.decode())
    except Refused as refused:
        raise ValidationError.from_exception_data("policy", [_line(fault) for fault in refused.faults]) from None
    return document


def _line(fault: Fault) -> InitErrorDetails:
    """A fault of the rules as pydantic says its own; the words may hold braces, so they travel as a value."""
    where = tuple(fault.loc.split(".")[1:])
    return InitErrorDetails(type=PydanticCustomError(fault.type, "{words}", {"words": fault.msg}), loc=where, input=None)


Policy = Annotated[dict[str, Any], AfterValidator(_policy)]


class RepoOut(Out):
    """A repository, its merge policy and the checks that count for its changes."""

    name: str
    url: str
    forge: str
    base: str
    policy: dict[str, Any]
    checks: list[dict[str, Any]]
    paused: bool
    version: int
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, repo: RepositoryRecord) -> RepoOut:
        """From its record."""
        return cls.model_validate(repo)


class RepoList(Out):
    """All repositories by name."""

    repos: list[RepoOut]


Checks = Annotated[list[Verification], Field(max_length=64)]


class NewRepoBody(Body):
    """A repository to register: a path or an address the hub can reach with git."""

    name: Name
    url: RemoteUrl
    base: Branch = Field(default="main", description="the branch changes are merged into")
    policy: Policy = Field(default={}, description="merge policy; unknown fields are refused")
    checks: Checks = Field(default=[])


class RepoEditBody(Body):
    """The fields to change; absent ones stay. ``version`` is the one that was read, unless If-Match says it."""

    url: RemoteUrl | None = None
    base: Branch | None = None
    policy: Policy | None = None
    checks: Checks | None = None
    version: int | None = Field(default=None, ge=1)


@router.get("", dependencies=[READS])
async def listing(hub: Hub) -> RepoList:
    """All repositories."""
    return RepoList(repos=[RepoOut.of(repo) for repo in await repositories.every(hub.reader)])


@router.get("/{repo}", dependencies=[READS])
async def show(repo: str, hub: Hub) -> RepoOut:
    """One repository."""
    return RepoOut.of(await _find(hub, repo))


@router.post("", status_code=201)
async def register(body: NewRepoBody, caller: Admin, hub: Hub, edits: Edits) -> RepoOut:
    """Register a repository. 422 when the hub could not merge into it, with the cure."""
    await _probe(hub, body.name, body.url, body.base)
    edit = RepositoryEdit(url=body.url, base=body.base, policy=body.policy, checks=_documents(body.checks))
    return await edits.edit(caller.name, repositories.register(caller.name, body.name, edit), RepoOut.of)


@router.patch("/{repo}")
async def update(repo: str, body: RepoEditBody, caller: Admin, hub: Hub, edits: Edits, if_match: IfMatch = None) -> RepoOut:
    """Change a repository. 412 with the current record when somebody else changed it since it was read."""
    version = version_read(if_match, body.version)
    old = await _find(hub, repo)
    if body.url is not None or body.base is not None:
        await _probe(hub, repo, body.url or old.url, body.base or old.base)
    edit = RepositoryEdit(
        url=body.url,
        base=body.base,
        policy=body.policy,
        checks=None if body.checks is None else _documents(body.checks),
    )
    return await edits.edit(caller.name, repositories.update(caller.name, repo, edit, version=version), RepoOut.of)


@router.post("/{repo}/pause")
async def pause(repo: str, caller: Operator, edits: Edits) -> RepoOut:
    """Give out no task that works in it."""
    return await edits.edit(caller.name, repositories.pause(caller.name, repo, paused=True), RepoOut.of)


@router.post("/{repo}/resume")
async def resume(repo: str, caller: Operator, edits: Edits) -> RepoOut:
    """Give out its tasks again."""
    return await edits.edit(caller.name, repositories.pause(caller.name, repo, paused=False), RepoOut.of)


async def _find(hub: Doors, name: str) -> RepositoryRecord:
    found = await repositories.find(hub.reader, name)
    if found is None:
        raise Refused(404, "unknown_repository", f"there is no repository {name[:64]!r}", hint="agentcom repo list")
    return found


async def _probe(hub: Doors, name: str, url: str, base: str) -> None:
    """Refused 422, naming the field to correct, if changes could not be merged there; a remote that is silent counts as a mistake."""
    try:
        await hub.probe(name, url, base)
    except Refused:
        raise
    except HubError as unfit:
        silent = unfit.code in _SILENT
        if unfit.status != HTTPStatus.UNPROCESSABLE_ENTITY and not silent:
            raise
        fault = Fault("base" if unfit.code in _ABOUT_BASE else "url", unfit.code, str(unfit))
        hint = "check the address, and that the user the hub runs as can read it with git" if silent else ""
        raise Refused(422, unfit.code, "changes could not be merged there", faults=(fault,), hint=hint) from None


def _documents(checks: list[Verification]) -> list[dict[str, Any]]:
    return [check.model_dump(mode="json", exclude_defaults=True) for check in checks]
