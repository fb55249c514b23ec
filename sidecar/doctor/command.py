"""``python -m sidecar doctor``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hub.wire.finding import Finding, failures
from sidecar import logs, terminal
from sidecar.doctor.examination import examine
from sidecar.doctor.repair import close_tokens, remove_left_overs
from sidecar.settings import SettingsError, default_file, load

UNWELL = 6
EPILOG = "Exit codes: 0 nothing failed; 6 something did."
MARK = 6
"""Cells of the state in front of a finding."""


def doctor(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="The sidecar's file; default: /etc/agentcom or the user's, sidecar.toml."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object: {findings: [{check, state, found, fix, fixable}]}.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="First do what is marked fixable; nothing is removed while a journal cannot be read.")
    ] = False,
) -> None:
    """Look at everything a sidecar needs, and say what to do about what is wrong.

    Example: python -m sidecar doctor --config sidecar.toml
    """
    logs.configure("error", "auto")
    file = config or default_file()
    done = _repair(file) if fix else []
    findings = list(examine(file))
    if json:
        terminal.document({"findings": [asdict(finding) for finding in findings], **({"fixed": done} if fix else {})})
    else:
        for line in done:
            terminal.say(terminal.styled("fixed ", "green"), terminal.styled(line))
        show(findings)
    raise typer.Exit(UNWELL if failures(findings) else 0)


def show(findings: Iterable[Finding]) -> None:
    """One line each, and under it the cure of what is not well."""
    shown = list(findings)
    width = max(len(finding.check) for finding in shown)
    for finding in shown:
        mark = terminal.state(finding.state) + " " * (MARK - len(finding.state))
        terminal.entry(f"{mark}{finding.check:<{width}}  ", MARK + width + 2, finding.found)
        if finding.fix is not None:
            terminal.entry(f"{'':{MARK}}→ ", MARK + 2, finding.fix + (" (--fix does it)" if finding.fixable else ""))


def _repair(config: Path) -> list[str]:
    try:
        settings = load(config)
    except SettingsError:
        return []  # the examination says what is wrong with it
    return [*close_tokens(settings), *asyncio.run(remove_left_overs(settings))]
