"""What the gatekeeper asks of a forge, and how a forge fails.

The hub never checks out or executes repository content. Every operation works on objects by id in a bare clone that the hub alone
owns; names that come from agents are checked before they reach git.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hub.core.change import Candidate, LoggedCommit
from hub.core.errors import HubError
from hub.core.risk import Measured


class ForgeError(HubError):
    """A forge could not do what was asked. ``code`` is stable; ``retryable`` tells whether the same may succeed later."""

    code = "forge_failed"
    status = 502
    retryable = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code


class RemoteUnavailable(ForgeError):
    """The remote did not answer, or not in time, or did not let us in: nothing is known about its state."""

    code = "remote_unavailable"
    status = 503
    retryable = True


class GitNotStarted(ForgeError):
    """Git could not be started on this machine: too many processes or open files, no memory."""

    code = "git_not_started"
    status = 503
    retryable = True


class BaseMoved(ForgeError):
    """The base branch is not where it was expected; nothing was pushed."""

    code = "base_moved"
    status = 409
    retryable = True


class PushRejected(ForgeError):
    """The remote itself refuses the push: a hook, a protected branch, a checked-out branch."""

    code = "push_rejected"
    status = 422


class Unusable(ForgeError):
    """The repository, or what it sent, cannot be used as it is; the message names the cure."""

    code = "repository_unusable"
    status = 422


@dataclass(frozen=True, slots=True)
class Remote:
    """A registered repository: ``name`` is the hub's, safe as a directory name; ``url`` as registered."""

    name: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The outcome of merging two commits without a work tree: a tree, or the paths in conflict."""

    tree: str | None
    conflicts: tuple[str, ...] = ()


class Forge(Protocol):
    """One kind of remote. All methods may raise :class:`ForgeError`; commits and trees are named by their full ids."""

    async def probe(self, remote: Remote, base: str) -> None:
        """Raise :class:`Unusable` (with the cure) or :class:`RemoteUnavailable` if changes could not be merged there."""

    async def fetch(self, remote: Remote, branch: str) -> str | None:
        """Bring a branch's objects here, checked by fsck; its head, or None when the remote has no such branch."""

    async def has(self, remote: Remote, sha: str) -> bool:
        """Whether the commit is here."""

    async def contains(self, remote: Remote, tip: str, sha: str) -> bool:
        """Whether ``sha`` is ``tip`` or an ancestor of it; False when ``sha`` is not here."""

    async def merge_bases(self, remote: Remote, one: str, other: str) -> tuple[str, ...]:
        """All best common ancestors; empty for unrelated histories."""

    async def log(self, remote: Remote, base: str, head: str, *, limit: int) -> tuple[LoggedCommit, ...]:
        """Commits of ``head`` that ``base`` has not, oldest first; the newest ``limit``."""

    async def tree_of(self, remote: Remote, commit: str) -> str:
        """The tree of a commit."""

    async def merge(self, remote: Remote, base: str, head: str) -> Merged:
        """Merge two commits into a tree. Attributes, drivers and filters of the repository have no say."""

    async def commit(self, remote: Remote, plan: Candidate) -> str:
        """Write the commit of ``plan`` (its ``sha`` is not read); the same plan always gives the same id."""

    async def measure(self, remote: Remote, old: str, new: str) -> Measured:
        """What lies between two commits or trees."""

    async def diff(self, remote: Remote, old: str, new: str, *, limit_bytes: int) -> str:
        """The same as a unified diff for people, cut off after ``limit_bytes`` with a line that says so."""

    async def publish(self, remote: Remote, branch: str, sha: str) -> None:
        """Put a branch of our own (a candidate) at ``sha``, wherever it was."""

    async def push_base(self, remote: Remote, base: str, *, expected: str, sha: str) -> None:
        """Move the base branch from exactly ``expected`` to its descendant ``sha``.

        Raises :class:`BaseMoved`, :class:`PushRejected`, :class:`RemoteUnavailable` (then it may have happened: look), and
        :class:`Unusable` ``not_a_descendant`` before anything is sent: a lease alone would accept a commit that drops work.
        """

    async def heads(self, remote: Remote, prefix: str) -> Mapping[str, str]:
        """The branches of the remote whose names begin with ``prefix`` (which ends in a slash), each with its commit."""

    def kept(self) -> Sequence[str]:
        """Names of the repositories something is kept of here, also of those that are registered no longer."""

    async def forget(self, name: str) -> None:
        """Drop what is kept of a repository here; it costs a fetch if it is needed again."""

    async def delete(self, remote: Remote, branches: Sequence[tuple[str, str]]) -> None:
        """Delete branches that are still at the given commit; others are left alone. Best effort: a failure is no error."""
