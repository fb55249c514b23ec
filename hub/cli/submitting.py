"""``agentcom task submit``: one task from options, or many from a file."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from hub.cli import render
from hub.cli.exits import Exit
from hub.cli.inputs import BadInput, Inputs, read_document, read_text
from hub.cli.session import Json, call, fail
from hub.cli.words import Complexity, Key, LaneWord, NewTypeWord

if TYPE_CHECKING:
    from hub.client import HubClient
    from hub.client.documents import NewTask, Submitted, Verification


NOTED_TASKS = 8
"""So many of a batch are looked at for notes."""
_NOBODY = ("queued: no agent has", "queued: no agent offers", "queued: pinned to")
"""Explanations that say that nobody known can take a task."""

Sent = tuple[list["Submitted"], list[str]]
"""What was submitted, and notes about it."""


def mount(app: typer.Typer) -> None:
    """Add the command."""
    app.command("submit")(submit)


def submit(
    ctx: typer.Context,
    title: Annotated[str | None, typer.Argument(metavar="TITLE", help="What is to be done, in one line.")] = None,
    description: Annotated[
        str | None, typer.Option("--description", "-d", metavar="TEXT", help="More words; @FILE reads them, - is stdin.")
    ] = None,
    kind: NewTypeWord = None,
    lane: LaneWord = None,
    project: Annotated[
        str | None, typer.Option("--project", "-p", metavar="PROJECT", help="Default: the project default.")
    ] = None,
    repo: Annotated[
        str | None, typer.Option("--repo", "-r", metavar="REPO", help="Repository; default: the project's.")
    ] = None,
    base: Annotated[str | None, typer.Option("--base", metavar="BRANCH", help="Branch to start from.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="The agent may change nothing.")] = False,
    needs_change: Annotated[
        bool | None, typer.Option("--needs-change/--no-change", help="Whether success needs a commit.")
    ] = None,
    needs: Annotated[
        list[str] | None, typer.Option("--needs", metavar="CAPABILITY", help="Capability an agent must have (repeatable).")
    ] = None,
    agent: Annotated[str | None, typer.Option("--assign", "-a", metavar="AGENT", help="Pin it to this agent.")] = None,
    after: Annotated[
        list[str] | None, typer.Option("--after", metavar="TASK", help="Task that must be done first (repeatable).")
    ] = None,
    not_before: Annotated[str | None, typer.Option("--not-before", metavar="WHEN", help="RFC 3339, or +10m.")] = None,
    deadline: Annotated[str | None, typer.Option("--deadline", metavar="WHEN", help="RFC 3339, or +2h.")] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Wait until released.")] = False,
    verify: Annotated[
        list[str] | None,
        typer.Option(
            "--verify",
            metavar="CHECK",
            help='A command, e.g. "pytest -q"; or test_passes, git_clean, no_secrets, file_exists:PATH.',
        ),
    ] = None,
    criterion: Annotated[
        list[str] | None, typer.Option("--criterion", metavar="TEXT", help="When it counts as done (repeatable).")
    ] = None,
    file: Annotated[
        list[str] | None, typer.Option("--file", metavar="PATH", help="A file worth looking at (repeatable).")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="WORD", help="A word to find it by (repeatable).")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Model the agent is asked to use.")] = None,
    complexity: Complexity = None,
    wall_s: Annotated[int | None, typer.Option("--wall", metavar="SECONDS", help="Seconds one run may take.")] = None,
    max_tries: Annotated[
        int | None, typer.Option("--max-tries", metavar="COUNT", help="Attempts before it is given up.")
    ] = None,
    unique: Annotated[str | None, typer.Option("--unique", metavar="KEY", help="At most one live task has this key.")] = None,
    key: Key = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE", help="JSON file with one task or a list of tasks; - is stdin. All or none."),
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

        async def send_all(hub: HubClient) -> Sent:
            done = (await hub.submit_batch(batch, idempotency_key=key))["tasks"]
            return done, [] if json else await _notes(hub, done)

        _report(call(ctx, send_all), json, batch=True)
        return
    inputs = Inputs()
    fields: dict[str, Any] = {
        "title": title,
        "description": inputs.take(lambda: _text(description), None),
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
        "verification": [inputs.take(partial(_verification, text), None) for text in verify or []],
        "success_criteria": criterion,
        "file_hints": [{"path": path} for path in file or []],
        "tags": tag,
        "model": model,
        "complexity": complexity,
        "budget": {"wall_s": wall_s} if wall_s is not None else None,
        "max_tries": max_tries,
        "unique_key": unique,
    }
    inputs.check()
    task = cast("NewTask", {name: value for name, value in fields.items() if value not in (None, [])})

    async def send(hub: HubClient) -> Sent:
        done = [await hub.submit(task, idempotency_key=key)]
        return done, [] if json else await _notes(hub, done)

    _report(call(ctx, send), json, batch=False)


async def _notes(hub: HubClient, tasks: list[Submitted]) -> list[str]:
    """What may surprise about what was just submitted. The submission stands, so nothing that fails here is an error."""
    from hub.client import HubProblem, HubUnreachable

    found: dict[str, list[str]] = {}

    def note(task: str, words: str) -> None:
        found.setdefault(words, []).append(task)

    try:
        for submitted in tasks[:NOTED_TASKS]:
            task = await hub.task(submitted["id"])
            if not task["repo"]:
                note(task["id"], "no repository is named, so its agent works outside git")
            if task["explanation"].startswith(_NOBODY):
                note(task["id"], task["explanation"].removeprefix("queued: "))
            if task["assign_to"] and task["state"] != "queued" and not await _is_known(hub, task["assign_to"]):
                note(task["id"], f"pinned to {task['assign_to']}, which never connected")
    except (HubProblem, HubUnreachable):
        pass
    return [f"{', '.join(of)}: {words}" for words, of in found.items()]


async def _is_known(hub: HubClient, agent: str) -> bool:
    from hub.client import HubProblem

    try:
        await hub.agent(agent)
    except HubProblem as problem:
        return problem.status != 404
    return True


def _report(sent: Sent, json: bool, *, batch: bool) -> None:
    tasks, notes = sent
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
    for line in notes:
        render.note(line)


def _verification(text: str) -> Verification:
    """``file_exists:PATH``, a kind by its name, or else a command, split as a shell would but never given to one."""
    if text in ("test_passes", "git_clean", "no_secrets"):
        return {"kind": text}
    kind, colon, target = text.partition(":")
    if kind == "file_exists" and not target:
        raise BadInput("--verify file_exists needs :PATH, like file_exists:README.md")
    if kind == "file_exists" and colon:
        return {"kind": kind, "target": target}
    try:
        argv = shlex.split(text)
    except ValueError as fault:
        raise BadInput(f"--verify {text!r} cannot be split into words: {fault}") from None
    if not argv:
        raise BadInput("--verify takes a command or a kind of check, not nothing")
    return {"kind": "command_succeeds", "argv": argv}


def _text(given: str | None) -> str | None:
    if given is None or (given != "-" and not given.startswith("@")):
        return given
    return read_text(given.removeprefix("@"))


def _read_tasks(source: str) -> list[NewTask]:
    inputs = Inputs()
    found: Any = inputs.take(lambda: read_document(source), None)
    inputs.check()
    if isinstance(found, dict):
        found = found.get("tasks", [found])
    if not isinstance(found, list):
        fail(Exit.USAGE, f"{source} holds neither a task nor a list of tasks")
    return found
