"""The systemd unit of a sidecar as text. Pure. ``ops/systemd/agentcom-sidecar.service`` is :data:`EXAMPLE` rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "agentcom-sidecar.service"
HEAD = "# Written by agentcom join; agentcom leave removes it."
PASSED = (
    *("PATH", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"),
    *("https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
)
"""Variables of whoever joins that the service keeps: where programs are, whom to trust, how to get out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What differs between machines. ``root``: a unit of the system, otherwise one of the user at ``home``."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    root: bool
    home: Path

    @property
    def path(self) -> Path:
        """Where systemd looks for it."""
        return Path("/etc/systemd/system" if self.root else self.home / ".config/systemd/user") / NAME

    @property
    def secrets(self) -> Mapping[str, str]:
        """Variables that carry a password: everybody can read a unit, and ask systemd what is in it."""
        return {name: value for name, value in self.environ.items() if name.lower().endswith("_proxy") and "@" in value}


EXAMPLE = Unit(
    argv=("/opt/agentcom/bin/python", "-m", "sidecar", "run", "--config", "/etc/agentcom/sidecar.toml"),
    environ={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
    root=True,
    home=Path("/root"),
)


def secrets_file(unit: Path) -> Path:
    """Beside the unit, for its owner alone: the variables that carry a password."""
    return unit.with_suffix(".env")


def render_secrets(unit: Unit) -> str:
    """That file; empty when there is nothing for it."""
    return "".join(f'{name}="{_escaped(value)}"\n' for name, value in unit.secrets.items())


def render(unit: Unit) -> str:
    """The unit file."""
    network = "Wants=network-online.target\nAfter=network-online.target\n" if unit.root else ""
    shown = ((name, value) for name, value in unit.environ.items() if name not in unit.secrets)
    environment = "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in shown)
    if unit.secrets:
        environment += f"EnvironmentFile={_path(secrets_file(unit.path))}\n"
    return f"""\
{HEAD}
[Unit]
Description=AgentCom sidecar: the AI coding agents of this machine
{network}
[Service]
Type=exec
ExecStart={" ".join(_word(word) for word in unit.argv)}
{environment}# Only the sidecar is stopped: running agents go on under their shims, which hold the deadlines, and are found again.
KillMode=process
TimeoutStopSec=60
Restart=on-failure
RestartSec=5
# 2: the settings are wrong, 4: the hub refuses every agent. Both wait for a person.
RestartPreventExitStatus=2 4

[Install]
WantedBy={"multi-user.target" if unit.root else "default.target"}
"""


def _word(text: str) -> str:
    """A word of a command line; systemd expands $ and %, and knows quotes."""
    text = text.replace("$", "$$")
    return _quoted(text) if not text or set(text) & set(" \t\"'\\;") else text.replace("%", "%%")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{escaped}"'


def _path(path: Path) -> str:
    """The rest of a line: spaces are its own, quotes would be, too."""
    return str(path).replace("%", "%%")


def _escaped(text: str) -> str:
    """Within double quotes of an environment file, as in a shell."""
    return "".join(f"\\{one}" if one in '\\"$`' else one for one in text)
