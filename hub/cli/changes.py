"""``agentcom change``: look at proposed merges and decide on them."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli import render
from hub.cli.exits import EPILOG, Exit
from hub.cli.render import BRIEF, Cell, age, state, tier
from hub.cli.session import Cursor, Json, Limit, call, fail
from hub.cli.words import ChangeRef, ChangeStateWord, Repo

if TYPE_CHECKING:
    from hub.client import HubClient
    from hub.client.documents import ChangeDetail, ChangePage

app = typer.Typer(help="Read and review changes.", no_args_is_help=True, epilog=EPILOG)

FILES_SHOWN = 20
OVER = ("merged", "closed")
SETTLE_S = 3.0
"""How long an approval is watched for what it leads to; checks and merge can take longer."""
LOOK_S = 0.2


@app.command("list")
def listing(
    ctx: typer.Context,
    state_: ChangeStateWord = None,
    repo: Repo = None,
    cursor: Cursor = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """Changes, newest first.

    Example: agentcom change list --state waiting
    """

    async def look(hub: HubClient) -> ChangePage:
        page = await hub.changes(state=state_, repo=repo, cursor=cursor, limit=limit)
        if not page["changes"] and repo is not None:
            await hub.repo(repo)  # a repository that does not exist is refused, with what to do
        return page

    page = call(ctx, look)
    if json:
        render.document(page)
        return
    render.table(
        ("change", "state", "tier", "task", "repo", "title", "cause", "updated"),
        [
            (
                change["id"],
                state(change["state"]),
                tier(change["tier"]),
                change["task"],
                change["repo"],
                change["title"],
                Cell(change["cause"], short=(change["cause"] or "").partition(":")[0][:BRIEF]),
                age(change["updated_at"]),
            )
            for change in page["changes"]
        ],
        empty="no changes match",
        flex="title",
        drop=("repo", "task", "cause"),
    )
    render.more(page["next"])


@app.command()
def show(ctx: typer.Context, change: ChangeRef, json: Json = False) -> None:
    """One change: what, why, tier, commits, reviews.

    Example: agentcom change show c-4
    """
    found = call(ctx, lambda hub: hub.change(change))
    if json:
        render.document(found)
        return
    _summary(found)
    if found["body"]:
        render.heading("text")
        render.say(found["body"], lines=True)
    render.heading("commits")
    for commit in found["commits"]:
        render.say(Cell(str(commit.get("sha"))[:12], "yellow"), "  ", commit.get("subject"))
    for review in found["reviews"]:
        render.heading(f"{review['verdict']} by {review['reviewer']}{'' if review['person'] else ' (agent)'}")
        render.say(review["comment"], lines=True)


@app.command()
def diff(ctx: typer.Context, change: ChangeRef) -> None:
    """The change as a unified diff.

    Example: agentcom change diff c-4 | less
    """
    _diff(call(ctx, lambda hub: hub.diff(change)))


@app.command()
def approve(
    ctx: typer.Context,
    change: ChangeRef,
    comment: Annotated[str, typer.Option("--comment", "-m", metavar="TEXT", help="Kept with the review.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needs a token with the scope approver.")] = False,
    json: Json = False,
) -> None:
    """Approve a change after looking at it.

    Shows tier, reasons and diff stat, and asks. Without a terminal it needs --yes and a token with the scope approver.
    Example: agentcom change approve c-4
    """
    if not yes and not (sys.stdin.isatty() and render.is_terminal()):
        fail(
            Exit.USAGE,
            "approving asks a person, and there is no terminal to ask at",
            "run it in a terminal, or use --yes with an approver's token in AGENTCOM_TOKEN",
        )
    found = call(ctx, lambda hub: hub.change(change))
    if found["state"] in OVER:
        fail(Exit.REFUSED, f"{found['id']} is {found['state']} already", f"agentcom change show {found['id']}")
    if not yes:
        _summary(found)
        _confirm(ctx, found)

    async def decide(hub: HubClient) -> ChangeDetail:
        await hub.approve(change, head_sha=found["head_sha"], comment=comment, confirmed=not yes)
        return await _settled(hub, found)

    _approved(call(ctx, decide), found, json)


@app.command()
def reject(
    ctx: typer.Context,
    change: ChangeRef,
    reason: Annotated[str, typer.Option("--reason", "-m", metavar="TEXT", help="What is wrong: the next attempt is told.")],
    final: Annotated[bool, typer.Option("--final", help="End the task instead of sending it back.")] = False,
    json: Json = False,
) -> None:
    """Send a change back, or end its task.

    Example: agentcom change reject c-4 --reason "handle the empty list"
    """
    done = call(ctx, lambda hub: hub.reject(change, reason, final=final))
    if json:
        render.document(done)
        return
    render.say(f"{done['id']} is rejected: ", "its task is ended" if final else "its task is sent back with your reason")


def _confirm(ctx: typer.Context, change: ChangeDetail) -> None:
    """Ask until the answer is yes; anything but yes and diff ends the command."""
    while True:
        render.say("")
        render.say(Cell(f"Approve {change['id']} at {change['head_sha'][:12]}? ", "bold"), "[y]es, [d]iff, [N]o")
        said = sys.stdin.readline().strip().lower()
        if said in ("y", "yes"):
            return
        if said not in ("d", "diff"):
            fail(Exit.REFUSED, "not approved: nothing was changed", f"agentcom change reject {change['id']} --reason …")
        _diff(call(ctx, lambda hub: hub.diff(change["id"])))


def _summary(change: ChangeDetail) -> None:
    render.say(Cell(change["id"], "bold"), "  ", state(change["state"]), "  ", Cell(change["title"], "bold"))
    stat = change["stat"]
    files = stat.get("files") or []
    render.facts(
        [
            ("tier", tier(change["tier"])),
            ("cause", change["cause"]),
            ("task", change["task"]),
            ("repository", f"{change['repo']}: {change['branch']} → {change['base']}"),
            ("head", change["head_sha"]),
            ("merged", change["merged_sha"]),
            (
                "stat",
                f"{len(files)} {'file' if len(files) == 1 else 'files'}, +{stat.get('added', 0)} -{stat.get('deleted', 0)}"
                if stat
                else None,
            ),
        ]
    )
    for reason in change["reasons"]:
        render.say("  because ", reason)
    for file in files[:FILES_SHOWN]:
        render.say(f"  {file.get('status', '')} {file.get('path')}  +{file.get('added', 0)} -{file.get('deleted', 0)}")
    if len(files) > FILES_SHOWN:
        render.say(f"  … and {len(files) - FILES_SHOWN} more files")


_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def _diff(text: str) -> None:
    for line in text.split("\n"):
        # a tab keeps its place: diffs are read, and piped into other programs
        render.say(Cell(line, _DIFF_STYLES.get(line[:1], "")), lines=True)


async def _settled(hub: HubClient, before: ChangeDetail) -> ChangeDetail:
    """The change when it has got somewhere new, or as it is after a moment: the gatekeeper works in its own time."""
    until = asyncio.get_running_loop().time() + SETTLE_S
    while True:
        found = await hub.change(before["id"])
        moved = (found["state"], found["cause"]) != (before["state"], before["cause"])
        left_s = until - asyncio.get_running_loop().time()
        if left_s <= 0 or (moved and found["state"] in (*OVER, "rework", "waiting")):
            return found
        await asyncio.sleep(min(LOOK_S, left_s))


def _approved(change: ChangeDetail, before: ChangeDetail, json: bool) -> None:
    if json:
        render.document(change)
        return
    cause = f": {change['cause']}" if change["cause"] else ""
    if change["state"] == "waiting" and change["cause"] == before["cause"]:
        render.say(f"{change['id']} is approved; it merges when its checks allow")
    elif change["state"] in (*OVER, "rework", "waiting"):
        render.say(f"{change['id']} is approved and ", state(change["state"]), cause)
    else:
        render.say(f"{change['id']} is approved; it merges when its checks allow (now ", state(change["state"]), cause, ")")
