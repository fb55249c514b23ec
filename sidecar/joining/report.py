"""What ``join`` and ``leave`` say while they go: numbered lines for people, one JSON object a line for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from hub.ids import FindingState
from hub.wire.finding import Finding
from sidecar import terminal
from sidecar.terminal import entry, say, state, styled

NAME_WIDTH = 14
INDENT = 5


class Report:
    """The lines of one command with ``total`` steps."""

    def __init__(self, total: int, *, as_json: bool) -> None:
        self._total = total
        self._as_json = as_json
        self._number = 0

    def step(self, name: str, word: str, detail: str = "", findings: Sequence[Finding] = (), log: str = "") -> None:
        """One step's end: ``word`` is ok, skip or fail."""
        self._number += 1
        if self._as_json:
            document = {"step": self._number, "of": self._total, "name": name, "state": word, "detail": detail}
            extra = {"findings": [asdict(finding) for finding in findings], **({"log": log} if log else {})}
            terminal.document({**document, **extra}, line=True)
            return
        number = styled(f"{self._number}/{self._total}", bold=True)
        head = f"{number}  {name:<{NAME_WIDTH}} {state(word)}{'  ' if detail else ''}"
        entry(head, INDENT + NAME_WIDTH + 1 + len(word) + 2, detail)
        self._findings(findings)
        if log:
            say(" " * INDENT, styled("the end of the sidecar's log:", bold=True))
            for line in log.splitlines():
                say(" " * INDENT, styled(line, "bright_black"))

    def end(self, lines: Iterable[tuple[str, str]], **facts: Any) -> None:
        """The last words: labelled lines, or ``facts`` for programs."""
        if self._as_json:
            terminal.document(facts, line=True)
            return
        say("")
        for label, text in lines:
            say(styled(f"{label:<8}", "bright_black"), styled(text))

    def say(self, text: str) -> None:
        """A line below a step, for people."""
        if not self._as_json:
            entry(" " * INDENT, INDENT, text)

    def _findings(self, findings: Sequence[Finding]) -> None:
        width = max((len(finding.check) for finding in findings), default=0)
        for finding in findings:
            mark = f"{'':{INDENT}}{state(finding.state)}{'':{6 - len(finding.state)}}"
            entry(f"{mark}{finding.check:<{width}}  ", INDENT + 6 + width + 2, finding.found)
            if finding.fix is not None and finding.state is not FindingState.OK:
                entry(f"{'':{INDENT + 6}}→ ", INDENT + 8, finding.fix)
