"""The tree of commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hub.cli import agents, changes, projects, repos, server, status, tasks, watching
from hub.cli.demo import demo
from hub.cli.exits import EPILOG
from hub.cli.session import DEFAULT_URL, Target

app = typer.Typer(
    name="agentcom",
    help="AgentCom: ideas enter a queue and come out as reviewed, merged changes.\n\n"
    'Start with: agentcom server start-dev, then agentcom task submit "Fix the login".',
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(server.app, name="server")
app.add_typer(server.sidecar, name="sidecar")
app.add_typer(tasks.app, name="task")
app.add_typer(agents.app, name="agent")
app.add_typer(changes.app, name="change")
app.add_typer(projects.app, name="project")
app.add_typer(repos.app, name="repo")
app.command("demo", epilog=EPILOG)(demo)
status.mount(app)
watching.mount(tasks.app)


@app.callback()
def target(
    ctx: typer.Context,
    url: Annotated[str, typer.Option(envvar="AGENTCOM_URL", help="Where the hub is.")] = DEFAULT_URL,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENTCOM_TOKEN_FILE",
            help="File with the token; otherwise AGENTCOM_TOKEN, otherwise operator.token of the local hub.",
        ),
    ] = None,
) -> None:
    """Remember which hub the command is for."""
    ctx.obj = Target(url, token_file)
