"""``agentcom task``: list, show, explain and steer tasks. Submitting is ``submitting``, following one ``watching``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli import render, submitting
from hub.cli.exits import EPILOG, Exit
from hub.cli.render import moment, state
from hub.cli.session import Cursor, Json, Limit, call, fail
from hub.cli.story import story

if TYPE_CHECKING:
    from hub.client.documents import TaskAnswer

app = typer.Typer(help="Submit, read and steer tasks.", no_args_is_help=True, epilog=EPILOG)
submitting.mount(app)

Ref = Annotated[str, typer.Argument(metavar="TASK", help="t-17 or 17.")]


@app.command("list")
def listing(
    ctx: typer.Context,
    state_: Annotated[str | None, typer.Option("--state", "-s", help="waiting, queued, working, done …")] = None,
    live: Annotated[bool, typer.Option("--live", help="Leave out what is finished.")] = False,
    lane: Annotated[str | None, typer.Option("--lane", "-l")] = None,
    project: Annotated[str | None, typer.Option("--project", "-p")] = None,
    repo: Annotated[str | None, typer.Option("--repo", "-r")] = None,
    agent: Annotated[str | None, typer.Option("--agent", "-a", help="Tasks this agent was ever given.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="bug, feature …; check shows the internal checks.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who submitted it.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="A part of the title.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Tasks, newest first.

    Examples: agentcom task list --live; agentcom task list --state dead --json
    """
    page = call(
        ctx,
        lambda hub: hub.tasks(
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
        ),
    )
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
                task["cause"],
                moment(task["updated_at"]),
            )
            for task in page["tasks"]
        ],
        empty="no tasks match",
    )
    render.more(page["next"])


@app.command()
def show(ctx: typer.Context, task: Ref, json: Json = False) -> None:
    """One task with attempts, questions, feedback, result and history.

    Example: agentcom task show t-17
    """
    found = call(ctx, lambda hub: hub.task(task))
    if json:
        render.document(found)
        return
    story(found)


@app.command()
def explain(ctx: typer.Context, task: Ref, json: Json = False) -> None:
    """Why the task is not running now, in one line.

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
    task: Ref,
    agent: Annotated[str | None, typer.Argument(help="The agent to pin it to.")] = None,
    auto: Annotated[bool, typer.Option("--auto", help="The least busy agent that can do it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Stop a running attempt first.")] = False,
    json: Json = False,
) -> None:
    """Pin the task to an agent: an idle one gets it at once, a busy one next.

    Examples: agentcom task assign t-17 ada; agentcom task assign t-17 --auto
    """
    if auto == (agent is not None):
        fail(Exit.USAGE, "name an agent, or say --auto", "agentcom agent list")
    _answer(call(ctx, lambda hub: hub.assign(task, agent, force=force)), json)


@app.command()
def hold(
    ctx: typer.Context, task: Ref, reason: Annotated[str, typer.Option("--reason", help="Why.")] = "", json: Json = False
) -> None:
    """Keep a scheduled or queued task from running."""
    _answer(call(ctx, lambda hub: hub.hold(task, reason)), json)


@app.command()
def release(ctx: typer.Context, task: Ref, json: Json = False) -> None:
    """Undo a hold."""
    _answer(call(ctx, lambda hub: hub.release(task)), json)


@app.command()
def complete(
    ctx: typer.Context,
    task: Ref,
    reason: Annotated[str, typer.Option("--reason", help="Why it counts as done.")],
    force: Annotated[bool, typer.Option("--force", help="Stop a working agent first.")] = False,
    json: Json = False,
) -> None:
    """Call a task done by hand: what depends on it is released.

    Example: agentcom task complete t-17 --reason "fixed on the server"
    """
    _answer(call(ctx, lambda hub: hub.complete(task, reason, force=force)), json)


@app.command()
def cancel(
    ctx: typer.Context, task: Ref, reason: Annotated[str, typer.Option("--reason", help="Why.")] = "", json: Json = False
) -> None:
    """Cancel a task; a running one when its agent has stopped."""
    _answer(call(ctx, lambda hub: hub.cancel(task, reason)), json)


@app.command()
def requeue(ctx: typer.Context, task: Ref, json: Json = False) -> None:
    """Start a finished task again, with fresh budgets."""
    _answer(call(ctx, lambda hub: hub.requeue(task)), json)


@app.command()
def answer(
    ctx: typer.Context,
    task: Ref,
    text: Annotated[str, typer.Argument(help="The answer.")],
    question: Annotated[str | None, typer.Option("--question", "-q", help="Which question, if it matters.")] = None,
    json: Json = False,
) -> None:
    """Answer the agent's open question.

    Example: agentcom task answer t-17 "use the second table"
    """
    _answer(call(ctx, lambda hub: hub.answer(task, text, qid=question)), json)


def _answer(done: TaskAnswer, json: bool) -> None:
    if json:
        render.document(done)
        return
    later = ": takes effect when its agent has stopped" if done["pending"] else ""
    render.say(f"{done['id']} is ", state(done["state"]), later)
