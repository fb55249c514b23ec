"""Keeps what a release wrote, so that every later one is tested against it.

    .venv/bin/python ops/compat.py freeze 0.1.0                  # of this tree
    .venv/bin/python ops/compat.py freeze 0.1.0 --tree DIR       # of another, such as: git archive v0.1.0 | tar -x -C DIR

Writes tests/compat/releases/VERSION: every frame and journal record as that version encodes it, full and minimal; the schemas its
decoders follow; a store, as SQL, with a task in every state; and the state directory of a sidecar that died at work. A folder is written
once, when its version is released, and never changed. Nothing of a person or a machine is in it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Union, get_args

import orjson
from shapes import full, minimal

ROOT = Path(__file__).resolve().parents[1]
RELEASES = ROOT / "tests" / "compat" / "releases"
PATIENCE_S = 60.0
SIDECAR = "agent-1"
AFTER = "agent-2"
"""The agent that ends while the hub is away: its result waits in its journal."""


def freeze(version: str) -> None:
    """Write the folder with the code on ``sys.path``, which must be that version."""
    import hub  # noqa: PLC0415  the tree that was asked for

    if hub.__version__ != version:
        raise SystemExit(f"this tree is {hub.__version__}, not {version}")
    into = RELEASES / version
    if into.exists():
        raise SystemExit(f"{into} exists: a release is frozen once")
    into.mkdir(parents=True)
    write_samples(into)
    scratch = Path(tempfile.gettempdir()) / f"agentcom-{version}"  # a name that may stay in what is kept
    scratch.mkdir()
    try:
        asyncio.run(_run(scratch, into))
    finally:
        shutil.rmtree(scratch)
    print(f"wrote {into.relative_to(ROOT)}: {sum(1 for path in into.rglob('*') if path.is_file())} files")


# ── what is said and noted ───────────────────────────────────────────────────────────────────────────────────────────────────


def kinds() -> dict[str, dict[str, type[Any]]]:
    """Every declared shape that leaves a process, by where it goes and its name there."""
    from hub.wire import frames, spec  # noqa: PLC0415
    from sidecar.core import records  # noqa: PLC0415

    def named(union: Any, tag: str) -> dict[str, type[Any]]:
        return {kind.__dataclass_fields__[tag].default: kind for kind in get_args(union)}

    return {
        "sidecar": named(frames.FromSidecar, "t"),
        "hub": named(frames.FromHub, "t"),
        "journal": named(records.JournalRecord, "k"),
        "blob": {"spec": spec.Spec},
    }


def write_samples(into: Path) -> None:
    """One file for each shape, and all schemas in one."""
    from pydantic import TypeAdapter  # noqa: PLC0415

    for place, named in kinds().items():
        for name, kind in named.items():
            _write(into / place / f"{name}.json", {"full": full(kind), "minimal": minimal(kind)})
        union: Any = Union[tuple(named.values())]  # noqa: UP007  made of what is declared
        _write(into / "schemas" / f"{place}.json", TypeAdapter(union).json_schema(mode="validation"))


def _write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _job(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"title": "Work", "type": "research", "metadata": {"mock": [*steps]}, **more}


ENDS_WELL = {"do": "no_commit"}
TASKS: dict[str, dict[str, Any]] = {
    "done": _job(ENDS_WELL, assign_to=SIDECAR),
    "dead": _job({"do": "fail", "message": "it cannot be done", "retryable": False}, assign_to=SIDECAR),
    "scheduled": _job(ENDS_WELL, not_before=(datetime.now(UTC) + timedelta(days=3600)).strftime("%Y-%m-%dT%H:%M:%SZ")),
    "waiting": _job(ENDS_WELL, hold=True),
    "cancelled": _job(ENDS_WELL, hold=True),
    "in_review": _job(
        {"do": "change", "path": "a.txt", "text": "a\n", "message": "feat: a"}, type="task", repo="site", assign_to=SIDECAR
    ),
    "working": _job({"do": "slow", "s": 600}, ENDS_WELL, assign_to=SIDECAR),
    "queued": _job(ENDS_WELL, assign_to=SIDECAR),
    "blocked": _job({"do": "question", "qid": "q1", "text": "which?", "options": ["a", "b"]}, ENDS_WELL, assign_to="agent-3"),
    "reported": _job({"do": "slow", "s": 4}, ENDS_WELL, assign_to=AFTER),
}
"""A task that comes to rest in each state; ``reported`` ends while the hub is away."""


async def _run(scratch: Path, into: Path) -> None:
    """A hub and three sidecars of that version, killed at work."""
    from hub.cli.demo.stage import Stage  # noqa: PLC0415

    stage = Stage(scratch, 3)
    try:
        stage.make_repository(None)
        await stage.start_hub()
        for name in (SIDECAR, AFTER, "agent-3"):
            stage.configure_sidecar(name, [])
            await stage.start_sidecar(name)
        numbers = await _work(stage)
        await stage.kill_hub()
        await _until(lambda: _journal_says(scratch / AFTER, b'"k":"result"'), "the result is in the journal")
        for name in (SIDECAR, AFTER, "agent-3"):
            await stage.kill_sidecar(name)
    finally:
        await stage.close()
    _keep_store(scratch, into / "store.sql")
    for name in (SIDECAR, AFTER):
        _keep_sidecar(scratch, name, into / "state" / name)
    _write(into / "manifest.json", {"tasks": numbers, "agents": [SIDECAR, AFTER]})


async def _work(stage: Any) -> dict[str, int]:
    from hub.client import HubClient  # noqa: PLC0415

    async with HubClient(stage.url, stage.admin_token) as hub:
        await hub.add_repo("site", str(stage.remote), base=stage.base)
        await _until(lambda: _all_idle(hub), "three agents are idle")
        numbers = {}
        for state, task in TASKS.items():
            numbers[state] = int((await hub.submit(task))["id"].removeprefix("t-"))
            if state in ("done", "dead", "in_review", "working"):
                await _until(lambda n=numbers[state], state=state: _is(hub, n, state), f"a task is {state}")
        await hub.cancel(f"t-{numbers['cancelled']}", "nobody wants it")
        await _until(lambda: _is(hub, numbers["blocked"], "blocked"), "a task is blocked")
        await _until(lambda: _is(hub, numbers["reported"], "working"), "a task runs that will end without the hub")
    return numbers


async def _is(hub: Any, n: int, state: str) -> bool:
    return bool((await hub.task(f"t-{n}"))["state"] == state)


async def _all_idle(hub: Any) -> bool:
    return [agent["state"] for agent in (await hub.agents())["agents"]] == ["idle"] * 3


async def _journal_says(home: Path, words: bytes) -> bool:
    return any(words in path.read_bytes() for path in (home / "state").rglob("journal"))


async def _until(condition: Any, what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110  other processes are looked at
            await asyncio.sleep(0.1)
    print(f"  {what}")


def _keep_store(scratch: Path, file: Path) -> None:
    """All rows as SQL, without tokens: their digests are of no use to anybody, and look like secrets."""
    with sqlite3.connect(scratch / "hub" / "hub.db") as store:
        version = store.execute("PRAGMA user_version").fetchone()[0]
        lines = [line for line in store.iterdump() if not line.startswith(('INSERT INTO "token', "INSERT INTO token"))]
    text = "\n".join([*lines, f"PRAGMA user_version={version};"]) + "\n"
    for word, instead in ((socket.gethostname(), "machine"), (platform.platform(), "Linux")):
        text = text.replace(f'"{word}"', f'"{instead}"')
    file.write_text(text, "utf-8")


def _keep_sidecar(scratch: Path, name: str, into: Path) -> None:
    """The state directory as it was left, without clones and sockets."""
    state = scratch / name / "state"

    def leave_out(directory: str, names: list[str]) -> set[str]:
        return {one for one in names if one in ("workspaces", "repos") or not _is_plain(Path(directory) / one)}

    shutil.copytree(state, into, ignore=leave_out)
    for order in into.rglob("run.json"):
        told = orjson.loads(order.read_bytes())
        told["argv"] = ["python3", "agent.py"]
        told["env"] = {key: value for key, value in told["env"].items() if key not in ("HOME", "PATH")}
        order.write_bytes(orjson.dumps(told))


def _is_plain(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and not path.is_symlink())


def main() -> None:
    """Freeze a version, of this tree or of another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", choices=["freeze"])
    parser.add_argument("version")
    parser.add_argument("--tree", type=Path, help="whose code is run; default: this one")
    asked = parser.parse_args()
    tree = (asked.tree or ROOT).resolve()
    if os.environ.get("PYTHONPATH") != str(tree):
        again = [sys.executable, str(Path(__file__).resolve()), "freeze", asked.version, "--tree", str(tree)]
        raise SystemExit(subprocess.run(again, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, check=False).returncode)
    freeze(asked.version)


if __name__ == "__main__":
    main()
