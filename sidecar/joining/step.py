"""What a step of joining is given, what it says, and how it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hub.wire.finding import Finding
from sidecar.joining import progress
from sidecar.joining.plan import Plan
from sidecar.joining.progress import Progress
from sidecar.joining.running import Running


class StepError(Exception):
    """The step cannot be done. ``findings`` are its reasons, each with its cure; ``log`` is what the sidecar said last."""

    code = "step_failed"
    retryable = True

    def __init__(self, findings: Sequence[Finding], log: str = "") -> None:
        super().__init__("; ".join(finding.found for finding in findings))
        self.findings = tuple(findings)
        self.log = log


@dataclass(frozen=True, slots=True)
class Outcome:
    """A step that is done, or was not needed (``skipped``)."""

    detail: str
    findings: tuple[Finding, ...] = ()
    skipped: bool = False


@dataclass(slots=True)
class Joining:
    """One ``join`` on its way. ``running`` is the sidecar it starts to see whether all works."""

    plan: Plan
    running: Running
    config_changed: bool = False

    @property
    def token(self) -> str:
        """The machine's credential, or nothing yet."""
        return (read_text(self.plan.token_file) or "").strip()

    @property
    def known(self) -> Progress | None:
        """What an earlier ``join`` did."""
        return progress.read(self.plan.progress_file)

    def note(self, *, user: str | None = None, unit: str | None = None) -> None:
        """Remember what was made on this machine."""
        if (known := self.known) is not None:
            user, unit = known.user if user is None else user, known.unit if unit is None else unit
            progress.write(self.plan.progress_file, replace(known, user=user, unit=unit))


def read_text(path: Path) -> str | None:
    """A file's text; None when there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
