"""The environment an agent gets: an allowlist, never the sidecar's own. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hub.ids import Access

ALWAYS = ("PATH", "HOME", "LANG", "TMPDIR")
"""Passed on when they are set; so is every ``LC_*``."""
WHOSE = frozenset({"HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "XDG_RUNTIME_DIR"})
"""What belongs to the user of the sidecar, and is wrong for another."""
NEVER = "AGENTCOM_TOKEN"
"""The sidecar's own credential. No setting can pass it on."""


def agent_environment(
    own: Mapping[str, str],
    *,
    allow: Sequence[str],
    add: Mapping[str, str],
    workspace: Mapping[str, str],
    access: Access,
    identity: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Compose it: allowed variables of ``own``, then ``add`` from the settings, then what the workspace needs.

    ``identity`` says who the agent is when it is another user than the sidecar.
    """
    names = {*ALWAYS, *allow}
    passed = {name: value for name, value in own.items() if name in names or name.startswith("LC_")}
    if identity is not None:
        passed = {**{name: value for name, value in passed.items() if name not in WHOSE}, **identity}
    environment = {**passed, **add, "TERM": "dumb", **workspace, "AGENTCOM_ACCESS": access.value}
    environment.pop(NEVER, None)
    return environment
