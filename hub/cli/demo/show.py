"""What the audience sees: a live table on a terminal, plain lines elsewhere, and the programme's last page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hub.cli.demo.judge import Outcome
from hub.cli.demo.play import Seen
from hub.cli.demo.script import Idea
from hub.cli.render import Cell, Value, clean, console, say

_STYLES = {"done": "green", "dead": "red", "cancelled": "red", "working": "cyan", "in_review": "magenta", "blocked": "yellow"}


class Show:
    """Prints to standard output, or to standard error when that belongs to ``--json``."""

    def __init__(self, ideas: Sequence[Idea], *, to_stderr: bool) -> None:
        self._ideas = ideas
        self._to_stderr = to_stderr
        self._began = time.monotonic()
        self._seen = Seen()

    def tell(self, line: str) -> None:
        """One line of progress with the time since the curtain rose."""
        self._say(Cell(f"{time.monotonic() - self._began:6.1f}s  ", "dim"), line)

    def _say(self, *parts: Value) -> None:
        say(*parts, stderr=self._to_stderr)

    @contextmanager
    def watching(self, seen: Seen) -> Iterator[None]:
        """Keep a live table below the lines while on a terminal."""
        self._seen = seen
        screen = console(stderr=self._to_stderr)
        if not screen.is_terminal:
            yield
            return
        with Live(self, console=screen, refresh_per_second=8, transient=True):
            yield

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        """The live table."""
        table = Table("task", "lane", "state", "agent", box=None, pad_edge=False)
        for idea in self._ideas:
            state = self._seen.states.get(idea.ref, "not submitted")
            task = self._seen.tasks.get(idea.ref)
            agent = (task["agent"] if task is not None else None) or ""
            table.add_row(idea.title, idea.lane, Text(state, _STYLES.get(state, "dim")), clean(agent))
        yield table

    def report(self, outcome: Outcome, root: Path) -> None:
        """The log of the base branch, the table of tasks, and what did not hold."""
        document = outcome.document
        self._say("")
        self._say("The base branch, newest first:")
        for line in document["base_log"]:
            self._say("  ", line)
        table = Table("task", "title", "agent", "tries", "runs", "push", "result")
        for task in document["tasks"]:
            push = "" if task["push_ms"] is None else f"{task['push_ms']:.1f} ms"
            state = Text(task["state"], _STYLES.get(task["state"], ""))
            agent = clean(task["agent"] or "")
            table.add_row(task["id"], clean(task["title"]), agent, str(task["attempts"]), str(task["runs"]), push, state)
        console(stderr=self._to_stderr).print(table)
        self._say("push: from the committed claim to the sidecar's fsynced acceptance.")
        self._say(
            "runs: counted by the agents themselves; once more to correct a failed verification, or after a killed agent."
        )
        for complaint in outcome.complaints:
            self._say(Cell(f"did not hold: {complaint}", "red"))
        if document["ok"]:
            merged, restarts = document["merged"], document["hub_restarts"]
            killed = f", {restarts} hub killed and restarted" if restarts else ""
            self._say(
                Cell(f"Every expectation held: {merged} changes merged, 0 lost, 0 run without cause{killed}.", "bold green")
            )
        else:
            self._say(Cell(f"Not every expectation held. Everything is left in {root} to look at.", "bold red"))
