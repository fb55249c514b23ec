"""systemd, where it runs: the one place that starts ``systemctl``."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from sidecar.files import write_durably
from sidecar.joining.unit import NAME, Unit, render, render_secrets, secrets_file

RUNNING = Path("/run/systemd/system")
"""There exactly where systemd is the init of this machine (sd_booted(3))."""
PATIENCE_S = 90.0
LOG_LINES = 20


class ServiceError(Exception):
    """systemd did not do it; the message is what it said, and ``cure`` what to do."""

    code = "service_failed"
    retryable = True

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Service:
    """The sidecar's unit. ``root``: the system's systemd, otherwise the user's own."""

    path: Path
    root: bool

    @classmethod
    def of(cls, unit: Unit) -> Service:
        """The service of a unit."""
        return cls(unit.path, unit.root)

    @property
    def commands(self) -> dict[str, str]:
        """What a person types."""
        scope, log_scope = ("", "-u") if self.root else ("--user ", "--user-unit")
        name = NAME.removesuffix(".service")
        return {"stop": f"systemctl {scope}stop {name}", "log": f"journalctl {log_scope} {name} -f"}

    def install(self, unit: Unit) -> bool:
        """Write the unit and let it start with the machine; whether anything changed."""
        secrets = render_secrets(unit)
        changed = _write(secrets_file(self.path), secrets, 0o600) if secrets else False
        changed |= _write(self.path, render(unit), 0o644)
        if not secrets:
            secrets_file(self.path).unlink(missing_ok=True)
        self._systemctl("daemon-reload")
        self._systemctl("enable", NAME)
        return changed

    def start(self, *, again: bool) -> None:
        """Start it, or ``again`` with what has changed."""
        self._systemctl("restart" if again else "start", NAME)

    def is_active(self) -> bool:
        """Whether it runs, or is being started."""
        scope = [] if self.root else ["--user"]
        return _run(["systemctl", *scope, "is-active", "--quiet", NAME]).returncode == 0

    def remove(self) -> None:
        """Stop it, and never start it again. What its shims run goes on."""
        self._systemctl("disable", "--now", NAME)
        self.path.unlink(missing_ok=True)
        secrets_file(self.path).unlink(missing_ok=True)
        self._systemctl("daemon-reload")

    def log_tail(self) -> str:
        """The last lines of its log; empty when nobody can say."""
        which = ["-u", NAME] if self.root else ["--user-unit", NAME]
        try:
            done = _run(["journalctl", *which, "-n", str(LOG_LINES), "--no-pager", "-o", "cat"])
        except ServiceError:
            return ""
        return done.stdout

    def _systemctl(self, *words: str) -> None:
        done = _run(["systemctl", *([] if self.root else ["--user"]), *words])
        if done.returncode != 0:
            hint = (
                "" if self.root else "; in a session without a user manager log in directly, or as root: loginctl enable-linger"
            )
            raise ServiceError(
                f"systemctl {' '.join(words)}: {(done.stderr or done.stdout).strip()[-500:]}",
                f"see systemctl status {NAME}, or join with --no-service{hint}",
            )


def _write(path: Path, text: str, mode: int) -> bool:
    """Whether it had to be written."""
    if path.exists() and path.read_text() == text:
        return False
    write_durably(path, text, mode)
    return True


def is_running() -> bool:
    """Whether systemd is there."""
    return RUNNING.is_dir()


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise ServiceError(f"{argv[0]}: {fault}", "join with --no-service") from fault
