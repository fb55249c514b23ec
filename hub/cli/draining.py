"""``agentcom agent drain``: give a machine no more work, and say when it has none left."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli import render
from hub.cli.exits import Exit
from hub.cli.render import state
from hub.cli.session import Json, call
from hub.cli.words import named
from hub.ids import AGENT_ID

if TYPE_CHECKING:
    from hub.client import HubClient
    from hub.client.documents import AgentDetail

PATIENCE_S = 60.0
"""How long the hub may be away meanwhile: draining belongs to an upgrade."""

_check = named(AGENT_ID)


def _all_named(names: list[str]) -> list[str]:
    for name in names:
        _check(name)
    return names


Names = Annotated[list[str], typer.Argument(metavar="AGENT...", help="Their ids.", callback=_all_named)]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Go on until they hold nothing.")]
Timeout = Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="Wait no longer than this; then 6.")]


def mount(app: typer.Typer) -> None:
    """Add the command."""
    app.command("drain")(drain)


def drain(ctx: typer.Context, agents: Names, wait: Wait = True, timeout: Timeout = None, json: Json = False) -> None:
    """Give agents nothing new, and wait until they are empty.

    What they do goes on; a question that waits for an answer keeps its agent busy. They stay paused until
    `agentcom agent resume`.

    Example: agentcom agent drain m1-1 m1-2 --timeout 600
    """
    left = call(ctx, lambda hub: _drain(hub, agents, wait=wait, timeout_s=timeout, json=json))
    if left:
        raise typer.Exit(Exit.NOT_DONE)


async def _drain(hub: HubClient, agents: list[str], *, wait: bool, timeout_s: float | None, json: bool) -> list[str]:
    """Pause all of them first; those that still hold something when the time is over."""
    found = [await hub.pause_agent(agent) for agent in dict.fromkeys(agents)]
    left = {agent["id"]: agent for agent in found}
    try:
        async with asyncio.timeout(timeout_s if wait else 0):
            async with asyncio.TaskGroup() as group:
                for agent in found:
                    group.create_task(_until_empty(hub, agent, left, json=json), name=f"drain-{agent['id']}")
    except TimeoutError:
        for agent in left.values():
            _say(agent, json=json)
    return list(left) if wait else []


async def _until_empty(hub: HubClient, agent: AgentDetail, left: dict[str, AgentDetail], *, json: bool) -> None:
    """Follow what happens to the agent; it is looked at when the stream is open, so nothing is missed."""
    async with aclosing(hub.events(agent=agent["id"], patience_s=PATIENCE_S)) as stream:
        async for _ in stream:
            left[agent["id"]] = agent = await hub.agent(agent["id"])
            if agent["task"] is None:
                del left[agent["id"]]
                _say(agent, json=json)
                return


def _say(agent: AgentDetail, *, json: bool) -> None:
    if json:
        render.document(agent, line=True)
    elif agent["task"] is None:
        render.say(agent["id"], " is empty, and paused")
    else:
        render.say(agent["id"], " is ", state(agent["state"]), f", holding {agent['task']}")
