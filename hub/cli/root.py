"""The tree of commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from hub import __version__
from hub.cli import (
    agents,
    backup,
    changes,
    config,
    db,
    doctor,
    joining,
    projects,
    render,
    repos,
    salvage,
    server,
    status,
    tasks,
    tokens,
    watching,
)
from hub.cli.demo import demo
from hub.cli.exits import EPILOG
from hub.cli.session import DEFAULT_URL, Target, check_url, joined_url, recorded_url

_ROOT_OPTIONS = ("--url", "--token-file", "--version")


class _Root(typer.core.TyperGroup):
    """The root of the tree, which knows where its own options belong, and that arguments are foreign text, too."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Read the root's own arguments; bytes that are no text are refused."""
        with _harmless():
            for i, arg in enumerate(args, start=1):
                if any("\ud800" <= char <= "\udfff" for char in arg):
                    raise typer.BadParameter(f"argument {i} is not text in UTF-8")
            return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's own name for the context
        """Run a command; an option of the root behind it is refused with the right place."""
        with _harmless():
            try:
                return super().invoke(ctx)
            except typer.BadParameter:
                raise
            except Exception as fault:
                if (option := getattr(fault, "option_name", None)) in _ROOT_OPTIONS and hasattr(fault, "message"):
                    fault.message = f"No such option: {option}. It stands before the command: agentcom {option} … task list"
                    fault.possibilities = None  # type: ignore[attr-defined]  # set by the parser, not declared on its base
                raise


@contextmanager
def _harmless() -> Iterator[None]:
    """The parser repeats what it does not understand: without its power over the terminal."""
    try:
        yield
    except Exception as fault:
        if isinstance(message := getattr(fault, "message", None), str):
            fault.message = render.clean(message, lines=True)  # type: ignore[attr-defined]  # of the parser's errors
        raise


def _show_version(value: bool) -> None:
    if value:
        render.say(f"agentcom {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="agentcom",
    cls=_Root,
    help="AgentCom: ideas enter a queue and come out as reviewed, merged changes.\n\n"
    "Start with: agentcom server start-dev; then repo add, enrol create and join, and task submit.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
NOUNS = {
    "server": server.app,
    "sidecar": server.sidecar,
    "config": config.app,
    "task": tasks.app,
    "agent": agents.app,
    "change": changes.app,
    "salvage": salvage.app,
    "project": projects.app,
    "repo": repos.app,
    "db": db.app,
    "token": tokens.app,
    "enrol": tokens.enrol,
    "backup": backup.app,
}
app.command("demo", short_help="Show six ideas becoming merged changes.")(demo)
status.mount(app)
doctor.mount(app)
watching.mount(tasks.app)
joining.mount(app)
for _name, _noun in NOUNS.items():
    app.add_typer(_noun, name=_name)
for _tree in (app, *NOUNS.values()):
    for _command in _tree.registered_commands:
        _command.epilog = _command.epilog or EPILOG  # a command whose codes are its own says so itself


@app.callback()
def target(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="AGENTCOM_URL",
            metavar="URL",
            help=f"Where the hub is; otherwise the one on this machine, the one it joined, or {DEFAULT_URL}.",
            callback=check_url,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENTCOM_TOKEN_FILE",
            metavar="FILE",
            help="File with the token; otherwise AGENTCOM_TOKEN, otherwise the local hub's own token files.",
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Remember which hub the command is for."""
    ctx.obj = Target(url or recorded_url() or joined_url() or DEFAULT_URL, token_file)
