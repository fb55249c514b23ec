"""What the work on an assignment needs of the world: a place to work in, and somebody who checks it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from hub.ids import Access
from hub.wire.spec import Spec, Verification, VerificationReport
from sidecar.workspace.workspaces import Workspace, WorkState


class WorkspaceKeeper(Protocol):
    """What the work needs of :class:`sidecar.workspace.workspaces.Workspaces`; see there for the contract of each."""

    async def prepare(self, spec: Spec, agent: str) -> Workspace:
        """Make or find the workspace."""
        ...

    def agent_env(self, workspace: Workspace) -> dict[str, str]:
        """What the agent's environment needs for it."""
        ...

    async def inspect(self, workspace: Workspace) -> WorkState | None:
        """What is in it; None without a repository."""
        ...

    async def salvage(self, workspace: Workspace, *, commits: bool = False) -> str | None:
        """Keep what was not pushed on a local ref."""
        ...

    async def push(self, workspace: Workspace, head_sha: str) -> None:
        """Push the head as the lease's branch."""
        ...

    async def push_salvage(self, workspace: Workspace, ref: str) -> str:
        """Offer a salvage at the remote; its branch."""
        ...


class Verifier(Protocol):
    """:func:`sidecar.verify.verify`."""

    def __call__(
        self, workspace: Path, checks: Sequence[Verification], *, env: Mapping[str, str], state: WorkState | None
    ) -> Awaitable[VerificationReport]:
        """Run the checks."""
        ...


class Environment(Protocol):
    """:func:`sidecar.core.environment.agent_environment`, with all that is the same for every run of an agent."""

    def __call__(self, *, workspace: Mapping[str, str], access: Access) -> dict[str, str]:
        """Compose the agent's environment from the workspace's part of it."""
        ...
