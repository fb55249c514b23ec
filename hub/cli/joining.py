"""``agentcom join`` and ``agentcom leave``: what a machine does for itself is the sidecar's, which is called with all that was said."""

from __future__ import annotations

import os
import sys

import typer

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
"""The sidecar knows the options, also --help."""


_CODES = "Exit codes: 0 done; 1 a step failed, the same command goes on from there; 2 wrong usage; 130 interrupted."


def mount(app: typer.Typer) -> None:
    """Add the two commands."""
    for command in (join, leave):
        app.command(context_settings=_PASS_ON, add_help_option=False, epilog=_CODES)(command)


def join(ctx: typer.Context) -> None:
    """Make this machine part of a hub.

    Example: agentcom join https://hub.example:8790 --enrol ac_… --command 'my-agent {prompt_file}'
    """
    _become("join", ctx.args)


def leave(ctx: typer.Context) -> None:
    """Take this machine out of its hub.

    Example: agentcom leave
    """
    _become("leave", ctx.args)


def _become(command: str, args: list[str]) -> None:
    """Replace this process, so that signals and exit codes are the sidecar's own."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "sidecar", command, *args])  # noqa: S606  an argv list, no shell
