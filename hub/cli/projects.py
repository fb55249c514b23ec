"""``agentcom project``: group tasks, name their repositories, hold and release their work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import render
from hub.cli.exits import EPILOG, Exit
from hub.cli.render import moment
from hub.cli.session import Json, call, fail
from hub.cli.words import LaneWord, complete, named
from hub.ids import NAME

if TYPE_CHECKING:
    from hub.client.documents import Project

app = typer.Typer(help="Read and edit projects; release held tasks.", no_args_is_help=True, epilog=EPILOG)

New = Annotated[str, typer.Argument(metavar="PROJECT", help="Its id.")]
Id = Annotated[str, typer.Argument(metavar="PROJECT", help="Its id.", callback=named(NAME))]
Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="What people see.")]
Description = Annotated[str | None, typer.Option("--description", "-d", metavar="TEXT", help="What it is about.")]
Repos = Annotated[
    list[str] | None, typer.Option("--repo", "-r", metavar="REPO", help="A repository of the project (repeatable).")
]
Default = Annotated[
    str | None, typer.Option("--default-repo", metavar="REPO", help="Where its tasks work unless they say otherwise.")
]
Dispatching = Annotated[
    str | None,
    typer.Option(
        "--dispatch", metavar="MODE", help="auto, or manual: new tasks are held.", autocompletion=complete(("auto", "manual"))
    ),
]


@app.command("list")
def listing(ctx: typer.Context, json: Json = False) -> None:
    """All projects.

    Example: agentcom project list
    """
    found = call(ctx, lambda hub: hub.projects())
    if json:
        render.document(found)
        return
    render.table(
        ("project", "name", "dispatch", "paused", "default repo", "repos", "version"),
        [
            (
                project["id"],
                project["name"],
                project["dispatch"],
                "paused" if project["paused"] else "",
                project["default_repo"],
                ", ".join(project["repos"]),
                project["version"],
            )
            for project in found["projects"]
        ],
        empty="no projects",
        flex="name",
        drop=("version", "repos", "dispatch"),
    )


@app.command()
def show(ctx: typer.Context, project: Id, json: Json = False) -> None:
    """One project.

    Example: agentcom project show website
    """
    _show(call(ctx, lambda hub: hub.project(project)), json)


@app.command()
def create(
    ctx: typer.Context,
    project: New,
    name: Name = None,
    description: Description = None,
    repo: Repos = None,
    default_repo: Default = None,
    dispatch: Dispatching = None,
    json: Json = False,
) -> None:
    """Create a project.

    Example: agentcom project create web --repo site --default-repo site
    """
    _show(
        call(
            ctx,
            lambda hub: hub.create_project(
                project,
                name=name,
                description=description,
                repos=repo or None,
                default_repo=default_repo,
                dispatch=dispatch,
            ),
            admin=True,
        ),
        json,
    )


@app.command()
def update(
    ctx: typer.Context,
    project: Id,
    name: Name = None,
    description: Description = None,
    repo: Repos = None,
    default_repo: Default = None,
    no_default_repo: Annotated[bool, typer.Option("--no-default-repo", help="Take the default repository away.")] = False,
    dispatch_: Dispatching = None,
    version: Annotated[
        int | None, typer.Option("--version", metavar="NUMBER", min=1, help="The version you read; default: the current one.")
    ] = None,
    json: Json = False,
) -> None:
    """Change a project.

    With --version it is refused if somebody else changed it since you read it.

    Example: agentcom project update web --dispatch manual --version 3
    """
    changes: dict[str, Any] = {"name": name, "description": description, "repos": repo or None, "dispatch": dispatch_}
    changes = {field: value for field, value in changes.items() if value is not None}
    if no_default_repo or default_repo is not None:
        changes["default_repo"] = None if no_default_repo else default_repo
    if not changes:
        fail(Exit.USAGE, "nothing to change", "agentcom project update --help")
    read = version or call(ctx, lambda hub: hub.project(project))["version"]
    _show(call(ctx, lambda hub: hub.update_project(project, changes, version=read), admin=True), json)


@app.command()
def pause(ctx: typer.Context, project: Id, json: Json = False) -> None:
    """Give out none of its tasks.

    Example: agentcom project pause website
    """
    _say(call(ctx, lambda hub: hub.pause_project(project)), json)


@app.command()
def resume(ctx: typer.Context, project: Id, json: Json = False) -> None:
    """Give out its tasks again.

    Example: agentcom project resume website
    """
    _say(call(ctx, lambda hub: hub.resume_project(project)), json)


@app.command()
def dispatch(
    ctx: typer.Context,
    project: Annotated[str | None, typer.Argument(metavar="PROJECT", help="Absent: every project.")] = None,
    lane: LaneWord = None,
    json: Json = False,
) -> None:
    """Release held tasks, in lane order.

    Example: agentcom project dispatch web --lane urgent
    """
    done = call(ctx, lambda hub: hub.dispatch(project=project, lane=lane))
    if json:
        render.document(done)
        return
    render.say(f"{done['released']} released", f": {done['why']}" if done["why"] else "")


def _say(project: Project, json: bool) -> None:
    if json:
        render.document(project)
        return
    render.say(f"{project['id']} is {'paused' if project['paused'] else 'not paused'}")


def _show(project: Project, json: bool) -> None:
    if json:
        render.document(project)
        return
    render.say(render.Cell(project["id"], "bold"), f"  {project['name']}")
    render.facts(
        [
            ("description", project["description"]),
            ("dispatch", project["dispatch"]),
            ("paused", "yes" if project["paused"] else "no"),
            ("repositories", ", ".join(project["repos"])),
            ("default", project["default_repo"]),
            ("version", project["version"]),
            ("updated", moment(project["updated_at"])),
        ]
    )
