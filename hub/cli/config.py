"""``agentcom config``: judge, show and begin the hub's configuration. Also what the commands share that need its settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from hub.cli import render
from hub.cli.exits import Exit
from hub.cli.render import Cell
from hub.cli.session import Json, fail, wants_json

if TYPE_CHECKING:
    from hub.settings import Resolved
    from hub.settings.sources import Fault
    from hub.settings.tree import Listen

EPILOG = "Exit codes: 0 ok; 1 the file is there already; 2 wrong settings or usage."
app = typer.Typer(help="Judge, show and begin the hub's configuration file.", no_args_is_help=True, epilog=EPILOG)

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="AGENTCOM_CONFIG",
        metavar="FILE",
        help="The hub's TOML file; default: agentcom/hub.toml in the user's configuration directory, if it is there.",
    ),
]


@app.command("check", epilog=EPILOG)
def check(config: ConfigFile = None, json: Json = False) -> None:
    """Judge what a hub would start with, and say every fault at once.

    Example: agentcom config check --config /etc/agentcom/hub.toml
    """
    found = read(config)
    if faults := tls_faults(found):
        refuse(faults)
    listen, data_dir = found.settings.listen, str(found.settings.data_dir)
    certificate = _certificate(listen)
    if json:
        render.document({"ok": True, "file": found.file and str(found.file), "warnings": found.warnings})
        return
    render.say(Cell("ok  ", "green"), str(found.file or "no file: environment and defaults"))
    render.facts([("data", data_dir), ("listens on", _address(listen)), ("takes", _who(listen)), ("certificate", certificate)])


@app.command("show", epilog=EPILOG)
def show(
    config: ConfigFile = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    json: Json = False,
) -> None:
    """Every key with the value that is in effect.

    Example: agentcom config show --origin
    """
    from hub.settings.document import plain, toml
    from hub.settings.keys import KEYS

    found = read(config)
    if json:
        keys = {
            path: {"value": plain(found.value(path)), "variable": key.variable}
            | ({"origin": found.origins[path].kind, "place": found.origins[path].place} if origin else {})
            for path, key in KEYS.items()
        }
        render.document({"file": found.file and str(found.file), "keys": keys})
        return
    rows: list[tuple[render.Value, ...]] = []
    for path in KEYS:
        value, came = found.value(path), found.origins[path]
        style = "dim" if came.kind == "default" else ""
        row = (Cell(path, style), Cell("" if value is None else toml(value), style), Cell(came.place, style))
        rows.append(row if origin else row[:2])
    render.table(("key", "value", "origin") if origin else ("key", "value"), rows, empty="", flex="value")


@app.command("init", epilog=EPILOG)
def init(
    config: ConfigFile = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a file that explains every key, with the defaults.

    Example: agentcom config init --config hub.toml
    """
    from hub.settings import default_file
    from hub.settings.document import commented_file

    path = config or default_file()
    if path.exists() and not force:
        fail(Exit.REFUSED, f"{path} is there already", "look at it with `agentcom config show`, or replace it with --force")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commented_file(), "utf-8")
    except OSError as fault:
        fail(Exit.USAGE, f"{path} cannot be written: {fault.strerror}", "name another place with --config")
    render.say(f"wrote {path}")
    given = "" if config is None else f" --config {path}"
    render.say(f"  judge it:   agentcom config check{given}")
    render.say(f"  start with: agentcom server start{given}")


def read(config: Path | None, flags: Mapping[str, object] | None = None, *, without_file: bool = False) -> Resolved:
    """The settings of a hub started here with these flags; ends the command with every fault. What is strange is noted."""
    from hub.settings import SettingsError, default_file, resolve

    file = config if config is not None or without_file or not default_file().exists() else default_file()
    try:
        found = resolve(flags, os.environ, file)
    except SettingsError as fault:
        _note(fault.warnings)
        refuse(fault.faults)
    _note(found.warnings)
    return found


def tls_faults(found: Resolved) -> list[Fault]:
    """What is wrong with the certificate and key that the settings name."""
    from hub.app import open_port
    from hub.edge.tls import TlsUnusable
    from hub.settings.sources import Fault

    try:
        open_port(found.settings.listen)
    except TlsUnusable as unusable:
        place = str(found.origins["listen.tls_cert"])
        return [Fault(place, "listen", said) for said in unusable.faults]
    return []


def refuse(faults: Sequence[Fault]) -> NoReturn:
    """End the command with everything that is wrong."""
    hint = "`agentcom config show --origin` says where values come from; `agentcom config init` explains every key"
    errors = [{"place": fault.place, "loc": fault.key, "msg": fault.said} for fault in faults]
    fail(Exit.USAGE, "the settings cannot be used", hint, errors)


def _address(listen: Listen) -> str:
    from hub.edge.port import authority

    url = f"{'https' if listen.tls_cert else 'http'}://{authority(listen.host, listen.port)}"
    return f"{url}, called {listen.public_url}" if listen.public_url else url


def _certificate(listen: Listen) -> str | None:
    """How long the certificate is good for, or what is wrong with it: a hub starts with one that has ended, to no avail."""
    from datetime import UTC, datetime

    from hub.edge.doctor import examine_certificate

    if listen.tls_cert is None or listen.tls_key is None:
        return None
    return examine_certificate(listen.tls_cert, listen.tls_key, datetime.now(UTC))[0].found


def _who(listen: Listen) -> str:
    from hub.settings.listening import is_loopback

    if is_loopback(listen.host):
        return "connections from this machine"
    if listen.admitted is None:
        return "connections from everywhere, over TLS"
    return f"connections from this machine and {', '.join(map(str, listen.admitted))}, no others"


def _note(warnings: Sequence[str]) -> None:
    for warning in () if wants_json() else warnings:
        render.note(warning)
