"""Projects: what groups tasks, names their repositories and says whether work starts by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson

from hub.core.errors import Fault, Refused
from hub.core.rows import EventRow
from hub.store.base import Operation, Reader, Record, Tx
from hub.store.versions import StaleVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectRecord:
    """A project. ``dispatch`` is auto or manual (new tasks are held); times are microseconds UTC."""

    id: str
    name: str
    description: str
    repos: tuple[str, ...]
    default_repo: str | None
    dispatch: str
    paused: bool
    version: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectEdit:
    """The fields of an update; None leaves one as it is. ``no_default_repo`` takes the default away."""

    name: str | None = None
    description: str | None = None
    repos: tuple[str, ...] | None = None
    default_repo: str | None = None
    no_default_repo: bool = False
    dispatch: str | None = None

    def apply(self, old: ProjectRecord) -> ProjectRecord:
        """The project after the edit, not yet checked."""
        default = None if self.no_default_repo else old.default_repo if self.default_repo is None else self.default_repo
        return replace(
            old,
            name=old.name if self.name is None else self.name,
            description=old.description if self.description is None else self.description,
            repos=old.repos if self.repos is None else self.repos,
            default_repo=default,
            dispatch=old.dispatch if self.dispatch is None else self.dispatch,
        )


async def every(reader: Reader) -> list[ProjectRecord]:
    """All projects by id; people keep their number small."""
    links: dict[str, list[str]] = {}
    for link in await reader.all("project_repository_all"):
        links.setdefault(link["project"], []).append(link["repo"])
    return [_record(row, links.get(row["id"], [])) for row in await reader.all("project_all")]


async def find(reader: Reader, project: str) -> ProjectRecord | None:
    """One project, or None."""
    row = await reader.one("project_by_id", id=project)
    if row is None:
        return None
    links = await reader.all("project_repository_of", project=project)
    return _record(row, [link["repo"] for link in links])


def create(actor: str, project: str, edit: ProjectEdit) -> Operation[ProjectRecord]:
    """A new project; refused 409 if the id is taken, 422 if it names an unknown repository."""

    def operation(tx: Tx) -> ProjectRecord:
        if tx.one("project_by_id", id=project) is not None:
            raise Refused(409, "project_exists", f"project {project!r} exists already", hint=f"agentcom project show {project}")
        blank = ProjectRecord(
            id=project,
            name=project,
            description="",
            repos=(),
            default_repo=None,
            dispatch="auto",
            paused=False,
            version=1,
            created_at=tx.now,
            updated_at=tx.now,
        )
        new = edit.apply(blank)
        _check(tx, new)
        tx.run(
            "project_insert",
            id=new.id,
            name=new.name,
            description=new.description,
            default_repo=new.default_repo,
            dispatch=new.dispatch,
            now=tx.now,
        )
        _link(tx, new)
        _note(tx, actor, "project.created", new)
        return new

    return operation


def update(actor: str, project: str, edit: ProjectEdit, *, version: int) -> Operation[ProjectRecord]:
    """Edit the version that was read; refused 404, 412 :class:`StaleVersion`, 422."""

    def operation(tx: Tx) -> ProjectRecord:
        old = _load(tx, project)
        if old.version != version:
            raise StaleVersion(f"project {project!r}", old, old.version, version)
        new = edit.apply(old)
        _check(tx, new)
        return _save(tx, actor, "project.updated", old, new)

    return operation


def pause(actor: str, project: str, *, paused: bool) -> Operation[ProjectRecord]:
    """Stop or resume giving out its tasks. Needs no version: it overwrites nobody's words and repeating it is harmless."""

    def operation(tx: Tx) -> ProjectRecord:
        old = _load(tx, project)
        if old.paused == paused:
            return old
        return _save(tx, actor, "project.paused" if paused else "project.resumed", old, replace(old, paused=paused))

    return operation


def _load(tx: Tx, project: str) -> ProjectRecord:
    row = tx.one("project_by_id", id=project)
    if row is None:
        raise Refused(404, "unknown_project", f"there is no project {project!r}", hint="agentcom project list")
    return _record(row, [link["repo"] for link in tx.all("project_repository_of", project=project)])


def _save(tx: Tx, actor: str, kind: str, old: ProjectRecord, new: ProjectRecord) -> ProjectRecord:
    tx.run(
        "project_update",
        id=new.id,
        version=old.version,
        name=new.name,
        description=new.description,
        default_repo=new.default_repo,
        dispatch=new.dispatch,
        paused=int(new.paused),
        now=tx.now,
    )
    if new.repos != old.repos:
        tx.run("project_repository_clear", project=new.id)
        _link(tx, new)
    saved = replace(new, repos=tuple(sorted(new.repos)), version=old.version + 1, updated_at=tx.now)
    _note(tx, actor, kind, saved)
    return saved


def _check(tx: Tx, project: ProjectRecord) -> None:
    """Every constraint of the schema, said in words before SQL could say it in codes."""
    faults = [
        Fault(f"repos.{i}", "unknown_repository", f"repository {repo!r} is not registered")
        for i, repo in enumerate(project.repos)
        if tx.one("repository_by_name", name=repo) is None
    ]
    if project.default_repo is not None and project.default_repo not in project.repos:
        listed = ", ".join(project.repos) or "none"
        faults.append(
            Fault("default_repo", "not_listed", f"{project.default_repo!r} is not among the project's repos ({listed})")
        )
    if faults:
        raise Refused(422, "invalid", "the project is not valid", faults=tuple(faults), hint="agentcom repo list")


def _link(tx: Tx, project: ProjectRecord) -> None:
    for repo in project.repos:
        tx.run("project_repository_insert", project=project.id, repo=repo)


def _note(tx: Tx, actor: str, kind: str, project: ProjectRecord) -> None:
    data: dict[str, Any] = {"project": project.id, "version": project.version}
    tx.emit(EventRow(tx.now, kind, actor, data=orjson.dumps(data).decode()))


def _record(row: Record, repos: list[str]) -> ProjectRecord:
    return ProjectRecord(**{**row, "paused": bool(row["paused"])}, repos=tuple(repos))
