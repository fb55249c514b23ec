"""Arguments and options that several commands share: references read before anything is sent, and words the shell completes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from hub.cli import render
from hub.ids import AgentState, ChangeState, Lane, TaskState, TaskType, parse_change_ref, parse_salvage_ref, parse_task_ref

COMPLEXITIES = ("trivial", "standard", "complex")


def complete(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Completion from a closed set. The hub itself judges what was written: it takes the words of older systems, too."""
    known = [str(word) for word in words]
    return lambda incomplete: [word for word in known if word.startswith(incomplete)]


def listed(words: Iterable[str]) -> str:
    """``One of a, b or c.``"""
    *first, last = [str(word) for word in words]
    return f"One of {', '.join(first)} or {last}."


def _reference(parse: Callable[[str], object]) -> Callable[[str | None], str | None]:
    def read(value: str | None) -> str | None:
        if value is None:  # while a shell asks for completions, nothing is given yet
            return None
        try:
            parse(value)
        except ValueError as fault:
            raise typer.BadParameter(str(fault)) from None
        return value

    return read


def named(pattern: re.Pattern[str]) -> Callable[[str | None], str | None]:
    """Refuses what can be the name of nothing before anybody is asked."""

    def check(value: str | None) -> str | None:
        if value is not None and pattern.fullmatch(value) is None:
            raise typer.BadParameter(f"{value[:64]!r} is not a name: names are 1 to 64 of a-z 0-9 - _ .")
        return value

    return check


def _key(value: str | None) -> str | None:
    if value is not None and not (value.isascii() and render.clean(value) == value and 0 < len(value) <= 128):
        raise typer.BadParameter("a key is 1 to 128 printable ASCII characters")
    return value


_NEW_TYPES = [kind for kind in TaskType if kind is not TaskType.CHECK]

TaskRef = Annotated[str, typer.Argument(metavar="TASK", help="t-17 or 17.", callback=_reference(parse_task_ref))]
ChangeRef = Annotated[str, typer.Argument(metavar="CHANGE", help="c-4 or 4.", callback=_reference(parse_change_ref))]
SalvageRef = Annotated[
    str, typer.Argument(metavar="RECORD", help="t-17/3: a task and its lease.", callback=_reference(parse_salvage_ref))
]
TaskRefOption = Annotated[
    str | None,
    typer.Option("--task", "-t", metavar="TASK", help="Only of this task.", callback=_reference(parse_task_ref)),
]
LaneWord = Annotated[str | None, typer.Option("--lane", "-l", metavar="LANE", help=listed(Lane), autocompletion=complete(Lane))]
TaskStateWord = Annotated[
    str | None,
    typer.Option("--state", "-s", metavar="STATE", help=listed(TaskState), autocompletion=complete(TaskState)),
]
ChangeStateWord = Annotated[
    str | None,
    typer.Option("--state", "-s", metavar="STATE", help=listed(ChangeState), autocompletion=complete(ChangeState)),
]
AgentStateWord = Annotated[
    str | None,
    typer.Option("--state", "-s", metavar="STATE", help=listed(AgentState), autocompletion=complete(AgentState)),
]
TypeWord = Annotated[
    str | None,
    typer.Option(
        "--type", metavar="TYPE", help="bug, feature …; check shows the internal checks.", autocompletion=complete(TaskType)
    ),
]
NewTypeWord = Annotated[
    str | None,
    typer.Option("--type", metavar="TYPE", help=listed(_NEW_TYPES), autocompletion=complete(_NEW_TYPES)),
]
Complexity = Annotated[
    str | None,
    typer.Option("--complexity", metavar="WORD", help=listed(COMPLEXITIES), autocompletion=complete(COMPLEXITIES)),
]
Key = Annotated[
    str | None,
    typer.Option("--key", metavar="KEY", help="Idempotency key: repeating the command is harmless.", callback=_key),
]
Project = Annotated[str | None, typer.Option("--project", "-p", metavar="PROJECT", help="Only of this project.")]
Repo = Annotated[str | None, typer.Option("--repo", "-r", metavar="REPO", help="Only of this repository.")]
