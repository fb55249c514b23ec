"""``agentcom task submit``: one task from options, or many from a file."""

from __future__ import annotations

import json as jsonlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from hub.cli import render
from hub.cli.exits import Exit
from hub.cli.session import Json, call, fail

if TYPE_CHECKING:
    from hub.client.documents import NewTask, Submitted, Verification


def mount(app: typer.Typer) -> None:
    """Add the command."""
    app.command("submit")(submit)


def submit(
    ctx: typer.Context,
    title: Annotated[str | None, typer.Argument(help="What is to be done, in one line.")] = None,
    description: Annotated[
        str | None, typer.Option("--description", "-d", help="More words; @FILE reads them, - is stdin.")
    ] = None,
    kind: Annotated[str | None, typer.Option("--type", help="task, bug, feature, refactor, research, documentation …")] = None,
    lane: Annotated[str | None, typer.Option("--lane", "-l", help="urgent, high, normal or low.")] = None,
    project: Annotated[str | None, typer.Option("--project", "-p")] = None,
    repo: Annotated[str | None, typer.Option("--repo", "-r", help="Repository; default: the project's.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="Branch to start from.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="The agent may change nothing.")] = False,
    needs_change: Annotated[
        bool | None, typer.Option("--needs-change/--no-change", help="Whether success needs a commit.")
    ] = None,
    needs: Annotated[list[str] | None, typer.Option("--needs", help="Capability an agent must have (repeatable).")] = None,
    agent: Annotated[str | None, typer.Option("--assign", "-a", help="Pin it to this agent.")] = None,
    after: Annotated[list[str] | None, typer.Option("--after", help="Task that must be done first (repeatable).")] = None,
    not_before: Annotated[str | None, typer.Option("--not-before", help="RFC 3339, or +10m.")] = None,
    deadline: Annotated[str | None, typer.Option("--deadline", help="RFC 3339, or +2h.")] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Wait until released.")] = False,
    verify: Annotated[
        list[str] | None,
        typer.Option("--verify", help='A command, e.g. "pytest -q"; or test_passes, git_clean, no_secrets, file_exists:PATH.'),
    ] = None,
    criterion: Annotated[list[str] | None, typer.Option("--criterion", help="When it counts as done (repeatable).")] = None,
    file: Annotated[list[str] | None, typer.Option("--file", help="A file worth looking at (repeatable).")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Repeatable.")] = None,
    model: Annotated[str | None, typer.Option("--model")] = None,
    complexity: Annotated[str | None, typer.Option("--complexity", help="trivial, standard or complex.")] = None,
    wall_s: Annotated[int | None, typer.Option("--wall", help="Seconds one run may take.")] = None,
    max_tries: Annotated[int | None, typer.Option("--max-tries")] = None,
    unique: Annotated[str | None, typer.Option("--unique", help="At most one live task has this key.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Idempotency key: repeating the command is harmless.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="JSON file with one task or a list of tasks; - is stdin. All or none.")
    ] = None,
    json: Json = False,
) -> None:
    """Submit a task, or a file of tasks.

    Examples: agentcom task submit "Fix the login" --type bug --verify "pytest -q"; agentcom task submit --from ideas.json
    """
    if (title is None) == (source is None):
        fail(Exit.USAGE, "give a title, or tasks with --from FILE", "agentcom task submit --help")
    if source is not None:
        batch = _read_tasks(source)
        _report(call(ctx, lambda hub: hub.submit_batch(batch, idempotency_key=key))["tasks"], json, batch=True)
        return
    fields: dict[str, Any] = {
        "title": title,
        "description": _text(description),
        "type": kind,
        "lane": lane,
        "project": project,
        "repo": repo,
        "base": base,
        "access": "read_only" if read_only else None,
        "needs_change": needs_change,
        "capabilities": needs,
        "assign_to": agent,
        "depends_on": after,
        "not_before": not_before,
        "deadline": deadline,
        "hold": hold or None,
        "verification": [_verification(text) for text in verify or []],
        "success_criteria": criterion,
        "file_hints": [{"path": path} for path in file or []],
        "tags": tag,
        "model": model,
        "complexity": complexity,
        "budget": {"wall_s": wall_s} if wall_s is not None else None,
        "max_tries": max_tries,
        "unique_key": unique,
    }
    task = cast("NewTask", {name: value for name, value in fields.items() if value not in (None, [])})
    _report([call(ctx, lambda hub: hub.submit(task, idempotency_key=key))], json, batch=False)


def _report(tasks: list[Submitted], json: bool, *, batch: bool) -> None:
    if json:
        render.document({"tasks": tasks} if batch else tasks[0])
        return
    for task in tasks:
        render.say(
            render.Cell(task["id"], "bold"),
            " is ",
            render.state(task["state"]),
            "" if task["created"] else " (submitted before)",
        )


def _verification(text: str) -> Verification:
    """``file_exists:PATH``, a kind by its name, or else a command, split as a shell would but never given to one."""
    if text in ("test_passes", "git_clean", "no_secrets"):
        return {"kind": text}
    kind, colon, target = text.partition(":")
    if kind == "file_exists" and colon:
        return {"kind": kind, "target": target}
    try:
        argv = shlex.split(text)
    except ValueError as fault:
        fail(Exit.USAGE, f"--verify {text!r} cannot be split into words: {fault}")
    return {"kind": "command_succeeds", "argv": argv}


def _text(given: str | None) -> str | None:
    if given is None or (given != "-" and not given.startswith("@")):
        return given
    return _read(given.removeprefix("@"))


def _read(source: str) -> str:
    if source == "-":
        return sys.stdin.read()
    try:
        return Path(source).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        fail(Exit.USAGE, f"{source} cannot be read: {fault}")


def _read_tasks(source: str) -> list[NewTask]:
    try:
        found = jsonlib.loads(_read(source))
    except ValueError as fault:
        fail(Exit.USAGE, f"{source} is not valid JSON: {fault}")
    if isinstance(found, dict):
        found = found.get("tasks", [found])
    if not isinstance(found, list):
        fail(Exit.USAGE, f"{source} holds neither a task nor a list of tasks")
    return found
