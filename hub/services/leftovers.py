"""What nobody needs any more: branches of ended tasks on the remotes, and the hub's clones of repositories it no longer serves.

**Nothing is deleted on missing data.** A branch goes only if this hub itself recorded the commit that it points to, in a change that
is over, and the work is on the base branch or was made by the hub. Another hub may use the same remote, and its tasks have the same
numbers; an unreachable remote, an unknown task and an empty list of repositories are reasons to leave everything alone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from hub.forge.base import Forge, ForgeError, Remote
from hub.ids import TERMINAL, ChangeId, ChangeState, LeaseEpoch, TaskId, TaskState
from hub.store import leftovers, repositories
from hub.store.base import Reader
from hub.store.leftovers import ChangeFacts
from hub.store.repositories import RepositoryRecord
from hub.wire.finding import Finding, ok, warn

PREFIX = "agentcom/"
ASK_S = 20.0
"""How long all remotes together may take to answer."""
ASK_AT_ONCE = 8
BRANCHES = 500
"""Branches of one repository that are looked at; the rest waits for the next time."""
NAMED = 5
"""Branches that a finding names."""
_OVER = frozenset({ChangeState.MERGED, ChangeState.REWORK, ChangeState.CLOSED})
_ASSIGNMENT = re.compile(rf"{PREFIX}t-([1-9]\d{{0,15}})/([1-9]\d{{0,8}})")
_CANDIDATE = re.compile(rf"{PREFIX}candidate/([1-9]\d{{0,15}})")


class Fate(Enum):
    """What becomes of a branch."""

    NEEDED = auto()
    """Its task or change is not over."""
    SPENT = auto()
    """What it holds is on the base branch, or was replaced there."""
    UNMERGED = auto()
    """Its task is over, and its work is nowhere else."""
    UNKNOWN = auto()
    """Nothing here knows it, or it was moved by somebody else."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch of a remote, and what becomes of it."""

    name: str
    sha: str
    fate: Fate


def judge_assignment(sha: str, change: ChangeFacts | None, repo: str) -> Fate:
    """The branch of one lease."""
    if change is None or change.repo != repo or change.head_sha != sha:
        return Fate.UNKNOWN
    if change.task_state not in TERMINAL or change.state not in _OVER:
        return Fate.NEEDED
    replaced = change.state is ChangeState.REWORK and change.task_state is TaskState.DONE
    return Fate.SPENT if change.state is ChangeState.MERGED or replaced else Fate.UNMERGED


def judge_candidate(sha: str, change: ChangeFacts | None, repo: str) -> Fate:
    """The branch of a merge that was to be checked: the hub made its commit, of commits that have branches of their own."""
    if change is None or change.repo != repo or change.candidate_sha != sha:
        return Fate.UNKNOWN
    return Fate.SPENT if change.state in _OVER else Fate.NEEDED


class Leftovers:
    """Looks for them, and takes away what is surely spent. ``forges`` by the repository's ``forge``."""

    def __init__(self, reader: Reader, forges: Mapping[str, Forge]) -> None:
        self._reader = reader
        self._forges = forges

    async def examine(self) -> list[Finding]:
        """One finding for the clones, and one or two for each repository."""
        known = await repositories.every(self._reader)
        looked = await self._look(known)
        return [await self._clones(known), *(one for repo in known for one in _branch_findings(repo, looked[repo.name]))]

    async def mend(self) -> None:
        """Delete spent branches, each only while it still points where it was seen, and drop spare clones."""
        known = await repositories.every(self._reader)
        looked = await self._look(known)
        for repo in known:
            found = looked[repo.name]
            spent = [] if isinstance(found, str) else [(one.name, one.sha) for one in found if one.fate is Fate.SPENT]
            if spent:
                await self._forges[repo.forge].delete(Remote(name=repo.name, url=repo.url), spent)
        for forge, name in await self._spare(known):
            await forge.forget(name)

    # ── branches ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _look(self, known: Sequence[RepositoryRecord]) -> dict[str, list[Branch] | str]:
        """The branches by repository, or why they are not known."""
        turn, deadline = asyncio.Semaphore(ASK_AT_ONCE), asyncio.get_running_loop().time() + ASK_S

        async def one(repo: RepositoryRecord) -> list[Branch] | str:
            try:
                async with asyncio.timeout_at(deadline), turn:
                    heads = await self._forges[repo.forge].heads(Remote(name=repo.name, url=repo.url), PREFIX)
            except TimeoutError:
                return f"no answer within {ASK_S:g} s"
            except ForgeError as fault:
                return fault.message
            return [Branch(name, sha, await self._fate(repo.name, name, sha)) for name, sha in sorted(heads.items())[:BRANCHES]]

        answers = await asyncio.gather(*(one(repo) for repo in known))
        return {repo.name: answer for repo, answer in zip(known, answers, strict=True)}

    async def _fate(self, repo: str, name: str, sha: str) -> Fate:
        if found := _ASSIGNMENT.fullmatch(name):
            task, epoch = TaskId(int(found[1])), LeaseEpoch(int(found[2]))
            return judge_assignment(sha, await leftovers.of_assignment(self._reader, task, epoch), repo)
        if found := _CANDIDATE.fullmatch(name):
            return judge_candidate(sha, await leftovers.of_candidate(self._reader, ChangeId(int(found[1]))), repo)
        return Fate.UNKNOWN

    # ── clones ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _clones(self, known: Sequence[RepositoryRecord]) -> Finding:
        kept = [name for forge in self._forges.values() for name in forge.kept()]
        spare = [name for _, name in await self._spare(known)]
        if spare:
            return warn("clones", f"no longer registered: {_some(spare)}", "drop them: they can be fetched again", fixable=True)
        strange = sorted(set(kept) - {repo.name for repo in known})
        if strange:
            return warn(
                "clones", f"not registered, but perhaps still needed: {_some(strange)}", "register them again, or see the log"
            )
        return ok("clones", f"{len(kept)}, all of registered repositories")

    async def _spare(self, known: Sequence[RepositoryRecord]) -> list[tuple[Forge, str]]:
        """Clones of no registered repository that no live task or change names. Without any repository that may be missing data."""
        names = {repo.name for repo in known}
        found = [(forge, name) for forge in self._forges.values() for name in forge.kept() if name not in names]
        return [(forge, name) for forge, name in found if names and not await leftovers.is_wanted(self._reader, name)]


def _branch_findings(repo: RepositoryRecord, found: list[Branch] | str) -> list[Finding]:
    check = f"branches of {repo.name}"
    if isinstance(found, str):
        return [warn(check, f"not known: {found}", f"see why: git ls-remote {repo.url}")]
    by = {fate: [one.name for one in found if one.fate is fate] for fate in Fate}
    findings = []
    if spent := by[Fate.SPENT]:
        findings.append(warn(check, f"of merged or abandoned changes: {_some(spent)}", "delete them", fixable=True))
    if unmerged := by[Fate.UNMERGED]:
        cure = f"look, then: git push {repo.url} --delete {' '.join(unmerged[:NAMED])}"
        findings.append(warn(check, f"of ended tasks, with work that was not merged: {_some(unmerged)}", cure))
    left_alone = f", {len(by[Fate.UNKNOWN])} that this hub does not know" if by[Fate.UNKNOWN] else ""
    return findings or [ok(check, f"{len(by[Fate.NEEDED])} in use{left_alone}")]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
