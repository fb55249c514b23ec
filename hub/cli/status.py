"""``agentcom status``, ``agentcom whoami`` and ``agentcom version``."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import typer

from hub import __version__
from hub.cli import render
from hub.cli.exits import EPILOG
from hub.cli.session import Json, call

if TYPE_CHECKING:
    from collections.abc import Mapping


def mount(app: typer.Typer) -> None:
    """Add the commands that belong to no noun."""
    app.command(epilog=EPILOG)(status)
    app.command(epilog=EPILOG)(whoami)
    app.command("version", epilog=EPILOG)(show_version)


def status(ctx: typer.Context, json: Json = False) -> None:
    """Counts of tasks, changes and agents.

    Example: agentcom status --json
    """
    found = call(ctx, lambda hub: hub.status())
    if json:
        render.document(found)
        return
    missing = ", ".join(name for name, holds in found["checks"].items() if not holds)
    ready = render.Cell("ready", "green") if found["ready"] else render.Cell(f"not ready: {missing}", "bold red")
    render.facts(
        [
            ("hub", ready),
            ("version", found["version"]),
            ("tasks", _counts(found["tasks"], "none live")),
            ("ready by lane", _counts(found["queue"], "none")),
            ("finished (24 h)", _counts(found["finished_24h"], "none")),
            ("open changes", _counts(found["changes"], "none")),
            ("agents", _counts(found["agents"], "none known")),
        ]
    )


def whoami(ctx: typer.Context, json: Json = False) -> None:
    """Who your token says you are, and what you may do."""
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
    """The version of this program."""
    if json:
        render.document({"version": __version__, "python": platform.python_version(), "platform": platform.platform()})
        return
    render.say(f"agentcom {__version__}")


def _counts(counts: Mapping[str, int], none: str) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or none
