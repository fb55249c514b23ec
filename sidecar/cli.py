"""``python -m sidecar``, which ``agentcom sidecar`` calls.

Exit codes: 0 drained, 2 settings, 3 state directory in use, 4 every agent refused, 5 journal, 130 ended by a second signal.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from sidecar import app as composition
from sidecar import logs
from sidecar.doctor import command as examining
from sidecar.joining import command as joining
from sidecar.journal import JournalError
from sidecar.settings import Settings, SettingsError, account_faults, default_file, load, missing_programs

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cli.callback()
def sidecar() -> None:
    """The process beside the agents."""


for command in (joining.join, joining.leave):
    cli.command(epilog=joining.EPILOG)(command)
cli.command(epilog=examining.EPILOG)(examining.doctor)


@cli.command()
def run(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="The TOML file; default: /etc/agentcom or the user's, sidecar.toml."
        ),
    ] = None,
    stop_agents: Annotated[bool, typer.Option("--stop-agents", help="At the end, stop running agents, too.")] = False,
) -> None:
    """Connect the configured agents to the hub and work until SIGTERM or Ctrl-C.

    Agents that are running then go on under their shims, and the next start finds them again.

    Example: python -m sidecar run --config sidecar.toml
    """
    try:
        settings = _usable(config or default_file())
        logs.configure(settings.log.level, settings.log.format)
        code = composition.run(settings, stop_agents=stop_agents)
    except SettingsError as fault:
        typer.echo(f"The settings cannot be used. {fault}", err=True)
        raise typer.Exit(2) from fault
    except composition.StateInUseError as fault:
        typer.echo(f"{fault}; stop it, or set another state_dir", err=True)
        raise typer.Exit(3) from fault
    except JournalError as fault:
        typer.echo(f"A journal cannot be used. {fault}", err=True)
        raise typer.Exit(5) from fault
    except (asyncio.CancelledError, KeyboardInterrupt):
        # a second signal: whoever is impatient hears nothing more; what runs goes on under its shims
        raise typer.Exit(130) from None
    raise typer.Exit(code)


def _usable(config: Path) -> Settings:
    settings = load(config)
    if faults := [*missing_programs(settings), *account_faults(settings)]:
        raise SettingsError(config, faults)
    return settings
