"""``agentcom repo``: the repositories agents work in, and how their changes are merged."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import render
from hub.cli.exits import EPILOG, Exit
from hub.cli.inputs import Inputs, read_argument
from hub.cli.render import moment
from hub.cli.session import Json, call, fail
from hub.cli.words import named
from hub.ids import NAME

if TYPE_CHECKING:
    from hub.client.documents import Repo

app = typer.Typer(help="Register and edit repositories.", no_args_is_help=True, epilog=EPILOG)

New = Annotated[str, typer.Argument(metavar="REPO", help="Its name.")]
Name = Annotated[str, typer.Argument(metavar="REPO", help="Its name.", callback=named(NAME))]
Base = Annotated[str | None, typer.Option("--base", "-b", metavar="BRANCH", help="Branch that changes are merged into.")]
Policy = Annotated[str | None, typer.Option("--policy", metavar="JSON", help="Merge policy as JSON, or @FILE.")]
Checks = Annotated[str | None, typer.Option("--checks", metavar="JSON", help="Registered checks as a JSON list, or @FILE.")]


@app.command("list")
def listing(ctx: typer.Context, json: Json = False) -> None:
    """All repositories.

    Example: agentcom repo list --json
    """
    found = call(ctx, lambda hub: hub.repos())
    if json:
        render.document(found)
        return
    render.table(
        ("repo", "url", "base", "checks", "paused", "version"),
        [
            (repo["name"], repo["url"], repo["base"], len(repo["checks"]), "paused" if repo["paused"] else "", repo["version"])
            for repo in found["repos"]
        ],
        flex="url",
        drop=("version", "checks"),
        empty="no repositories; register one with `agentcom repo add NAME URL`",
    )


@app.command()
def show(ctx: typer.Context, repo: Name, json: Json = False) -> None:
    """One repository with its policy and checks.

    Example: agentcom repo show website
    """
    _show(call(ctx, lambda hub: hub.repo(repo)), json)


@app.command()
def add(
    ctx: typer.Context,
    name: New,
    url: Annotated[str, typer.Argument(metavar="URL", help="A path, or an address the hub can reach with git.")],
    base: Base = None,
    policy: Policy = None,
    checks: Checks = None,
    json: Json = False,
) -> None:
    """Register a repository.

    Example: agentcom repo add site /srv/site.git --base main
    """
    # a relative path means the user's directory, which the hub does not share
    where = url if not url or ":" in url else str(Path(url).expanduser().absolute())
    merge_policy, registered = _documents(policy, checks)
    added = call(ctx, lambda hub: hub.add_repo(name, where, base=base, policy=merge_policy, checks=registered), admin=True)
    _show(added, json)


@app.command()
def update(
    ctx: typer.Context,
    repo: Name,
    url: Annotated[str | None, typer.Option("--repo-url", metavar="URL", help="Its new address.")] = None,
    base: Base = None,
    policy: Policy = None,
    checks: Checks = None,
    version: Annotated[
        int | None, typer.Option("--version", metavar="NUMBER", min=1, help="The version you read; default: the current one.")
    ] = None,
    json: Json = False,
) -> None:
    """Change a repository.

    With --version it is refused if somebody else changed it since you read it.

    Example: agentcom repo update site --policy '{"auto_merge_tier1": true}'
    """
    merge_policy, registered = _documents(policy, checks)
    given: dict[str, Any] = {"url": url, "base": base, "policy": merge_policy, "checks": registered}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        fail(Exit.USAGE, "nothing to change", "agentcom repo update --help")
    read = version or call(ctx, lambda hub: hub.repo(repo))["version"]
    _show(call(ctx, lambda hub: hub.update_repo(repo, changes, version=read), admin=True), json)


@app.command()
def pause(ctx: typer.Context, repo: Name, json: Json = False) -> None:
    """Give out no task that works in it.

    Example: agentcom repo pause website
    """
    _say(call(ctx, lambda hub: hub.pause_repo(repo)), json)


@app.command()
def resume(ctx: typer.Context, repo: Name, json: Json = False) -> None:
    """Give out its tasks again.

    Example: agentcom repo resume website
    """
    _say(call(ctx, lambda hub: hub.resume_repo(repo)), json)


def _documents(policy: str | None, checks: str | None) -> tuple[Any, Any]:
    inputs = Inputs()
    found = [
        inputs.take(lambda: read_argument("--policy", policy), None),
        inputs.take(lambda: read_argument("--checks", checks), None),
    ]
    inputs.check()
    return found[0], found[1]


def _say(repo: Repo, json: bool) -> None:
    if json:
        render.document(repo)
        return
    render.say(f"{repo['name']} is {'paused' if repo['paused'] else 'not paused'}")


def _show(repo: Repo, json: bool) -> None:
    if json:
        render.document(repo)
        return
    render.say(render.Cell(repo["name"], "bold"), f"  {repo['url']}")
    render.facts(
        [
            ("base", repo["base"]),
            ("forge", repo["forge"]),
            ("paused", "yes" if repo["paused"] else "no"),
            ("policy", jsonlib.dumps(repo["policy"]) if repo["policy"] else "defaults"),
            ("version", repo["version"]),
            ("updated", moment(repo["updated_at"])),
        ]
    )
    for check in repo["checks"]:
        render.say("  check: ", str(check.get("kind")), " ", " ".join(check.get("argv") or [str(check.get("target") or "")]))
