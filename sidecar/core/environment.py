"""The environment an agent gets: an allowlist, never the sidecar's own. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hub.ids import Access

ALWAYS = ("PATH", "HOME", "LANG", "TMPDIR")
"""Passed on when they are set; so is every ``LC_*``."""
NEVER = "AGENTCOM_TOKEN"
"""The sidecar's own credential. No setting can pass it on."""


def agent_environment(
    own: Mapping[str, str], *, allow: Sequence[str], add: Mapping[str, str], workspace: Mapping[str, str], access: Access
) -> dict[str, str]:
    """Compose it: allowed variables of ``own``, then ``add`` from the settings, then what the workspace needs."""
    names = {*ALWAYS, *allow}
    passed = {name: value for name, value in own.items() if name in names or name.startswith("LC_")}
    environment = {**passed, **add, "TERM": "dumb", **workspace, "AGENTCOM_ACCESS": access.value}
    environment.pop(NEVER, None)
    return environment
