"""Projects: list, show, create, update, pause."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from hub.core.errors import Refused
from hub.edge.http.access import READS, Admin, Edits, Hub, Operator
from hub.edge.http.fields import Body, Moment, Name, Note, Out, SomeLine
from hub.edge.http.reading import JsonRoute
from hub.edge.http.registry import IfMatch, version_read
from hub.store import projects
from hub.store.projects import ProjectEdit, ProjectRecord

router = APIRouter(prefix="/projects", tags=["projects"], route_class=JsonRoute)

Dispatching = Literal["auto", "manual"]
Repos = Annotated[list[Name], Field(max_length=64)]


class ProjectOut(Out):
    """A project. With ``dispatch`` manual its new tasks are held until they are dispatched."""

    id: str
    name: str
    description: str
    repos: list[str]
    default_repo: str | None
    dispatch: Dispatching
    paused: bool
    version: int
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, project: ProjectRecord) -> ProjectOut:
        """From its record."""
        return cls.model_validate(project)


class ProjectList(Out):
    """All projects by id."""

    projects: list[ProjectOut]


class NewProjectBody(Body):
    """A project to create."""

    id: Name
    name: SomeLine | None = Field(default=None, description="absent: the id")
    description: Note = ""
    repos: Repos = Field(default=[])
    default_repo: Name | None = None
    dispatch: Dispatching = "auto"


class ProjectEditBody(Body):
    """The fields to change; absent ones stay. ``version`` is the one that was read, unless If-Match says it."""

    name: SomeLine | None = None
    description: Note | None = None
    repos: Repos | None = None
    default_repo: Name | None = Field(default=None, description="null takes the default away")
    dispatch: Dispatching | None = None
    version: int | None = Field(default=None, ge=1)


@router.get("", dependencies=[READS])
async def listing(hub: Hub) -> ProjectList:
    """All projects."""
    return ProjectList(projects=[ProjectOut.of(project) for project in await projects.every(hub.reader)])


@router.get("/{project}", dependencies=[READS])
async def show(project: str, hub: Hub) -> ProjectOut:
    """One project."""
    found = await projects.find(hub.reader, project)
    if found is None:
        raise Refused(404, "unknown_project", f"there is no project {project[:64]!r}", hint="agentcom project list")
    return ProjectOut.of(found)


@router.post("", status_code=201)
async def create(body: NewProjectBody, caller: Admin, edits: Edits) -> ProjectOut:
    """Create a project."""
    edit = ProjectEdit(
        name=body.name,
        description=body.description,
        repos=tuple(dict.fromkeys(body.repos)),
        default_repo=body.default_repo,
        dispatch=body.dispatch,
    )
    return await edits.edit(caller.name, projects.create(caller.name, body.id, edit), ProjectOut.of)


@router.patch("/{project}")
async def update(project: str, body: ProjectEditBody, caller: Admin, edits: Edits, if_match: IfMatch = None) -> ProjectOut:
    """Change a project. 412 with the current record when somebody else changed it since it was read."""
    edit = ProjectEdit(
        name=body.name,
        description=body.description,
        repos=None if body.repos is None else tuple(dict.fromkeys(body.repos)),
        default_repo=body.default_repo,
        no_default_repo=body.default_repo is None and "default_repo" in body.model_fields_set,
        dispatch=body.dispatch,
    )
    version = version_read(if_match, body.version)
    return await edits.edit(caller.name, projects.update(caller.name, project, edit, version=version), ProjectOut.of)


@router.post("/{project}/pause")
async def pause(project: str, caller: Operator, edits: Edits) -> ProjectOut:
    """Give out none of its tasks."""
    return await edits.edit(caller.name, projects.pause(caller.name, project, paused=True), ProjectOut.of)


@router.post("/{project}/resume")
async def resume(project: str, caller: Operator, edits: Edits) -> ProjectOut:
    """Give out its tasks again."""
    return await edits.edit(caller.name, projects.pause(caller.name, project, paused=False), ProjectOut.of)
