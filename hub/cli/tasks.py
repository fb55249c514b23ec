"""``agentcom task``: list, show, explain and steer tasks. Submitting is ``submitting``, following one ``watching``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli import render, submitting
from hub.cli.exits import EPILOG, Exit
from hub.cli.render import age, state
from hub.cli.session import Cursor, Json, Limit, call, fail
from hub.cli.story import story
from hub.cli.words import LaneWord, Project, Repo, TaskRef, TaskStateWord, TypeWord

if TYPE_CHECKING:
    from hub.client import HubClient
    from hub.client.documents import Task, TaskAnswer, TaskDetail, TaskPage

app = typer.Typer(help="Submit, read and steer tasks.", no_args_is_help=True, epilog=EPILOG)
submitting.mount(app)

Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; shown with the task.")]


@app.command("list")
def listing(
    ctx: typer.Context,
    state_: TaskStateWord = None,
    live: Annotated[bool, typer.Option("--live", help="Leave out what is finished.")] = False,
    lane: LaneWord = None,
    project: Project = None,
    repo: Repo = None,
    agent: Annotated[
        str | None, typer.Option("--agent", "-a", metavar="AGENT", help="Only what this agent was ever given.")
    ] = None,
    kind: TypeWord = None,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Only what this one submitted.")] = None,
    text: Annotated[str | None, typer.Option("--text", metavar="TEXT", help="A part of the title.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Tasks, newest first.

    Examples: agentcom task list --live; agentcom task list --state dead --json
    """

    async def look(hub: HubClient) -> TaskPage:
        page = await hub.tasks(
            state=state_,
            live=live or None,
            lane=lane,
            project=project,
            repo=repo,
            agent=agent,
            type=kind,
            created_by=by,
            text=text,
            cursor=cursor,
            limit=limit,
        )
        if not page["tasks"]:
            await _check_names(hub, project=project, repo=repo, agent=agent)
        return page

    page = call(ctx, look)
    if json:
        render.document(page)
        return
    render.table(
        ("task", "state", "lane", "title", "agent", "tries", "project", "cause", "updated"),
        [
            (
                task["id"],
                state(task["state"]),
                task["lane"],
                task["title"],
                task["agent"] or task["assign_to"],
                f"{task['tries']}/{task['max_tries']}",
                task["project"],
                _cause(task),
                age(task["updated_at"]),
            )
            for task in page["tasks"]
        ],
        empty="no tasks match",
        flex="title",
        drop=("project", "tries", "lane", "agent"),
    )
    render.more(page["next"])


@app.command()
def show(ctx: typer.Context, task: TaskRef, json: Json = False) -> None:
    """One task and all that happened to it.

    Example: agentcom task show t-17
    """

    async def look(hub: HubClient) -> tuple[TaskDetail, str | None]:
        found = await hub.task(task)
        unnamed = found["repo"] if not found["base"] and not json else None
        return found, (await hub.repo(unnamed))["base"] if unnamed is not None else found["base"]

    found, base = call(ctx, look)
    if json:
        render.document(found)
        return
    story(found, base)


@app.command()
def explain(ctx: typer.Context, task: TaskRef, json: Json = False) -> None:
    """Why a task is not running, or how it ended.

    Example: agentcom task explain t-17
    """
    found = call(ctx, lambda hub: hub.explain(task))
    if json:
        render.document(found)
        return
    render.say(f"{found['id']}: {found['explanation']}")


@app.command()
def assign(
    ctx: typer.Context,
    task: TaskRef,
    agent: Annotated[str | None, typer.Argument(metavar="AGENT", help="The agent to pin it to.")] = None,
    auto: Annotated[bool, typer.Option("--auto", help="The least busy agent that can do it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Stop a running attempt first.")] = False,
    json: Json = False,
) -> None:
    """Pin a task to an agent.

    An idle agent gets it at once, a busy one next.

    Examples: agentcom task assign t-17 ada; agentcom task assign t-17 --auto
    """
    if auto == (agent is not None):
        fail(Exit.USAGE, "name an agent, or say --auto", "agentcom agent list")
    _answer(call(ctx, lambda hub: hub.assign(task, agent, force=force)), json)


@app.command()
def hold(ctx: typer.Context, task: TaskRef, reason: Why = "", json: Json = False) -> None:
    """Keep a task from running.

    Example: agentcom task hold t-17 --reason "after the release"
    """
    _answer(call(ctx, lambda hub: hub.hold(task, reason)), json)


@app.command()
def release(ctx: typer.Context, task: TaskRef, json: Json = False) -> None:
    """Undo a hold.

    Example: agentcom task release t-17
    """
    _answer(call(ctx, lambda hub: hub.release(task)), json)


@app.command()
def complete(
    ctx: typer.Context,
    task: TaskRef,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why it counts as done.")],
    force: Annotated[bool, typer.Option("--force", help="Stop a working agent first.")] = False,
    json: Json = False,
) -> None:
    """Call a task done by hand.

    What depends on it is released.

    Example: agentcom task complete t-17 --reason "fixed on the server"
    """
    _answer(call(ctx, lambda hub: hub.complete(task, reason, force=force)), json)


@app.command()
def cancel(ctx: typer.Context, task: TaskRef, reason: Why = "", json: Json = False) -> None:
    """Cancel a task.

    A running one is cancelled when its agent has stopped.

    Example: agentcom task cancel t-17 --reason "not needed any more"
    """
    _answer(call(ctx, lambda hub: hub.cancel(task, reason)), json)


@app.command()
def requeue(ctx: typer.Context, task: TaskRef, json: Json = False) -> None:
    """Start a finished task again.

    Example: agentcom task requeue t-17
    """
    _answer(call(ctx, lambda hub: hub.requeue(task)), json)


@app.command()
def answer(
    ctx: typer.Context,
    task: TaskRef,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The answer.")],
    question: Annotated[
        str | None, typer.Option("--question", "-q", metavar="ID", help="Which question, if it matters.")
    ] = None,
    json: Json = False,
) -> None:
    """Answer the agent's open question.

    Example: agentcom task answer t-17 "use the second table"
    """
    _answer(call(ctx, lambda hub: hub.answer(task, text, qid=question)), json)


async def _check_names(hub: HubClient, *, project: str | None, repo: str | None, agent: str | None) -> None:
    """Nothing matches: a name that does not exist is why, and the hub refuses it with what to do."""
    if repo is not None:
        await hub.repo(repo)
    if project is not None:
        await hub.project(project)
    if agent is not None:
        await hub.agent(agent)


def _cause(task: Task) -> render.Cell:
    """The code of its last step and the words to it; that a person ended it is said by the state already."""
    by_hand = task["cause"] in ("cancel", "complete") and task["reason"]
    code = None if by_hand or task["state"] in ("in_review", "done") else task["cause"]
    return render.brief(": ".join(word for word in (code, task["reason"]) if word))


def _answer(done: TaskAnswer, json: bool) -> None:
    if json:
        render.document(done)
        return
    later = ": takes effect when its agent has stopped" if done["pending"] else ""
    render.say(f"{done['id']} is ", state(done["state"]), later)
