"""``agentcom token`` and ``agentcom enrol``: who may come in, and as what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli import render
from hub.cli.exits import EPILOG, Exit
from hub.cli.render import age, moment
from hub.cli.session import Json, call, fail, target_of
from hub.cli.words import complete, listed
from hub.ids import AgentId, Scope, agent_scope
from hub.wire.address import is_loopback

if TYPE_CHECKING:
    from hub.client.tokens import Token

app = typer.Typer(help="Issue and revoke tokens.", no_args_is_help=True, epilog=EPILOG)
enrol = typer.Typer(help="Let machines join.", no_args_is_help=True, epilog=EPILOG)

_SCOPES = tuple(scope for scope in Scope if scope not in (Scope.AGENT, Scope.ENROL))
_SPAN = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def span(text: str | None) -> int | None:
    """Seconds of ``15m``, ``12h``, ``30d``."""
    if text is None:
        return None
    found = _SPAN.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{render.clean(text[:40])!r} is no span of time; write it like 15m, 12h or 30d")
    return int(found[1]) * _SECONDS[found[2]]


Expires = Annotated[
    str | None,
    typer.Option("--expires", "-e", metavar="SPAN", help="How long it is good: 15m, 12h, 30d; default: until revoked."),
]


@app.command("create")
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom it is for; appears as created_by, reviewer …")],
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", "-s", metavar="SCOPE", help=f"{listed(_SCOPES)} Repeatable.", autocompletion=complete(_SCOPES)),
    ] = None,
    agents: Annotated[
        list[str] | None, typer.Option("--agent", "-a", metavar="AGENT", help="An agent it may be. Repeatable.")
    ] = None,
    expires: Expires = None,
    program: Annotated[bool, typer.Option("--program", help="For a program: its reviews are not a person's.")] = False,
    json: Json = False,
) -> None:
    """Issue a token. Its text is shown this once and stored nowhere.

    Example: agentcom token create alice --scope approver
    """
    wanted = [*(scopes or ()), *(agent_scope(AgentId(agent)) for agent in agents or ())]
    if not wanted:
        raise typer.BadParameter("a token needs --scope or --agent", ctx=ctx)
    person = not program and not agents
    expires_s = span(expires)
    issued = call(ctx, lambda hub: hub.issue_token(name, wanted, person=person, expires_s=expires_s), admin=True)
    if json:
        render.document(issued)
        return
    render.say(issued["token"])
    render.say(
        f"Shown this once: keep it where no agent can read it. It is {issued['id']} in `agentcom token list`.", stderr=True
    )


@app.command("list")
def listing(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Also those that have ended, for 90 days.")] = False,
    json: Json = False,
) -> None:
    """Tokens, oldest first.

    Example: agentcom token list
    """
    found = call(ctx, lambda hub: hub.tokens(), admin=True)
    shown = [token for token in found["tokens"] if everything or token["live"]]
    if json:
        render.document({"tokens": shown})
        return
    render.table(
        ("token", "name", "scopes", "for", "by", "age", "ends", "state"),
        [
            (
                token["id"],
                token["name"],
                ", ".join(token["scopes"]),
                "a person" if token["person"] else "a program",
                token["created_by"],
                age(token["created_at"]),
                age(token["ends_at"]),
                _ended(token),
            )
            for token in shown
        ],
        flex="scopes",
        drop=("by", "for"),
        empty="no tokens",
    )


@app.command("revoke")
def revoke(
    ctx: typer.Context,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, as `agentcom token list` shows it.")],
    json: Json = False,
) -> None:
    """End a token now; sockets and streams opened with it are closed.

    Example: agentcom token revoke 5f3a9c01
    """
    ended = call(ctx, lambda hub: hub.revoke_token(token), admin=True)
    if json:
        render.document(ended)
        return
    render.say(f"{ended['id']} ({ended['name']}) is revoked")


@app.command("recover")
def recover(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", envvar="AGENTCOM_DATA_DIR", metavar="DIR", help="The hub's; default: the XDG data directory."
        ),
    ] = None,
) -> None:
    """Make a lost administrator's token anew.

    The hub must be stopped. It works for whoever owns the hub's data directory, on the hub's machine.

    Example: agentcom token recover
    """
    from hub.core.errors import HubError
    from hub.first_start import recover_admin
    from hub.settings import default_data_dir
    from hub.telemetry import log

    log.configure(as_json=None, level="warning")
    try:
        file = recover_admin(data_dir or default_data_dir())
    except HubError as fault:
        fail(Exit.REFUSED, str(fault))
    render.say(f"an administrator's token is in {file}")


@enrol.command("create")
def create_enrolment(
    ctx: typer.Context,
    expires: Annotated[
        str, typer.Option("--expires", "-e", metavar="SPAN", help="How long the code is good, at most 1h.")
    ] = "15m",
    json: Json = False,
) -> None:
    """A code with which one machine can join, once.

    Example: agentcom enrol create
    """
    expires_s = span(expires) or 0
    made = call(ctx, lambda hub: hub.create_enrolment(expires_s=expires_s), admin=True)
    if json:
        render.document(made)
        return
    url = target_of(ctx).url
    render.say("On the machine where the agents live, before ", moment(made["expires_at"]), ":")
    # in the environment, where other users of that machine cannot read it, as they can arguments
    render.say(f"  AGENTCOM_ENROL={made['code']} agentcom join {url} --command 'YOUR-AGENT {{prompt_file}}'")
    if is_loopback(url):
        render.say("Use the address under which that machine reaches this hub.", stderr=True)


def _ended(token: Token) -> str:
    if token["revoked_by"] is not None:
        return f"revoked by {token['revoked_by']}"
    return "used" if token["used"] else "" if token["live"] else "expired"
