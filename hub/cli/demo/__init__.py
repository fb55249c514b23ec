"""``agentcom demo``: ideas become merged changes in front of your eyes, with a real hub, real sidecars and scripted agents.

Needs no key, no account and no network. Everything happens in one directory, which is removed unless ``--keep`` names it.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hub.cli import render

LIMIT_S = 180.0
PACE_S = 2.0


def demo(
    repo: Annotated[
        Path | None,
        typer.Option(help="A git repository to work on a clone of; it is only read. Default: a new one.", exists=True),
    ] = None,
    agents: Annotated[int, typer.Option(help="How many agents work.", min=1, max=16)] = 3,
    kill_hub: Annotated[
        bool, typer.Option("--kill-hub", help="SIGKILL the hub while agents work, and start it again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object as the last line of standard output.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Work in this new directory and leave it.")] = None,
) -> None:
    """Show ideas becoming merged changes: six tasks, a crash, a correction, an approval. Exit 0 only if all of it held.

    Example: agentcom demo --kill-hub
    """
    from hub.cli.demo.stage import StageError

    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise typer.BadParameter(f"{keep} is not empty; name a new directory", param_hint="--keep")
    root = keep if keep is not None else Path(tempfile.mkdtemp(prefix="agentcom-demo-"))
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    held: bool | None = None
    try:
        held = asyncio.run(_perform(root.resolve(), repo, agents, kill_hub=kill_hub, as_json=as_json))
    except asyncio.CancelledError:
        render.say("stopped; everything that was started is gone", stderr=True)
        raise typer.Exit(130) from None
    except StageError as fault:
        render.say(render.Cell("error: ", "bold red"), str(fault), stderr=True)
        held = False
    finally:
        if keep is None and held is not False:  # what failed is left to be looked at
            shutil.rmtree(root, ignore_errors=True)
    raise typer.Exit(0 if held else 1)


async def _perform(root: Path, repo: Path | None, agents: int, *, kill_hub: bool, as_json: bool) -> bool:
    from hub.cli.demo.judge import judge
    from hub.cli.demo.play import Play, on_stage
    from hub.cli.demo.script import ideas
    from hub.cli.demo.show import Show
    from hub.cli.demo.stage import Stage

    script = tuple(ideas(PACE_S))
    stage = Stage(root, agents)
    stage.make_repository(repo)
    async with on_stage(stage):
        play = Play(stage, script, (show := Show(script, to_stderr=as_json)).tell, kill_hub=kill_hub)
        with show.watching(play.seen):
            try:
                await play.run(LIMIT_S)
            except TimeoutError:
                show.tell(f"out of time after {LIMIT_S:g} s")
        outcome = judge(stage, play, script, kill_hub=kill_hub)
    show.report(outcome, root)
    if as_json:
        render.document(outcome.document, line=True)
    return bool(outcome.document["ok"])
