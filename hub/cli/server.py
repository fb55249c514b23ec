"""``agentcom server`` and ``agentcom sidecar``: the processes that do the work."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli import render
from hub.cli.config import ConfigFile, read, refuse, tls_faults
from hub.cli.exits import EPILOG, Exit
from hub.cli.session import LOOPBACK, fail, record_url

if TYPE_CHECKING:
    from hub.settings import Resolved

RUN_EPILOG = (
    "Exit codes: 0 stopped; 1 it cannot start, and says why; 2 wrong settings or usage; 74 the store broke: start it again; "
    "130 ended by a second signal."
)
app = typer.Typer(help="Run a hub.", no_args_is_help=True, epilog=EPILOG)
SIDECAR_EPILOG = (
    "Exit codes: 0 drained; 2 wrong settings; 3 its state is in use; 4 refused by the hub; 5 a journal is unusable."
)
sidecar = typer.Typer(help="Run a sidecar beside agents.", no_args_is_help=True)


Host = Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="IP address to listen on [default: 127.0.0.1].")]
Port = Annotated[
    int | None,
    typer.Option(
        "--port", metavar="PORT", min=0, max=65535, help="One port for everything; 0 picks a free one [default: 8790]."
    ),
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="Where it keeps everything; default: the XDG data directory.")
]
JsonLogs = Annotated[bool, typer.Option("--json-logs", help="Log lines as JSON.")]


@app.command("start", epilog=RUN_EPILOG)
def start(
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    json_logs: JsonLogs = False,
) -> None:
    """Run a hub as file, environment and flags say.

    Off loopback it wants TLS, a trusted proxy, or a private network: see `agentcom config init`.

    Example: agentcom server start --config /etc/agentcom/hub.toml
    """
    raise typer.Exit(_run_hub(read(config, _flags(host, port, data_dir, json_logs=json_logs)), local_agents=False))


@app.command("start-dev", epilog=RUN_EPILOG)
def start_dev(host: Host = None, port: Port = None, data_dir: DataDir = None, json_logs: JsonLogs = False) -> None:
    """Run a hub on this machine, for this machine; no file is read.

    Example: agentcom server start-dev --port 8790
    """
    from hub.settings.listening import is_loopback

    found = read(None, _flags(host, port, data_dir, json_logs=json_logs), without_file=True)
    listen = found.settings.listen
    if not is_loopback(listen.host):
        hint = f"use one of {', '.join(LOOPBACK)}, or `agentcom server start`"
        fail(Exit.USAGE, f"start-dev listens on loopback only, not on {listen.host}", hint)
    raise typer.Exit(_run_hub(found, local_agents=True))


def _flags(host: str | None, port: int | None, data_dir: Path | None, *, json_logs: bool) -> dict[str, object]:
    log_format = "json" if json_logs else None
    return {"listen.host": host, "listen.port": port, "data_dir": data_dir, "log.format": log_format}


def _run_hub(found: Resolved, *, local_agents: bool) -> int:
    from hub.app import run
    from hub.core.errors import HubError
    from hub.settings import default_data_dir
    from hub.store.integrity import StoreCorrupt
    from hub.telemetry import log

    if faults := tls_faults(found):
        refuse(faults)
    settings = found.settings
    as_json = {"auto": None, "json": True, "console": False}[settings.log.format]
    log.configure(as_json=as_json, level=settings.log.level)
    try:
        code = run(
            settings,
            lambda url: _announce(url, settings.data_dir.absolute(), default_data_dir().absolute(), local_agents=local_agents),
            local_agents=local_agents,
        )
    except StoreCorrupt as broken:
        told = [*broken.faults, *broken.notes]
        fail(
            Exit.REFUSED,
            f"{broken.path} is broken, and was not opened",
            broken.cure,
            [{"loc": "", "msg": said} for said in told],
        )
    except HubError as refused:
        fail(Exit.REFUSED, str(refused))
    render.say("stopped")
    return code


def _announce(url: str, data_dir: Path, default_dir: Path, *, local_agents: bool) -> None:
    """Said once the hub is ready: where it is, and what to type next, in lines that can be copied."""
    where = str(data_dir)
    record_url(data_dir, url)
    tokens = "admin.token, operator.token for you" + ("; agent.token for agents on this machine" if local_agents else "")
    render.say("hub ready at ", render.Cell(url, "bold"), f"  (docs: {url}/docs)")
    render.facts([("data", where), ("tokens", tokens)])
    if data_dir != default_dir:
        render.heading("In another terminal, first:")
        render.say(f"  export AGENTCOM_DATA_DIR={shlex.quote(where)}")
    render.heading("Then:")
    render.say("  agentcom enrol create", render.Cell("                  # says what to run where your agents live", "dim"))
    render.say("  agentcom repo add NAME URL", render.Cell("             # what they work on", "dim"))
    render.say('  agentcom task submit "Fix the login"', render.Cell("   # and what to do", "dim"))
    render.say("Ctrl-C stops the hub; what it knows stays.")
    sys.stdout.flush()


@sidecar.command("run", epilog=SIDECAR_EPILOG, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="The TOML file; default: what agentcom join wrote."),
    ] = None,
    stop_agents: Annotated[
        bool, typer.Option("--stop-agents", help="At the end, stop running agents, too; otherwise they go on.")
    ] = False,
) -> None:
    """Run a sidecar beside agents.

    This process is replaced, so signals and exit codes are its own. Further options are passed on.

    Example: agentcom sidecar run --config sidecar.toml
    """
    argv = [sys.executable, "-m", "sidecar", "run", *(["--config", str(config)] if config else [])]
    argv += ["--stop-agents"] if stop_agents else []
    argv += ctx.args
    sys.stdout.flush()
    os.execv(sys.executable, argv)  # noqa: S606  an argv list, no shell
