"""``agentcom server`` and ``agentcom sidecar``: the processes that do the work."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from hub.cli import render
from hub.cli.exits import EPILOG, Exit
from hub.cli.session import fail

app = typer.Typer(help="Run a hub.", no_args_is_help=True, epilog=EPILOG)
sidecar = typer.Typer(help="Run a sidecar beside an agent.", no_args_is_help=True, epilog=EPILOG)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@app.command("start-dev")
def start_dev(
    host: Annotated[str, typer.Option(envvar="AGENTCOM_HOST", help="Loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="AGENTCOM_PORT", min=0, max=65535, help="One port for everything; 0 picks a free one.")
    ] = 8790,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="AGENTCOM_DATA_DIR", help="Where it keeps everything; default: the XDG data directory."),
    ] = None,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log lines as JSON.")] = False,
) -> None:
    """Run a hub on this machine, for this machine.

    Example: agentcom server start-dev --port 8790
    """
    if host not in LOOPBACK:
        fail(Exit.USAGE, f"start-dev listens on loopback only, not on {host}", f"use one of {', '.join(LOOPBACK)}")
    raise typer.Exit(_run_hub(host, port, data_dir, json_logs=json_logs))


def _run_hub(host: str, port: int, data_dir: Path | None, *, json_logs: bool) -> int:
    from pydantic import ValidationError  # noqa: PLC0415  the hub is only imported where it runs

    from hub.app import run  # noqa: PLC0415
    from hub.core.errors import HubError  # noqa: PLC0415
    from hub.settings import HubSettings, default_data_dir  # noqa: PLC0415
    from hub.telemetry import log  # noqa: PLC0415

    log.configure(as_json=True if json_logs else None)
    try:
        settings = HubSettings(host=host, port=port, data_dir=data_dir or default_data_dir())
        return run(settings, lambda url: _announce(url, settings.data_dir))
    except ValidationError as invalid:
        fail(Exit.USAGE, "the settings are not valid: " + "; ".join(fault["msg"] for fault in invalid.errors()))
    except HubError as refused:
        fail(Exit.REFUSED, str(refused))


def _announce(url: str, data_dir: Path) -> None:
    """Said once the hub is ready: where it is, and how the next command finds its token."""
    render.say("hub ready at ", render.Cell(url, "bold"), f"  (docs: {url}/docs)")
    render.say("data and tokens: ", str(data_dir))
    sys.stdout.flush()


@sidecar.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    ctx: typer.Context,
    config: Annotated[Path, typer.Option("--config", "-c", help="The sidecar's configuration.")],
) -> None:
    """Become a sidecar: this process is replaced, so signals and exit codes are its own. Further options are passed on.

    Example: agentcom sidecar run --config sidecar.toml
    """
    argv = [sys.executable, "-m", "sidecar", "run", "--config", str(config), *ctx.args]
    sys.stdout.flush()
    os.execv(sys.executable, argv)  # noqa: S606  an argv list, no shell
