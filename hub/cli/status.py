"""``agentcom status``, ``agentcom whoami`` and ``agentcom version``."""

from __future__ import annotations

import asyncio
import platform
from typing import TYPE_CHECKING, Annotated

import typer

from hub import __version__
from hub.cli import render
from hub.cli.exits import Exit
from hub.cli.session import Json, call, fail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hub.client import HubClient

LOOK_AGAIN_S = 0.2
SALVAGE_COUNTED = 1000
"""The hub counts no further."""


def mount(app: typer.Typer) -> None:
    """Add the commands that belong to no noun."""
    app.command()(status)
    app.command()(whoami)
    app.command("version")(show_version)


def status(
    ctx: typer.Context,
    wait: Annotated[bool, typer.Option("--wait", help="First wait until the hub is ready.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to wait.")] = 60.0,
    json: Json = False,
) -> None:
    """Counts of tasks, changes and agents.

    With --wait, for scripts: 3 if the hub did not answer in time, 7 if it answers and is not ready.

    Example: agentcom status --wait --timeout 30
    """
    if wait:
        call(ctx, lambda hub: _until_ready(hub, timeout))
    found = call(ctx, lambda hub: hub.status())  # with a token that a first start may have made only now
    if json:
        render.document(found)
        return
    missing = ", ".join(name for name, holds in found["checks"].items() if not holds)
    ready = render.Cell("ready", "green") if found["ready"] else render.Cell(f"not ready: {missing}", "bold red")
    if found["ready"] and found["degraded"]:
        ready = render.Cell(f"ready for agents, refuses people: {', '.join(found['degraded'])}", "bold red")
    render.facts(
        [
            ("hub", ready),
            ("version", found["version"]),
            ("tasks", _counts(found["tasks"], "none live")),
            ("ready by lane", _counts(found["queue"], "none")),
            ("finished (24 h)", _counts(found["finished_24h"], "none")),
            ("open changes", _counts(found["changes"], "none")),
            ("salvaged work", _salvage(found["salvage_open"])),
            ("agents", _counts(found["agents"], "none known")),
        ]
    )


def whoami(ctx: typer.Context, json: Json = False) -> None:
    """Who your token says you are, and what you may do.

    Example: agentcom whoami
    """
    me = call(ctx, lambda hub: hub.whoami())
    if json:
        render.document(me)
        return
    render.facts(
        [
            ("name", me["name"]),
            ("may", ", ".join(me["scopes"])),
            ("token", me["token_id"]),
            ("until", render.moment(me["expires_at"]) or "revoked"),
            ("reviews count as", "a person's" if me["person"] else "a program's"),
        ]
    )


def show_version(json: Json = False) -> None:
    """The version of this program.

    Example: agentcom version --json
    """
    if json:
        render.document({"version": __version__, "python": platform.python_version(), "platform": platform.platform()})
        return
    render.say(f"agentcom {__version__}")


async def _until_ready(hub: HubClient, timeout_s: float) -> None:
    """Wait; ends the command when it takes too long, or when waiting cannot help."""
    from hub.client import HubUnreachable

    code, said = Exit.UNREACHABLE, f"{hub.base_url} did not answer"
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    checks = await hub.readiness()
                except HubUnreachable as gone:
                    if gone.hint:
                        raise
                    code, said = Exit.UNREACHABLE, str(gone)
                else:
                    if all(checks.values()):
                        return
                    missing = ", ".join(name for name, holds in checks.items() if not holds)
                    code, said = Exit.LATER, f"{hub.base_url} answers, but is not ready: {missing}"
                await asyncio.sleep(LOOK_AGAIN_S)
    except TimeoutError:
        fail(code, f"waited {timeout_s:g} s: {said}", "look at the hub's log; `agentcom doctor` says more")


def _salvage(count: int) -> str | None:
    more = "or more " if count >= SALVAGE_COUNTED else ""
    return f"{count} {more}to decide about: agentcom salvage list --open" if count else None


def _counts(counts: Mapping[str, int], none: str) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or none
