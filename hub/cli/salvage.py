"""``agentcom salvage``: look at work that was not applied, adopt it or drop it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli import render
from hub.cli.exits import EPILOG, Exit
from hub.cli.render import Cell, age, moment, state
from hub.cli.session import Cursor, Json, Limit, call, fail
from hub.cli.words import SalvageRef, TaskRefOption

if TYPE_CHECKING:
    from hub.client import HubClient
    from hub.client.documents import Salvage, SalvageDetail, SalvagePage, TaskAnswer

app = typer.Typer(help="Work that was not applied: read, adopt, drop.", no_args_is_help=True, epilog=EPILOG)

FILES_SHOWN = 20
OUTPUT_LINES = 40
LOOK_S = 0.5
EMPTY = "nothing is kept: every result was applied, and no agent left work uncommitted"
EMPTY_OPEN = "nothing waits for a decision; without --open the list shows what was decided, too"


@app.command("list")
def listing(
    ctx: typer.Context,
    task: TaskRefOption = None,
    open_: Annotated[bool, typer.Option("--open", help="Only what waits for a decision.")] = False,
    cursor: Cursor = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Results that came too late, and what agents left uncommitted.

    Example: agentcom salvage list --open
    """

    async def look(hub: HubClient) -> SalvagePage:
        page = await hub.salvage(task=task, open_only=open_, cursor=cursor, limit=limit)
        if not page["salvage"] and task is not None:
            await hub.task(task)  # a task that does not exist is refused, with what to do
        return page

    page = call(ctx, look)
    if json:
        render.document(page)
        return
    render.table(
        ("record", "state", "outcome", "agent", "branch", "why", "task is", "title", "kept"),
        [
            (
                kept["id"],
                state(kept["state"]),
                kept["outcome"],
                kept["agent"],
                Cell(where(kept), short=(where(kept) or "").removeprefix("agentcom/")),
                kept["reason"],
                state(kept["task_state"] or "unknown"),
                kept["title"],
                age(kept["at"]),
            )
            for kept in page["salvage"]
        ],
        empty=EMPTY_OPEN if open_ else EMPTY,
        flex="why",
        drop=("title", "branch", "agent", "task is", "kept"),
    )
    render.more(page["next"])


@app.command()
def show(ctx: typer.Context, record: SalvageRef, json: Json = False) -> None:
    """One record: whose work it is, and why it was not applied.

    What it changes, what its agent said, and which attempts were told of it.

    Example: agentcom salvage show t-17/3
    """
    found = call(ctx, lambda hub: hub.salvaged(record))
    if json:
        render.document(found)
        return
    _summary(found)
    for title, text in (("output", found["output"]), ("what a next attempt is told of its end", found["feedback"])):
        if text:
            lines = text.splitlines()
            cut = f" (the last {OUTPUT_LINES} of {len(lines)} lines)" if len(lines) > OUTPUT_LINES else ""
            render.heading(title + cut)
            render.say("\n".join(lines[-OUTPUT_LINES:]), lines=True)
    if found["state"] == "open":
        render.say("")
        render.say(f'decide: agentcom salvage apply {found["id"]}, or agentcom salvage drop {found["id"]} --reason "…"')


@app.command()
def apply(
    ctx: typer.Context,
    record: SalvageRef,
    force: Annotated[bool, typer.Option("--force", help="Stop the attempt that is running first.")] = False,
    json: Json = False,
) -> None:
    """Adopt it as the task's result, under a new lease.

    Commits go to review and are gated like any other change; the output of a task that needs no commits ends it. A finished
    task begins a new generation.

    Example: agentcom salvage apply t-17/3
    """
    done = call(ctx, lambda hub: _apply(hub, record, force=force))
    if json:
        render.document(done)
        return
    if done["pending"]:
        render.say(f"{done['id']} takes it when its agent has stopped; look with: agentcom salvage show {record}")
        return
    follow = {"in_review": f": agentcom task explain {done['id']}", "done": ""}.get(done["state"], "")
    render.say(f"{done['id']} is ", state(done["state"]), f" with the work of lease {record.partition('/')[2]}{follow}")


@app.command()
def drop(
    ctx: typer.Context,
    record: SalvageRef,
    reason: Annotated[str, typer.Option("--reason", "-m", metavar="TEXT", help="Why nobody needs it; kept.")],
    json: Json = False,
) -> None:
    """Close a record without using it.

    The next attempt is not told of it. A branch stays where it is.

    Example: agentcom salvage drop t-17/3 --reason "the other attempt did it better"
    """
    done = call(ctx, lambda hub: hub.drop_salvage(record, reason))
    if json:
        render.document(done)
        return
    render.say(f"{done['id']} is ", state(done["state"]))


def where(kept: Salvage) -> str | None:
    """The branch with the work: its commits, else what was left uncommitted."""
    return kept["branch"] or kept["salvage_ref"]


STOP_S = 20.0
"""How long a stopping agent is waited for; it may take longer, and the hub goes on by itself."""


async def _apply(hub: HubClient, record: str, *, force: bool) -> TaskAnswer:
    done = await hub.apply_salvage(record, force=force)
    until = asyncio.get_running_loop().time() + STOP_S
    while done["pending"] and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(LOOK_S)
        if (await hub.salvaged(record))["state"] == "open":
            fail(Exit.REFUSED, f"{done['id']} was ended otherwise meanwhile", f"agentcom task show {done['id']}")
        done = await hub.apply_salvage(record)  # said again it changes nothing, and tells how far it is
    return done


def _summary(kept: SalvageDetail) -> None:
    title = kept["title"] if kept["title"] is not None else "of a task this hub does not know"
    render.say(Cell(kept["id"], "bold"), "  ", state(kept["state"]), "  ", Cell(title, "bold"))
    error = kept["error"] or {}
    stat = kept["stat"]
    files = stat["files"] if stat is not None else []
    decided = f"{moment(kept['decided_at'])} by {kept['decided_by']}" if kept["decided_by"] else None
    told = ", ".join(f"lease {epoch}" for epoch in kept["told"])
    render.facts(
        [
            ("task", f"{kept['task']}, {kept['task_state']}" if kept["task_state"] else None),
            ("agent", kept["agent"]),
            ("kept", moment(kept["at"])),
            ("why", kept["reason"]),
            ("outcome", kept["outcome"]),
            ("error", ": ".join(str(error[key]) for key in ("code", "message") if error.get(key))),
            ("branch", kept["branch"]),
            ("uncommitted", kept["salvage_ref"]),
            ("head", kept["head_sha"]),
            (
                "stat",
                f"{len(files)} {'file' if len(files) == 1 else 'files'}, +{stat['added']} -{stat['deleted']}"
                if stat is not None
                else kept["stat_missing"]
                if where(kept)
                else None,
            ),
            ("told to", told or None),
            (kept["state"] if kept["state"] != "open" else "decided", decided),
            ("adopted as", f"lease {kept['applied_epoch']}" if kept["applied_epoch"] else None),
            ("because", kept["note"]),
        ]
    )
    for file in files[:FILES_SHOWN]:
        render.say(f"  {file.get('status', '')} {file.get('path')}  +{file.get('added', 0)} -{file.get('deleted', 0)}")
    if len(files) > FILES_SHOWN:
        render.say(f"  … and {len(files) - FILES_SHOWN} more files")
    if kept["commits"]:
        render.heading("commits")
        for commit in kept["commits"]:
            render.say(Cell(str(commit.get("sha"))[:12], "yellow"), "  ", commit.get("subject"))
