"""``agentcom task watch``: follow one task until it is finished, across restarts of the hub."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import typer

from hub.cli import render
from hub.cli.exits import Exit
from hub.cli.render import state
from hub.cli.session import Json, call
from hub.cli.story import ask, event_line
from hub.cli.words import TaskRef

if TYPE_CHECKING:
    from hub.client import HubClient
    from hub.client.documents import Event, TaskDetail

TERMINAL = ("done", "dead", "cancelled")
PATIENCE_S = 60.0


def mount(app: typer.Typer) -> None:
    """Add the command."""
    app.command("watch")(watch)


def watch(ctx: typer.Context, task: TaskRef, json: Json = False) -> None:
    """Follow a task until it is finished.

    Says when it waits for you. Ends with 0 when it is done, otherwise with 6; --json prints one event a line.
    Example: agentcom task watch t-17
    """
    end = call(ctx, lambda hub: follow(hub, task, json=json))
    if end != "done":
        if not json:
            render.say(call(ctx, lambda hub: hub.explain(task))["explanation"])
        raise typer.Exit(Exit.NOT_DONE)


async def follow(hub: HubClient, task: str, *, json: bool) -> str:
    """Print events of the task until it is finished; the state it ended in.

    The row is read after the stream is open, so a task that ends in between is not waited for.
    """
    from hub.client import Reset

    found, opened = await hub.task(task), False
    async with aclosing(hub.events(task=found["id"], patience_s=PATIENCE_S)) as stream:
        async for item in stream:
            if isinstance(item, dict):
                if json:
                    render.document(item, line=True)
                else:
                    event_line(item)
                    await _call_for_person(hub, item)
                if item["to_state"] in TERMINAL:
                    return str(item["to_state"])
            elif not opened or isinstance(item, Reset):  # of a stream that goes on, every event is still to come
                found = await hub.task_at_last(found["id"], patience_s=PATIENCE_S)
                if not opened and not json:
                    _introduce(found)
                opened = True
                if found["state"] in TERMINAL and not any(_ends_it(event, item.seq) for event in found["history"]):
                    return found["state"]
    return found["state"]


def _ends_it(event: Event, after: int) -> bool:
    """Whether this event ends its task and is still to come on a stream that stands at ``after``."""
    return event["seq"] > after and event["to_state"] in TERMINAL


def _introduce(task: TaskDetail) -> None:
    render.say(render.Cell(task["id"], "bold"), "  ", state(task["state"]), f"  {task['title']}")
    _waiting_change(task)
    ask(task)


async def _call_for_person(hub: HubClient, event: Event) -> None:
    """Say what a person can do when the event is one that waits for a person."""
    if event["kind"] == "change.waiting":
        _say_change(f"c-{(event['data'] or {}).get('change')}")
    elif event["kind"] == "task.blocked" and event["task"] is not None:
        ask(await hub.task_at_last(event["task"], patience_s=PATIENCE_S))


def _waiting_change(task: TaskDetail) -> None:
    for change in task["changes"][:1]:
        if change["state"] == "waiting":
            _say_change(change["id"])


def _say_change(change: str) -> None:
    render.say(render.Cell("waits for you: ", "bold"), f"agentcom change approve {change}")
