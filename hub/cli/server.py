"""``agentcom server`` and ``agentcom sidecar``: the processes that do the work."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from hub.cli import render
from hub.cli.exits import EPILOG, Exit
from hub.cli.session import DEFAULT_URL, LOOPBACK, fail

app = typer.Typer(help="Run a hub.", no_args_is_help=True, epilog=EPILOG)
SIDECAR_EPILOG = (
    "Exit codes: 0 drained; 2 wrong settings; 3 its state is in use; 4 refused by the hub; 5 a journal is unusable."
)
sidecar = typer.Typer(help="Run a sidecar beside agents.", no_args_is_help=True)


@app.command("start-dev")
def start_dev(
    host: Annotated[
        str, typer.Option(envvar="AGENTCOM_HOST", metavar="ADDRESS", help="Loopback address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            envvar="AGENTCOM_PORT", metavar="PORT", min=0, max=65535, help="One port for everything; 0 picks a free one."
        ),
    ] = 8790,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="AGENTCOM_DATA_DIR", metavar="DIR", help="Where it keeps everything; default: the XDG data directory."
        ),
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
    from pydantic import ValidationError

    from hub.app import run
    from hub.core.errors import HubError
    from hub.settings import HubSettings, default_data_dir
    from hub.telemetry import log

    log.configure(as_json=True if json_logs else None)
    try:
        settings = HubSettings(host=host, port=port, data_dir=data_dir or default_data_dir())
        code = run(
            settings,
            lambda url: _announce(url, settings.data_dir.absolute(), default_data_dir().absolute()),
            local_agents=True,
        )
    except ValidationError as invalid:
        fail(Exit.USAGE, "the settings are not valid: " + "; ".join(fault["msg"] for fault in invalid.errors()))
    except HubError as refused:
        fail(Exit.REFUSED, str(refused))
    render.say("stopped")
    return code


def _announce(url: str, data_dir: Path, default_dir: Path) -> None:
    """Said once the hub is ready: where it is, and what to type next, in lines that can be copied."""
    where = str(data_dir)
    render.say("hub ready at ", render.Cell(url, "bold"), f"  (docs: {url}/docs)")
    render.facts([("data", where), ("tokens", "admin.token, operator.token for you; agent.token for agents on this machine")])
    exports = [f"export AGENTCOM_URL={url}"] if url != DEFAULT_URL else []
    if data_dir != default_dir:
        exports.append(f"export AGENTCOM_DATA_DIR={shlex.quote(where)}")
    if exports:
        render.heading("In another terminal, first:")
        for line in exports:
            render.say(f"  {line}")
    render.heading("Then:")
    render.say('  agentcom task submit "Fix the login"')
    render.say("  agentcom sidecar run --config sidecar.toml", render.Cell("   # agents; in sidecar.toml:", "dim"))
    render.say(f'      hub_url = "ws{url.removeprefix("http")}/ws"')
    render.say(f"      token_file = {json.dumps(str(data_dir / 'agent.token'), ensure_ascii=False)}")
    render.say("Ctrl-C stops the hub; what it knows stays.")
    sys.stdout.flush()


@sidecar.command("run", epilog=SIDECAR_EPILOG, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    ctx: typer.Context,
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="The TOML file; config/sidecar.toml explains every key.")
    ],
    stop_agents: Annotated[
        bool, typer.Option("--stop-agents", help="At the end, stop running agents, too; otherwise they go on.")
    ] = False,
) -> None:
    """Run a sidecar beside agents.

    This process is replaced, so signals and exit codes are its own. Further options are passed on.

    Example: agentcom sidecar run --config sidecar.toml
    """
    argv = [sys.executable, "-m", "sidecar", "run", "--config", str(config)]
    argv += ["--stop-agents"] if stop_agents else []
    argv += ctx.args
    sys.stdout.flush()
    os.execv(sys.executable, argv)  # noqa: S606  an argv list, no shell
