"""``agentcom doctor``: what is wrong here, at the hub and beside the agents, and what to do about it."""

from __future__ import annotations

import asyncio
import json as encoding
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub import __version__
from hub.cli import render, session
from hub.cli.config import ConfigFile, read
from hub.cli.exits import Exit
from hub.cli.render import Cell
from hub.cli.session import Json, Target, find_token, target_of
from hub.ids import FindingState
from hub.wire.address import is_loopback
from hub.wire.finding import Finding, fail, ok, warn

if TYPE_CHECKING:
    from hub.client import HubClient

CLOCK_S = 5.0
"""Difference of clocks that is worth a word; the hub tells its time in whole seconds."""
SIDECAR_S = 120.0
_STYLES = {FindingState.OK: "green", FindingState.WARN: "yellow", FindingState.FAIL: "bold red"}

_TITLES = {"client": "this program", "hub": "the hub", "sidecar": "the sidecar"}
_LETTERS = re.compile(r"\w{2}")

Sides = Mapping[str, Sequence[Finding]]


def mount(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    ctx: typer.Context,
    config: ConfigFile = None,
    sidecar_config: Annotated[
        Path | None,
        typer.Option(
            "--sidecar-config",
            metavar="FILE",
            help="The sidecar's TOML file; default: what agentcom join wrote, if it did.",
            show_default=False,
        ),
    ] = None,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Do what is marked (--fix); needs an administrator."),
    ] = False,
    json: Json = False,
) -> None:
    """Say what is wrong, and what to do about it.

    Examines this program, the hub it talks to (or, if that does not run, its data directory), and a sidecar.
    With --fix nothing is deleted that is not surely spent: what is unknown or does not answer is left alone.

    Example: agentcom doctor --sidecar-config /etc/agentcom/sidecar.toml
    """
    target = target_of(ctx)
    here, hub = asyncio.run(_converse(target, fix=fix))
    if hub is None and is_loopback(target.url):
        from hub.doctor import examine_offline

        hub = examine_offline(read(config).settings, fix=fix)
    joined = session.joined_file()
    beside = sidecar_config or (joined if joined.exists() else None)
    sides: Sides = {"client": here, "hub": hub or (), "sidecar": _sidecar(beside, fix=fix) if beside else ()}
    failed = any(one.state is FindingState.FAIL for found in sides.values() for one in found)
    if json:
        render.document({"ok": not failed, "findings": [{"side": side} | asdict(one) for side in sides for one in sides[side]]})
    else:
        _show(sides)
    raise typer.Exit(Exit.NOT_DONE if failed else Exit.OK)


def _show(sides: Sides) -> None:
    width = max(len(one.check) for found in sides.values() for one in found)
    for side, found in sides.items():
        if found:
            render.heading(_TITLES[side])
        for one in found:
            render.say(Cell(f"  {one.state:<6}", _STYLES[one.state]), f"{one.check:<{width}}  ", one.found)
            if one.fix:
                mark = Cell("  (--fix)", "cyan") if one.fixable else ""
                render.say(" " * (width + 10), Cell("→ ", "dim"), one.fix, mark)
    counts = Counter(one.state for found in sides.values() for one in found)
    render.say("")
    render.say(", ".join(f"{counts[state]} {state}" for state in FindingState))


# ── this program, and the hub that answers ───────────────────────────────────────────────────────────────────────────


async def _converse(target: Target, *, fix: bool) -> tuple[list[Finding], list[Finding] | None]:
    """What this side of the conversation tells, and what the hub tells about itself; None if it does not answer."""
    from hub.client import HubUnreachable

    try:
        async with session.open_client(target, admin=fix) as hub:
            apart_s = await hub.clock()
            here = [ok("hub", f"answers at {target.url}"), judge_clock(apart_s), await _token(hub, target)]
            if here[-1].state is not FindingState.OK:
                return here, []
            version, found = await _examined(hub, fix=fix)
            return [*here, judge_version(version)] if version else here, found
    except HubUnreachable as gone:
        local = "start one: agentcom server start-dev; or name another with --url"
        cure = gone.hint or (local if is_loopback(target.url) else "check the address, and whether the hub runs there")
        return [fail("hub", str(gone), cure), ok("version", __version__)], None


async def _token(hub: HubClient, target: Target) -> Finding:
    from hub.client import HubProblem

    cure = "use --token-file or AGENTCOM_TOKEN; an administrator makes one: agentcom token create NAME --scope operator"
    try:
        me = await hub.whoami()
    except HubProblem as problem:
        if find_token(target) is not None:
            return fail("token", problem.detail, cure)
        # a machine that only has agents needs none
        say = warn if session.joined_file().exists() else fail
        return say("token", "there is none, so the hub itself is not examined", cure)
    ends = f", until {render.moment(me['expires_at'])}" if me["expires_at"] else ""
    return ok("token", f"{me['name']}: {', '.join(me['scopes'])}{ends}")


async def _examined(hub: HubClient, *, fix: bool) -> tuple[str | None, list[Finding]]:
    from hub.client import HubProblem

    try:
        document = await (hub.mend() if fix else hub.examine())
    except HubProblem as problem:
        needed = "an administrator's" if fix else "an operator's"
        return None, [warn("hub", f"does not let this token look: {problem.detail}", f"use {needed} token")]
    return document["version"], [_finding(one) for one in document["findings"]]


def judge_clock(apart_s: float | None) -> Finding:
    """The two clocks."""
    if apart_s is None:
        return warn("clock", "the answer has no date", "see what stands between here and the hub")
    if abs(apart_s) <= CLOCK_S:
        return ok("clock", "like the hub's, to a few seconds")
    side = "ahead of" if apart_s < 0 else "behind"
    return warn("clock", f"{abs(apart_s):.0f} s {side} the hub's", "keep both right with NTP: codes and deadlines are moments")


def judge_version(hubs: str) -> Finding:
    """The version of this program and that of the hub."""
    if hubs == __version__:
        return ok("version", f"{__version__}, like the hub")
    return warn("version", f"{__version__}, the hub is {hubs}", f"install agentcom {hubs} here, or update the hub")


# ── the sidecar ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _sidecar(config: Path, *, fix: bool) -> list[Finding]:
    """What ``python -m sidecar doctor`` says; it is another program, so anything may come back."""
    argv = [sys.executable, "-m", "sidecar", "doctor", "--config", str(config)]
    cure = f"see what it says: {' '.join(argv)}"
    argv += ["--json", *(["--fix"] if fix else [])]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SIDECAR_S, check=False)
        findings: list[Any] = encoding.loads(done.stdout)["findings"]
        return [_finding(one) for one in findings]
    except (OSError, subprocess.TimeoutExpired) as fault:
        return [warn("sidecar", f"its doctor did not answer: {fault}", cure)]
    except (ValueError, KeyError, TypeError):
        said = next((line.strip("│ ") for line in reversed(done.stderr.splitlines()) if _LETTERS.search(line)), "nothing")
        return [warn("sidecar", f"its doctor did not finish; it said: {said[:200]}", cure)]


def _finding(one: Any) -> Finding:
    """A finding as another program tells it; raises ValueError, KeyError or TypeError for anything else."""
    fix = one["fix"]
    return Finding(
        check=str(one["check"]),
        state=FindingState(one["state"]),
        found=str(one["found"]),
        fix=None if fix is None else str(fix),
        fixable=one.get("fixable") is True,
    )
