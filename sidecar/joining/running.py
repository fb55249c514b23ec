"""A sidecar that ``join`` runs itself, where no service does, to see whether everything works. It dies with ``join``."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sidecar.runs import sweep

DRAIN_S = 30.0
TAIL_LINES = 20


class Running:
    """At most one sidecar. ``log_file`` gets what it says."""

    def __init__(self, log_file: Path) -> None:
        self.log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, argv: Sequence[str]) -> None:
        """Start it; raises OSError."""
        with self.log_file.open("wb") as log:
            self.log_file.chmod(0o600)
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for join, which then ends it in order
                preexec_fn=sweep.die_with_parent,  # noqa: PLW1509  this process has one thread
            )

    def ended(self) -> str | None:
        """How it ended; None while it runs, or when it is not ours to watch."""
        code = None if self._process is None else self._process.poll()
        return None if code is None else f"the sidecar ended with {code}"

    def stop(self) -> None:
        """Drain it, and wait until it is gone."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(DRAIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log_tail(self) -> str:
        """The last lines of what it said; nothing of an earlier one."""
        if self._process is None:
            return ""
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-TAIL_LINES:])
