"""Repositories: registered by an admin, named by tasks, with the policy their changes are merged under."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson
from pydantic import Json

from hub.core.errors import Refused
from hub.core.rows import EventRow
from hub.store.base import Operation, Reader, Tx
from hub.store.decode import decoder
from hub.store.versions import StaleVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryRecord:
    """A repository. ``policy`` and ``checks`` are the documents the gatekeeper reads; times are microseconds UTC."""

    name: str
    url: str
    forge: str
    base: str
    policy: Json[dict[str, Any]]
    checks: Json[list[dict[str, Any]]]
    paused: bool
    version: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryEdit:
    """The fields of an update; None leaves one as it is. ``policy`` and ``checks`` are valid documents already."""

    url: str | None = None
    base: str | None = None
    policy: dict[str, Any] | None = None
    checks: list[dict[str, Any]] | None = None

    def apply(self, old: RepositoryRecord) -> RepositoryRecord:
        """The repository after the edit."""
        return replace(
            old,
            url=old.url if self.url is None else self.url,
            base=old.base if self.base is None else self.base,
            policy=old.policy if self.policy is None else self.policy,
            checks=old.checks if self.checks is None else self.checks,
        )


_read = decoder(RepositoryRecord)


async def every(reader: Reader) -> list[RepositoryRecord]:
    """All repositories by name; an admin keeps their number small."""
    return [_read(row) for row in await reader.all("repository_all")]


async def find(reader: Reader, name: str) -> RepositoryRecord | None:
    """One repository, or None."""
    row = await reader.one("repository_by_name", name=name)
    return _read(row) if row is not None else None


def register(actor: str, name: str, edit: RepositoryEdit, *, forge: str = "local") -> Operation[RepositoryRecord]:
    """A new repository (``url`` and ``base`` are required); refused 409 if the name is taken."""

    def operation(tx: Tx) -> RepositoryRecord:
        if tx.one("repository_by_name", name=name) is not None:
            raise Refused(
                409, "repository_exists", f"repository {name!r} is registered already", hint=f"agentcom repo show {name}"
            )
        blank = RepositoryRecord(
            name=name,
            url="",
            forge=forge,
            base="",
            policy={},
            checks=[],
            paused=False,
            version=1,
            created_at=tx.now,
            updated_at=tx.now,
        )
        new = edit.apply(blank)
        tx.run("repository_insert", name=name, url=new.url, forge=forge, base=new.base, **_documents(new), now=tx.now)
        _note(tx, actor, "repository.registered", new)
        return new

    return operation


def update(actor: str, name: str, edit: RepositoryEdit, *, version: int) -> Operation[RepositoryRecord]:
    """Edit the version that was read; refused 404 and 412 :class:`StaleVersion`."""

    def operation(tx: Tx) -> RepositoryRecord:
        old = _load(tx, name)
        if old.version != version:
            raise StaleVersion(f"repository {name!r}", old, old.version, version)
        return _save(tx, actor, "repository.updated", old, edit.apply(old))

    return operation


def pause(actor: str, name: str, *, paused: bool) -> Operation[RepositoryRecord]:
    """Stop or resume work in it. Needs no version: it overwrites nobody's words and repeating it is harmless."""

    def operation(tx: Tx) -> RepositoryRecord:
        old = _load(tx, name)
        if old.paused == paused:
            return old
        kind = "repository.paused" if paused else "repository.resumed"
        return _save(tx, actor, kind, old, replace(old, paused=paused))

    return operation


def _load(tx: Tx, name: str) -> RepositoryRecord:
    row = tx.one("repository_by_name", name=name)
    if row is None:
        raise Refused(404, "unknown_repository", f"there is no repository {name!r}", hint="agentcom repo list")
    return _read(row)


def _save(tx: Tx, actor: str, kind: str, old: RepositoryRecord, new: RepositoryRecord) -> RepositoryRecord:
    tx.run(
        "repository_update",
        name=new.name,
        version=old.version,
        url=new.url,
        base=new.base,
        **_documents(new),
        paused=int(new.paused),
        now=tx.now,
    )
    saved = replace(new, version=old.version + 1, updated_at=tx.now)
    _note(tx, actor, kind, saved)
    return saved


def _documents(repository: RepositoryRecord) -> dict[str, str]:
    return {"policy": orjson.dumps(repository.policy).decode(), "checks": orjson.dumps(repository.checks).decode()}


def _note(tx: Tx, actor: str, kind: str, repository: RepositoryRecord) -> None:
    data = {"repo": repository.name, "version": repository.version}
    tx.emit(EventRow(tx.now, kind, actor, data=orjson.dumps(data).decode()))
