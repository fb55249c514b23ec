"""``agentcom db``: how the hub's store is, and the work that keeps it small."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from hub.cli import render
from hub.cli.config import ConfigFile, read
from hub.cli.exits import EPILOG, Exit
from hub.cli.render import Cell, size
from hub.cli.session import Json, call, fail
from hub.ids import FindingState

if TYPE_CHECKING:
    from hub.client.db import Compaction, ErrandRound, Pruning, StoreHealth, WouldPrune
    from hub.settings import HubSettings

T = TypeVar("T")

LOOK_AGAIN_S = 0.5
_STYLES = {FindingState.OK: "green", FindingState.WARN: "yellow", FindingState.FAIL: "bold red"}
_KINDS = {"tasks": "ended tasks", "events": "old events", "blobs": "blobs", "salvage": "salvage of unknown tasks"}

app = typer.Typer(help="See how the hub's store is, and keep it small.", no_args_is_help=True, epilog=EPILOG)

NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]
Stopped = Annotated[Path | None, typer.Option("--data-dir", metavar="DIR", help="The data directory of a hub that is stopped.")]
Stop = Annotated[bool, typer.Option("--stop", help="End what is under way, after its present step.")]


@app.command()
def health(ctx: typer.Context, json: Json = False) -> None:
    """How the store is, and what is wrong with it.

    Sizes, free pages, log, growth, the disk, retention, backups and checks. Exits like the doctor: 6 when something failed.

    Example: agentcom db health
    """
    found = call(ctx, lambda hub: hub.db_health())
    failed = any(one["state"] == FindingState.FAIL for one in found["findings"])
    if json:
        render.document({"ok": not failed} | found)
    else:
        _show_health(found)
    raise typer.Exit(Exit.NOT_DONE if failed else Exit.OK)


@app.command()
def compact(
    ctx: typer.Context,
    offline: Annotated[
        bool, typer.Option("--offline", help="Rewrite the store of a hub that is stopped; needs as much room again.")
    ] = False,
    stop: Stop = False,
    no_wait: NoWait = False,
    config: ConfigFile = None,
    data_dir: Stopped = None,
    json: Json = False,
) -> None:
    """Give the free pages of the store back to the disk.

    The hub does so by itself when a fifth of the file is free, in steps that hold nobody up. Ctrl-C stops watching, --stop the work;
    what is given back is given back, and the next time goes on from there. --offline is for files of versions before 0.2.

    Example: agentcom db compact
    """
    if offline:
        _rewrite(read(config, {"data_dir": data_dir}).settings, json=json)
        return
    if stop:
        found = call(ctx, lambda hub: hub.stop_compaction(), admin=True)
    else:
        found = call(ctx, lambda hub: hub.compact(), admin=True)
        if not no_wait:
            found = _watch(lambda: call(ctx, lambda hub: hub.compaction()), found, lambda it: it["round"])
    if json:
        render.document(found)
    else:
        _show_compaction(found)
    _end(found["round"])


@app.command()
def prune(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    stop: Stop = False,
    no_wait: NoWait = False,
    json: Json = False,
) -> None:
    """Delete what is no longer kept: see [retention] in the hub's file.

    The hub does so by itself every hour. Old events go into audit/ in its data directory first.

    Example: agentcom db prune --dry-run
    """
    if dry_run:
        would = call(ctx, lambda hub: hub.would_prune())
        render.document(would) if json else _show_preview(would)
        return
    if stop:
        found = call(ctx, lambda hub: hub.stop_pruning(), admin=True)
    else:
        found = call(ctx, lambda hub: hub.prune(), admin=True)
        if not no_wait:
            found = _watch(lambda: call(ctx, lambda hub: hub.pruning()), found, lambda it: it["round"])
    render.document(found) if json else _show_pruning(found)
    _end(found["round"])


@app.command()
def upgrade(
    config: ConfigFile = None,
    data_dir: Stopped = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    json: Json = False,
) -> None:
    """Bring the store of a stopped hub to this version's schema.

    A backup comes first. The next start of the hub would do the same. Refused while a hub has the store open.

    Example: agentcom db upgrade --dry-run
    """
    from hub import offline
    from hub.core.errors import HubError
    from hub.telemetry import log

    settings = read(config, {"data_dir": data_dir}).settings
    log.configure(as_json=None, level="warning")
    try:
        found = offline.plan_upgrade(settings) if dry_run else offline.upgrade(settings)
    except HubError as refused:
        fail(Exit.REFUSED, str(refused))
    if json:
        render.document(
            {
                "schema": found.found,
                "newest": found.newest,
                "pending": list(found.pending),
                "file_bytes": found.file_bytes,
                "backup_s": round(found.backup_s, 1),
                "done": not dry_run,
            }
        )
        return
    if not found.pending:
        render.say(Cell("ok  ", "green"), f"the store has schema {found.found}, the newest; nothing is to be done")
        return
    verb = "would run" if dry_run else "ran"
    facts: list[tuple[str, render.Value]] = [("schema", f"{found.found} → {found.newest}"), (verb, ", ".join(found.pending))]
    if dry_run:
        facts.append(("after a backup of", f"{size(found.file_bytes)}, about {max(1, round(found.backup_s))} s"))
    render.facts(facts)


# ── screens ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _show_health(found: StoreHealth) -> None:
    growth = found["growth_bytes_per_day"]
    share = found["free_pages"] / found["pages"] if found["pages"] else 0.0
    render.facts(
        [
            ("file", f"{size(found['file_bytes'])}, {size(found['free_bytes'])} of it free ({share:.0%})"),
            ("log", size(found["log_bytes"])),
            ("blobs", size(found["blob_bytes"])),
            ("grows by", "not known yet" if growth is None else f"{size(max(0, round(growth)))} a day"),
            ("disk", f"{size(found['disk_free_bytes'])} free, and {size(found['reserve_held_bytes'])} kept for agents at work"),
        ]
    )
    render.say("")
    width = max(len(one["check"]) for one in found["findings"])
    for one in found["findings"]:
        state = FindingState(one["state"])
        render.say(Cell(f"{state:<6}", _STYLES[state]), f"{one['check']:<{width}}  ", one["found"])
        if one["fix"]:
            render.say(" " * (width + 8), Cell("→ ", "dim"), one["fix"])


def _show_compaction(found: Compaction) -> None:
    before, after, now = found["bytes_before"], found["bytes_after"], found["round"]
    if now is None:
        render.say("nothing was compacted since the hub started")
    elif before is None or after is None:
        render.say(f"{_how(now)}")
    else:
        render.say(f"{_how(now)}: {size(before)} → {size(after)}, in {_steps(now)}")


def _show_pruning(found: Pruning) -> None:
    now = found["round"]
    if now is None:
        render.say("nothing was pruned since the hub started")
        return
    gone = ", ".join(f"{count:,} {_KINDS.get(kind, kind)}" for kind, count in found["pruned"].items() if count)
    render.say(f"{_how(now)}, in {_steps(now)}; since the hub started: {gone or 'nothing'}")


def _show_preview(would: WouldPrune) -> None:
    render.facts(
        [
            ("tasks", f"{would['tasks']:,} would go, with all that belongs to them"),
            ("", f"{would['tasks_needed']:,} are as old, but something still needs them" if would["tasks_needed"] else ""),
            ("blobs", f"{would['blobs']:,} would go"),
            ("events", f"{would['events']:,} would go into audit/"),
        ]
    )


def _how(now: ErrandRound) -> str:
    if now["running"]:
        return "under way"
    if now["error"]:
        return f"failed: {now['error']}"
    return "stopped" if now["stopped"] else "done"


def _steps(now: ErrandRound) -> str:
    return f"{now['steps']} steps of at most {now['longest_hold_ms']:.1f} ms"


def _watch(again: Callable[[], T], found: T, round_of: Callable[[T], ErrandRound | None]) -> T:
    while (now := round_of(found)) is not None and now["running"]:
        time.sleep(LOOK_AGAIN_S)
        found = again()
    return found


def _end(now: ErrandRound | None) -> None:
    if now is not None and now["error"]:
        raise typer.Exit(Exit.NOT_DONE)


def _rewrite(settings: HubSettings, *, json: bool) -> None:
    from hub import offline
    from hub.core.errors import HubError
    from hub.telemetry import log

    log.configure(as_json=None, level="warning")
    try:
        before, after = offline.rewrite(settings)
    except HubError as refused:
        fail(Exit.REFUSED, str(refused))
    if json:
        render.document({"bytes_before": before.bytes, "bytes_after": after.bytes})
    else:
        render.say(f"done: {size(before.bytes)} → {size(after.bytes)}; from now on a running hub can compact it")
