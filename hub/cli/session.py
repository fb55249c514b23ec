"""A command's conversation with the hub: where it is, with which token, and what to tell the user when it fails."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import typer

from hub.cli import render
from hub.cli.exits import Exit, of_status
from hub.cli.render import Cell
from hub.wire.address import is_loopback

if TYPE_CHECKING:
    from hub.client import HubClient, HubProblem

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8790"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
TOKEN_FILE = "operator.token"  # noqa: S105  a file name
ADMIN_FILE = "admin.token"
URL_FILE = "hub.url"
"""In a hub's data directory: where that hub was last reached."""

_as_json: ContextVar[bool] = ContextVar("as_json", default=False)


def _remember(value: bool) -> bool:
    """Errors are told in the form the answer was asked for, wherever in the command they are found."""
    _as_json.set(value)
    return value


Json = Annotated[
    bool,
    typer.Option("--json", help="Print the hub's document as JSON; an error is one JSON object on stderr.", callback=_remember),
]
Cursor = Annotated[str | None, typer.Option("--cursor", metavar="CURSOR", help="Go on where a page ended.")]
Limit = Annotated[int, typer.Option("--limit", "-n", metavar="COUNT", min=1, max=200, help="Entries on a page.")]


@dataclass(frozen=True, slots=True)
class Target:
    """Which hub, and where its token is kept. A token itself is never an argument: other users can read those."""

    url: str = DEFAULT_URL
    token_file: Path | None = None


def check_url(value: str | None) -> str | None:
    """What --url was given, if it was; anything that is not the address of a hub is wrong usage."""
    return None if value is None else _address(value)


def _address(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        usable = usable and parts.username is None and render.clean(value) == value and " " not in value
    except ValueError:
        usable = False
    if not usable:
        raise typer.BadParameter(f"{render.clean(value)!r} is not the address of a hub; write it like {DEFAULT_URL}")
    return value


def find_token(target: Target, *, admin: bool = False) -> str | None:
    """From --token-file, else AGENTCOM_TOKEN, else from the data directory of a hub on this machine.

    There the operator's token serves everyday commands, and the administrator's those that need one. Neither is ever sent
    anywhere but to this machine, or to where that very hub said it is reached.
    """
    if target.token_file is not None:
        try:
            return _token(target.token_file.read_bytes(), str(target.token_file))
        except OSError as fault:
            fail(Exit.USAGE, f"the token file cannot be read: {fault.strerror}: {target.token_file}")
    if token := os.environ.get("AGENTCOM_TOKEN"):
        return _token(os.fsencode(token), "AGENTCOM_TOKEN")
    if not is_loopback(target.url) and target.url.rstrip("/") != recorded_url():
        return None
    found = _data_dir() / (ADMIN_FILE if admin else TOKEN_FILE)
    try:
        return _token(found.read_bytes(), str(found))
    except OSError:
        return None


def _token(given: bytes, whence: str) -> str:
    """A token as a header can carry it. What is none is not repeated: it may be half a secret."""
    token = given.strip().decode(errors="replace")
    if not token or not token.isascii() or render.clean(token) != token or " " in token:
        fail(Exit.USAGE, f"{whence} does not hold a token", "a token is one word on one line, like ac_1f2e3d4c_…")
    return token


def record_url(data_dir: Path, url: str) -> None:
    """Note where a hub is reached, so that commands on its machine find it without being told."""
    fresh = data_dir / f"{URL_FILE}.{os.getpid()}"
    fresh.touch(mode=0o600)
    fresh.write_text(url + "\n", "utf-8")
    fresh.replace(data_dir / URL_FILE)


def recorded_url() -> str | None:
    """Where the hub of this machine's data directory said it is reached; None if there is none."""
    try:
        return _address((_data_dir() / URL_FILE).read_text("utf-8").strip()).rstrip("/")
    except (OSError, UnicodeDecodeError, typer.BadParameter):
        return None


def joined_file() -> Path:
    """Where a join of this user writes the sidecar's file: ``sidecar.settings.default_file``, which is another program's."""
    from platformdirs import user_config_path

    return (Path("/etc/agentcom") if os.geteuid() == 0 else user_config_path("agentcom")) / "sidecar.toml"


def joined_url() -> str | None:
    """The hub that this machine has joined; None if it has joined none."""
    import tomllib

    try:
        socket = str(tomllib.loads(joined_file().read_text("utf-8"))["hub_url"])
        return _address(socket.replace("ws", "http", 1).removesuffix("/ws"))
    except (OSError, ValueError, KeyError, typer.BadParameter):
        return None


def _data_dir() -> Path:
    if given := os.environ.get("AGENTCOM_DATA_DIR"):
        return Path(given)
    from platformdirs import user_data_path

    return user_data_path("agentcom")


def target_of(ctx: typer.Context) -> Target:
    """Which hub the command is for."""
    return ctx.obj if isinstance(ctx.obj, Target) else Target()


def open_client(target: Target, *, admin: bool = False) -> HubClient:
    """A client for the target; use it as a context manager. ``admin``: with the administrator's token, where it is at hand."""
    from hub.client import HubClient

    token = find_token(target, admin=admin)
    try:
        return HubClient(target.url, token)
    except OSError as fault:  # also what ssl raises of a file that holds no certificate
        fail(Exit.USAGE, f"the certificates in SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {fault.strerror or fault}")


def call(ctx: typer.Context, work: Callable[[HubClient], Awaitable[T]], *, admin: bool = False) -> T:
    """Run ``work`` with a client. A failure ends the command with words that say what to do, and the code of its kind.

    ``admin`` marks what only an administrator may do.
    """
    from hub.client import HubProblem, HubUnreachable

    target = target_of(ctx)

    async def converse() -> T:
        async with open_client(target, admin=admin) as hub:
            return await work(hub)

    try:
        return asyncio.run(converse())
    except HubProblem as problem:
        _explain(problem)
        raise typer.Exit(of_status(problem.status)) from None
    except HubUnreachable as unreachable:
        hint = (
            "start a hub with `agentcom server start-dev`, or name one"
            if is_loopback(target.url)
            else "check the address: it is given"
        )
        _complain("unreachable", unreachable.args[0], unreachable.hint or f"{hint} with --url or AGENTCOM_URL")
        raise typer.Exit(Exit.UNREACHABLE) from None


def fail(code: Exit, message: str, hint: str = "", errors: Sequence[Mapping[str, str]] = ()) -> NoReturn:
    """End the command. ``errors`` lists single faults: ``place``, if it has one, ``loc`` and ``msg``, which may have several lines."""
    _complain(code.name.lower(), message, hint, errors)
    raise typer.Exit(code)


def wants_json() -> bool:
    """Whether the answer was asked for as JSON: then nothing but JSON is printed, on either stream."""
    return _as_json.get()


def _complain(code: str, message: str, hint: str, errors: Sequence[Mapping[str, str]] = ()) -> None:
    """An error that is not the hub's, on stderr in the form of the answer."""
    if _as_json.get():
        _print_problem({"code": code, "detail": message, "errors": list(errors) or None, "hint": hint or None})
        return
    render.say(Cell("error: ", "bold red"), message, stderr=True)
    for fault in errors:
        place = Cell(f"{fault['place']}: ", "dim") if fault.get("place") else ""
        key = Cell(f"{fault['loc']}: ", "yellow") if fault["loc"] else ""
        render.say("  ", place, key, fault["msg"].replace("\n", "\n    "), stderr=True, lines=True)
    if hint:
        render.say("hint: ", hint, stderr=True)


def _print_problem(document: dict[str, Any]) -> None:
    known = {field: value for field, value in document.items() if value is not None}
    render.say(json.dumps(known), stderr=True)


def _explain(problem: HubProblem) -> None:
    hint = _hint(problem)
    if _as_json.get():
        _print_problem(
            {
                "status": problem.status,
                "code": problem.code,
                "detail": problem.detail,
                "errors": problem.errors or None,
                "hint": hint or None,
                "current": problem.current,
                "retry_after_s": problem.retry_after_s,
                "request_id": problem.request_id,
            }
        )
        return
    render.say(Cell("error: ", "bold red"), problem.detail, Cell(f" [{problem.code}]", "dim"), stderr=True)
    for fault in problem.errors:
        render.say("  ", Cell(fault["loc"], "yellow"), ": ", fault["msg"], stderr=True)
    if problem.current is not None:
        render.say(f"  it is at version {problem.current.get('version')} now", stderr=True)
    if hint:
        render.say("hint: ", hint, stderr=True)


def _hint(problem: HubProblem) -> str:
    hint = problem.hint
    if problem.status == 401:
        hint = "use --token-file or AGENTCOM_TOKEN; a hub on this machine keeps admin.token and operator.token in its data directory"
    if problem.retry_after_s is not None:
        hint = f"try again in {problem.retry_after_s:g} s" + (f"; {hint}" if hint else "")
    if problem.status >= 500 and problem.request_id:
        hint = (hint + "; " if hint else "") + f"the hub's log has it as request {problem.request_id}"
    return hint
