"""``agentcom agent``: who is there, pausing and draining them, and parting with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli import draining, render
from hub.cli.exits import EPILOG
from hub.cli.render import age, moment, state
from hub.cli.session import Cursor, Json, Limit, call
from hub.cli.words import AgentStateWord, named
from hub.ids import AGENT_ID

if TYPE_CHECKING:
    from hub.client.documents import AgentDetail

app = typer.Typer(help="Read, pause, drain and part with agents.", no_args_is_help=True, epilog=EPILOG)

draining.mount(app)

Name = Annotated[str, typer.Argument(metavar="AGENT", help="Its id.", callback=named(AGENT_ID))]


@app.command("list")
def listing(
    ctx: typer.Context,
    state_: AgentStateWord = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """Agents by id.

    Example: agentcom agent list --state idle
    """
    page = call(ctx, lambda hub: hub.agents(state=state_, cursor=cursor, limit=limit))
    if json:
        render.document(page)
        return
    render.table(
        ("agent", "state", "flags", "task", "capabilities", "note", "last seen"),
        [
            (
                agent["id"],
                state(agent["state"]),
                ", ".join(agent["flags"]),
                agent["task"],
                ", ".join(agent["capabilities"]),
                agent["note"],
                age(agent["last_seen_at"]),
            )
            for agent in page["agents"]
        ],
        empty="no agents yet; `agentcom enrol create` says what to run where they live",
        flex="note",
        drop=("flags", "capabilities", "last seen"),
    )
    render.more(page["next"])


@app.command()
def show(ctx: typer.Context, agent: Name, json: Json = False) -> None:
    """One agent with its latest tasks and transitions.

    Example: agentcom agent show m1-1
    """
    _show(call(ctx, lambda hub: hub.agent(agent)), json)


@app.command()
def pause(ctx: typer.Context, agent: Name, json: Json = False) -> None:
    """No new work for an agent; what it does goes on.

    Example: agentcom agent pause m1-1
    """
    _say(call(ctx, lambda hub: hub.pause_agent(agent)), json)


@app.command()
def resume(ctx: typer.Context, agent: Name, json: Json = False) -> None:
    """End a pause and a quarantine.

    Example: agentcom agent resume m1-1
    """
    _say(call(ctx, lambda hub: hub.resume_agent(agent)), json)


@app.command()
def release(ctx: typer.Context, agent: Name, json: Json = False) -> None:
    """Its machine is gone for good: give its task to others now.

    Without this, others get it when its lease ends. The name is free for another installation. Refused while it is connected.

    Example: agentcom agent release m1-1
    """
    _say(call(ctx, lambda hub: hub.release_agent(agent)), json)


@app.command()
def remove(ctx: typer.Context, agent: Name, json: Json = False) -> None:
    """Take an agent that is offline out of the hub.

    It is listed no more, and what it did stays on record. If it comes back, it is told to end; a new token lets it in.

    Example: agentcom agent remove m1-1
    """
    _say(call(ctx, lambda hub: hub.remove_agent(agent)), json)


def _say(agent: AgentDetail, json: bool) -> None:
    if json:
        render.document(agent)
        return
    flags = "".join(f", {flag}" for flag in agent["flags"])
    busy = f", holding {agent['task']}" if agent["task"] else ""
    render.say(f"{agent['id']} is ", state(agent["state"]), flags, busy)


_OF = {"offer": "offer not taken", "run": "run"}


def _quarantine(agent: AgentDetail) -> list[tuple[str, str | None]]:
    """Since when, until when, why, and the way out."""
    if "quarantined" not in agent["flags"]:
        trial = (
            "the next failure quarantines it for longer, the next sound run ends it" if "on_trial" in agent["flags"] else None
        )
        return [("on trial", trial)]
    ends = moment(agent["quarantined_until"]) if agent["quarantined_until"] else "somebody resumes it"
    return [
        ("quarantined", f"{moment(agent['quarantined_at'])}, until {ends}"),
        ("because of", agent["quarantine_cause"]),
        ("cure", f"correct that on its machine, then: agentcom agent resume {agent['id']}"),
    ]


def _host(key: str, value: object) -> str:
    if key == "memory_bytes" and isinstance(value, int):
        return f"memory {render.size(value)}"
    return f"{key} {value}"


def _show(agent: AgentDetail, json: bool) -> None:
    if json:
        render.document(agent)
        return
    render.say(render.Cell(agent["id"], "bold"), "  ", state(agent["state"]), f"  {agent['name']}")
    render.facts(
        [
            ("flags", ", ".join(agent["flags"])),
            *_quarantine(agent),
            ("task", agent["task"]),
            ("note", agent["note"]),
            ("capabilities", ", ".join(agent["capabilities"])),
            ("projects", ", ".join(agent["projects"]) or "any"),
            ("runtimes", ", ".join(f"{one.get('name')} {one.get('version', '')}".strip() for one in agent["runtimes"])),
            ("host", ", ".join(_host(key, value) for key, value in agent["host"].items() if value and key != "boot")),
            ("connected", moment(agent["connected_at"])),
            ("last seen", moment(agent["last_seen_at"])),
        ]
    )
    if agent["strikes"]:
        render.heading("against it, since its last sound run")
        struck = [(age(one["at"]), _OF[one["of"]], one["task"], one["cause"]) for one in agent["strikes"]]
        render.part(("at", "what", "task", "cause"), struck, flex="cause")
    if agent["attempts"]:
        render.heading("latest tasks")
        render.part(
            ("task", "state", "lease", "assigned", "ended", "outcome", "title"),
            [
                (
                    one["id"],
                    state(one["state"]),
                    one["lease_epoch"],
                    age(one["assigned_at"]),
                    age(one["ended_at"]),
                    one["outcome"],
                    one["title"],
                )
                for one in agent["attempts"]
            ],
            flex="title",
            drop=("lease", "ended"),
        )
    if agent["transitions"]:
        render.heading("latest transitions")
        rows = [
            (age(one["at"]), state(one["from_state"]), state(one["to_state"]), one["reason"]) for one in agent["transitions"]
        ]
        render.part(("at", "from", "to", "reason"), rows, flex="reason")
