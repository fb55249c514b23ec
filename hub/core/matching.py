"""Who can do what: requirement sets, classes of agents, and the index of idle agents.

A requirement set is (project, repository, capabilities); a class is (capabilities, projects) of an agent. Both are few, so a claim
looks only at the heads of the matching requirement sets, and a submit only at the heads of the matching classes: neither depends on
how many tasks or agents there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hub.core.agent import Agent
from hub.ids import CHECKS, AgentId


class Requirement(NamedTuple):
    """What an agent must offer."""

    project: str
    repo: str | None
    capabilities: frozenset[str]


class AgentClass(NamedTuple):
    """Agents that can do the same work."""

    capabilities: frozenset[str]
    projects: frozenset[str]

    def serves(self, need: Requirement) -> bool:
        """Whether agents of this class may be given tasks of this requirement set; those that run checks do nothing else."""
        if (CHECKS in self.capabilities) != (CHECKS in need.capabilities):
            return False
        return need.capabilities <= self.capabilities and (not self.projects or need.project in self.projects)


def class_of(agent: Agent) -> AgentClass:
    """The class an agent belongs to now."""
    return AgentClass(agent.capabilities, agent.projects)


def has_checks(need: Requirement) -> bool:
    """Whether these are registered checks of a merge: they hold a repository's merge slot, so nothing of ours may delay them."""
    return CHECKS in need.capabilities


@dataclass(slots=True)
class Idle:
    """Agents believed free and eligible, per class in the order in which they became idle; and per class and warm repository."""

    by_class: dict[AgentClass, dict[AgentId, None]] = field(default_factory=dict)
    warm: dict[tuple[AgentClass, str], dict[AgentId, None]] = field(default_factory=dict)
    listed: dict[AgentId, tuple[AgentClass, str | None]] = field(default_factory=dict)

    def add(self, agent: Agent) -> None:
        """List an agent as free (no effect if it is)."""
        if agent.id in self.listed:
            return
        kind = class_of(agent)
        self.by_class.setdefault(kind, {})[agent.id] = None
        if agent.warm_repo is not None:
            self.warm.setdefault((kind, agent.warm_repo), {})[agent.id] = None
        self.listed[agent.id] = (kind, agent.warm_repo)

    def remove(self, agent: AgentId) -> None:
        """Take an agent off the list (no effect if it is not on it)."""
        entry = self.listed.pop(agent, None)
        if entry is None:
            return
        kind, repo = entry
        members = self.by_class[kind]
        del members[agent]
        if not members:
            del self.by_class[kind]
        if repo is not None:
            warm = self.warm[kind, repo]
            del warm[agent]
            if not warm:
                del self.warm[kind, repo]

    def candidates(self, need: Requirement) -> Iterator[tuple[AgentId, str]]:
        """Free agents for a requirement set with the reason, warm ones first, then the longest idle of each class.

        Lazy, so that taking the first costs the same with a thousand idle agents; do not change the index while iterating.
        """
        kinds = [kind for kind in self.by_class if kind.serves(need)]
        if need.repo is not None:
            for kind in kinds:
                yield from ((agent, "affinity") for agent in self.warm.get((kind, need.repo), ()))
        for kind in kinds:
            yield from ((agent, "least_recently_used") for agent in self.by_class[kind])
