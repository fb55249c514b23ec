"""``agentcom backup``: whole copies of a hub's store, by a running hub or beside a stopped one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from hub.cli import render
from hub.cli.config import ConfigFile, read
from hub.cli.exits import EPILOG, Exit
from hub.cli.render import Cell, age, moment, size
from hub.cli.session import Json, call, fail
from hub.ids import TERMINAL, TaskState

if TYPE_CHECKING:
    from hub.client.backups import Backup
    from hub.settings import HubSettings

app = typer.Typer(help="Make, check and restore backups.", no_args_is_help=True, epilog=EPILOG)

KEY_NOTE = "whoever has a backup has the hub's key: keep it where its data directory could be kept"
ELSEWHERE = "not in it: clones and branches (the remotes have them), sidecars' journals, TLS certificates, hub.toml"
OFFLINE = "Of a stopped hub, or without asking it: its data directory."

MAX_SHOWN = 20
"""Lost tasks on the screen; the file has all of them."""

GATEKEEPER = "gatekeeper"
"""Who submits the checks of merge candidates: nobody has to do so again."""

Offline = Annotated[Path | None, typer.Option("--data-dir", metavar="DIR", help=OFFLINE)]
Name = Annotated[str | None, typer.Argument(metavar="[BACKUP]", help="Its name, as `agentcom backup list` shows it.")]
Newest = Annotated[bool, typer.Option("--newest", help="The newest one.")]


@app.command("create")
def create(ctx: typer.Context, json: Json = False) -> None:
    """Make a backup of the running hub, verified before it is named.

    Work goes on meanwhile. It holds the store and the hub's key.

    Example: agentcom backup create
    """
    made = call(ctx, lambda hub: hub.create_backup(), admin=True)
    if json:
        render.document(made)
        return
    render.say(Cell(made["name"], "bold"), f"  {size(made['bytes'] or 0)}, {_holds(made)}")
    render.facts([("in", made["path"]), ("verified", moment(made["verified_at"]))])
    render.note(KEY_NOTE)
    render.note(ELSEWHERE)


@app.command("list")
def listing(ctx: typer.Context, config: ConfigFile = None, data_dir: Offline = None, json: Json = False) -> None:
    """Backups, newest first; also what looks like one and is none.

    Example: agentcom backup list --data-dir /var/lib/agentcom
    """
    found = (
        call(ctx, lambda hub: hub.backups(), admin=True)["backups"] if _online(config, data_dir) else _shelved(config, data_dir)
    )
    if json:
        render.document({"backups": found})
        return
    render.table(
        ("backup", "age", "why", "size", "tasks", "up to", "event", "verified", "state"),
        [
            (
                backup["name"],
                age(backup["created_at"]),
                backup["reason"] or "",
                size(backup["bytes"]) if backup["bytes"] is not None else "",
                sum((backup["tasks"] or {}).values()) if backup["fault"] is None else "",
                f"t-{backup['last_task']}" if backup["last_task"] else "",
                backup["last_event"] or "",
                age(backup["verified_at"]),
                Cell(backup["fault"], "bold red") if backup["fault"] else Cell("good", "green"),
            )
            for backup in found
        ],
        flex="state",
        drop=("why", "event", "verified"),
        empty="no backups",
    )


@app.command("verify")
def verify(
    ctx: typer.Context,
    backup: Name = None,
    newest: Newest = False,
    config: ConfigFile = None,
    data_dir: Offline = None,
    json: Json = False,
) -> None:
    """Check all of a backup.

    Its files are compared with their digests, and the store in it is opened and checked. Exits with 6 when it is not whole.

    Example: agentcom backup verify --newest
    """
    if _online(config, data_dir):
        name = backup or _newest(ctx, call(ctx, lambda hub: hub.backups(), admin=True)["backups"], newest=newest)
        found: Mapping[str, Any] = call(ctx, lambda hub: hub.verify_backup(name), admin=True)
    else:
        found = _verified(config, data_dir, backup or _newest(ctx, _shelved(config, data_dir), newest=newest))
    if json:
        render.document(found)
    elif found["fault"] is None:
        render.say(Cell(found["name"], "bold"), " is whole: ", _holds(found))
    else:
        render.say(Cell(found["name"], "bold"), Cell(" is not whole: ", "bold red"), found["fault"])
    raise typer.Exit(Exit.OK if found["fault"] is None else Exit.NOT_DONE)


@app.command("restore")
def restore(
    backup: Name = None,
    newest: Newest = False,
    config: ConfigFile = None,
    data_dir: Offline = None,
    json: Json = False,
) -> None:
    """Go back to a backup. The hub must be stopped.

    The backup is checked first. The store that is there is kept aside, not deleted, and what is newer in it is read as far as
    that is possible, and written to a file. An interrupted restore is finished by the same command, or by starting the hub.

    Example: agentcom backup restore --newest --data-dir /var/lib/agentcom
    """
    from hub.core.errors import HubError
    from hub.recovery import restore as put_back

    if (backup is None) is not newest:
        fail(Exit.USAGE, "name a backup, or say --newest", "agentcom backup list --data-dir DIR")
    try:
        done = put_back(_settings(config, data_dir), backup)
    except HubError as fault:
        fail(Exit.REFUSED, str(fault))
    if json:
        render.document(done)
    else:
        show_restored(done)


def show_restored(done: Mapping[str, Any]) -> None:
    """What is back, what is lost, what may still come, and what to do next."""
    render.say(Cell("restored ", "bold green"), Cell(done["backup"], "bold"), f", made {moment(done['made_at'])}")
    render.facts(
        [
            ("back", f"{sum(done['tasks'].values())} tasks up to t-{done['last_task']}, event {done['last_event']}"),
            ("kept aside", done["kept"] or "nothing: there was no store"),
            ("key", "the backup's; the other is kept aside" if done["key_replaced"] else ""),
        ]
    )
    render.heading("Lost, unless it comes back")
    for line in _lost(done):
        render.say("  ", line)
    render.heading("What comes back by itself")
    render.say(
        f"  {done['held']} tasks were with agents: those that still work on them go on, and finished results are applied."
    )
    render.say(
        "  Nothing is given out until every agent could say what it holds; see agentcom task explain, and agentcom doctor."
    )
    render.heading("Tokens")
    render.say("  Those made after the backup open nothing: their machines and people get 401, and need new ones.")
    if done["ended_tokens"]:
        render.say(
            "  Ended again, as the old store says: ", ", ".join(f"{one['id']} ({one['name']})" for one in done["ended_tokens"])
        )
    render.say(
        Cell("  Those revoked after the backup may be alive again. ", "bold yellow"),
        "Look through them, and end what must not be:",
    )
    render.part(
        ("token", "name", "scopes"),
        [(one["id"], one["name"], ", ".join(one["scopes"])) for one in done["live_tokens"]],
        flex="scopes",
        indent=4,
    )
    render.say("  agentcom token revoke TOKEN", Cell("  # once the hub runs again", "dim"))
    render.heading("Next")
    render.say("  agentcom server start", Cell("        # or start-dev, or its service", "dim"))
    render.say("  agentcom doctor", Cell("              # says what sidecars brought since", "dim"))


def _lost(done: Mapping[str, Any]) -> list[str]:
    if not done["old_readable"]:
        return [f"everything after {moment(done['made_at'])}: the old store could not be read at all"]
    if done["lost_until_event"] is None:
        since = f"nothing that can be read: the old store holds no event after {done['last_event']}"
    else:
        since = (
            f"{done['lost_events']} events, {done['last_event'] + 1} to {done['lost_until_event']}, "
            f"until {moment(done['lost_until'])}"
        )
    lines = [since + (f" ({done['old_gaps']} places could not be read)" if done["old_gaps"] else "")]
    shown = done["lost_tasks"][:MAX_SHOWN]
    lines += [f"t-{one['task']} {one['title']}, by {one['by']}: {_advice(one)}" for one in shown]
    if (more := len(done["lost_tasks"]) - len(shown)) > 0:
        lines.append(f"and {more} more tasks")
    if done["lost_file"] is not None:
        lines.append(f"all of it, one JSON object a line: {done['lost_file']}")
    return lines


def _advice(lost: Mapping[str, Any]) -> str:
    """What to do about a task that the backup does not have, by what became of it."""
    if lost["by"] == GATEKEEPER:
        return "made again when a change needs it"
    if lost["state"] == TaskState.DONE:
        return "it was done, so look at the base branch before you submit it again"
    if lost["state"] in TERMINAL:
        return f"it had ended: {lost['state']}"
    return "submit it again"


def _holds(backup: Mapping[str, Any]) -> str:
    tasks = sum((backup["tasks"] or {}).values())
    return f"{tasks} {'task' if tasks == 1 else 'tasks'} up to t-{backup['last_task']}, event {backup['last_event']}"


def _newest(ctx: typer.Context, found: list[Backup], *, newest: bool) -> str:
    if not newest:
        raise typer.BadParameter("name a backup, or say --newest", ctx=ctx)
    good = next((backup["name"] for backup in found if backup["fault"] is None), None)
    if good is None:
        fail(Exit.NOT_FOUND, "there is no backup", "agentcom backup create")
    return good


# ── without a hub ────────────────────────────────────────────────────────────────────────────────────────────────────


def _online(config: Path | None, data_dir: Path | None) -> bool:
    return config is None and data_dir is None


def _settings(config: Path | None, data_dir: Path | None) -> HubSettings:
    from hub.telemetry import log

    log.configure(as_json=None, level="warning")
    return read(config, {"data_dir": data_dir}).settings


def _shelved(config: Path | None, data_dir: Path | None) -> list[Backup]:
    from hub.recovery import shelved

    return cast("list[Backup]", shelved(_settings(config, data_dir)))


def _verified(config: Path | None, data_dir: Path | None, name: str) -> Backup:
    from hub.recovery import verified
    from hub.store.backups import UnknownBackup

    try:
        return cast("Backup", verified(_settings(config, data_dir), name))
    except UnknownBackup as fault:
        fail(Exit.NOT_FOUND, str(fault), "agentcom backup list")
