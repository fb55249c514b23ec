"""``agentcom task watch``: follow one task until it is finished, across restarts of the hub."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli import render
from hub.cli.exits import Exit
from hub.cli.render import state
from hub.cli.session import Json, call
from hub.cli.story import event_line

if TYPE_CHECKING:
    from hub.client import HubClient

TERMINAL = ("done", "dead", "cancelled")
PATIENCE_S = 60.0


def mount(app: typer.Typer) -> None:
    """Add the command."""
    app.command("watch")(watch)


def watch(
    ctx: typer.Context, task: Annotated[str, typer.Argument(metavar="TASK", help="t-17 or 17.")], json: Json = False
) -> None:
    """Follow a task until it is finished. Ends with 0 when it is done, otherwise with 6; --json prints one event a line.

    Example: agentcom task watch t-17
    """
    end = call(ctx, lambda hub: follow(hub, task, json=json))
    if end != "done":
        raise typer.Exit(Exit.NOT_DONE)


async def follow(hub: HubClient, task: str, *, json: bool) -> str:
    """Print events of the task until it is finished; the state it ended in.

    The row is read after the stream is open, so a task that ends in between is not waited for.
    """
    found = await hub.task(task)
    shown = 0
    async with aclosing(hub.events(task=found["id"], patience_s=PATIENCE_S)) as stream:
        async for item in stream:
            if isinstance(item, dict):
                if json:
                    render.document(item, line=True)
                else:
                    event_line(item)
                shown = item["seq"]
                if item["to_state"] in TERMINAL:
                    return str(item["to_state"])
                continue
            found = await hub.task(task)
            if shown == 0 and not json:
                render.say(render.Cell(found["id"], "bold"), "  ", state(found["state"]), f"  {found['title']}")
                shown = item.seq
            if found["state"] in TERMINAL:
                return found["state"]
    return found["state"]
