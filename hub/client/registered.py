"""Agents, changes, projects and repositories over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hub.client.documents import (
    AgentDetail,
    AgentPage,
    ChangeDetail,
    ChangePage,
    Probe,
    ProbeStarted,
    Project,
    Projects,
    Repo,
    Repos,
    Verification,
)
from hub.client.transport import Transport, given, part


class AgentApi(Transport):
    """Read and steer agents."""

    async def agents(self, *, state: str | None = None, cursor: str | None = None, limit: int | None = None) -> AgentPage:
        """One page by id."""
        return await self.ask(AgentPage, "GET", "/agents", params=given(state=state, cursor=cursor, limit=limit))

    async def agent(self, agent: str) -> AgentDetail:
        """One agent."""
        return await self.ask(AgentDetail, "GET", f"/agents/{part(agent)}")

    async def pause_agent(self, agent: str) -> AgentDetail:
        """No new work for it."""
        return await self.ask(AgentDetail, "POST", f"/agents/{part(agent)}/pause")

    async def resume_agent(self, agent: str) -> AgentDetail:
        """End a pause and a quarantine."""
        return await self.ask(AgentDetail, "POST", f"/agents/{part(agent)}/resume")

    async def release_agent(self, agent: str) -> AgentDetail:
        """Its machine is gone for good: its task goes to others at once, its name is free."""
        return await self.ask(AgentDetail, "POST", f"/agents/{part(agent)}/release")

    async def remove_agent(self, agent: str) -> AgentDetail:
        """It is no part of the hub any more; what it did stays on record."""
        return await self.ask(AgentDetail, "POST", f"/agents/{part(agent)}/remove")

    async def start_probe(self, agent: str) -> ProbeStarted:
        """Have its machine run a task that wakes no agent and costs no tokens."""
        return await self.ask(ProbeStarted, "POST", f"/agents/{part(agent)}/probe")

    async def probe(self, agent: str, task: str) -> Probe:
        """How far that task is; its machine works once ``state`` is done."""
        return await self.ask(Probe, "GET", f"/agents/{part(agent)}/probe/{part(task)}")


class ChangeApi(Transport):
    """Read and review changes. ``change`` is ``c-4`` or ``4``; a review names the head that was seen."""

    async def changes(
        self, *, state: str | None = None, repo: str | None = None, cursor: str | None = None, limit: int | None = None
    ) -> ChangePage:
        """One page, newest first."""
        params = given(state=state, repo=repo, cursor=cursor, limit=limit)
        return await self.ask(ChangePage, "GET", "/changes", params=params)

    async def change(self, change: str) -> ChangeDetail:
        """One change."""
        return await self.ask(ChangeDetail, "GET", f"/changes/{part(change)}")

    async def diff(self, change: str) -> str:
        """The change as a unified diff."""
        return (await self.send("GET", f"/changes/{part(change)}/diff")).text

    async def approve(self, change: str, *, head_sha: str, comment: str = "", confirmed: bool = False) -> ChangeDetail:
        """Approve exactly this head. ``confirmed``: a person looked at it (needed with an operator's token)."""
        body = {"head_sha": head_sha, "comment": comment, "confirmed": confirmed}
        return await self.ask(ChangeDetail, "POST", f"/changes/{part(change)}/approve", body=body)

    async def reject(self, change: str, reason: str, *, final: bool = False) -> ChangeDetail:
        """Send the task back with the reason, or end it with ``final``."""
        body = {"reason": reason, "final": final}
        return await self.ask(ChangeDetail, "POST", f"/changes/{part(change)}/reject", body=body)


class ProjectApi(Transport):
    """Read and edit projects."""

    async def projects(self) -> Projects:
        """All projects."""
        return await self.ask(Projects, "GET", "/projects")

    async def project(self, project: str) -> Project:
        """One project."""
        return await self.ask(Project, "GET", f"/projects/{part(project)}")

    async def create_project(
        self,
        project: str,
        *,
        name: str | None = None,
        description: str | None = None,
        repos: Sequence[str] | None = None,
        default_repo: str | None = None,
        dispatch: str | None = None,
    ) -> Project:
        """Create a project."""
        fields = given(name=name, description=description, repos=repos, default_repo=default_repo, dispatch=dispatch)
        return await self.ask(Project, "POST", "/projects", body={"id": project, **fields})

    async def update_project(self, project: str, changes: dict[str, Any], *, version: int) -> Project:
        """Change the fields named; ``version`` is the one that was read (412 when it is no longer current)."""
        headers = {"If-Match": f'"{version}"'}
        return await self.ask(Project, "PATCH", f"/projects/{part(project)}", body=changes, headers=headers)

    async def pause_project(self, project: str) -> Project:
        """Give out none of its tasks."""
        return await self.ask(Project, "POST", f"/projects/{part(project)}/pause")

    async def resume_project(self, project: str) -> Project:
        """Give out its tasks again."""
        return await self.ask(Project, "POST", f"/projects/{part(project)}/resume")


class RepoApi(Transport):
    """Read and edit repositories."""

    async def repos(self) -> Repos:
        """All repositories."""
        return await self.ask(Repos, "GET", "/repos")

    async def repo(self, repo: str) -> Repo:
        """One repository."""
        return await self.ask(Repo, "GET", f"/repos/{part(repo)}")

    async def add_repo(
        self,
        name: str,
        url: str,
        *,
        base: str | None = None,
        policy: dict[str, Any] | None = None,
        checks: Sequence[Verification] | None = None,
    ) -> Repo:
        """Register a repository."""
        body = {"name": name, "url": url, **given(base=base, policy=policy, checks=checks)}
        return await self.ask(Repo, "POST", "/repos", body=body)

    async def update_repo(self, repo: str, changes: dict[str, Any], *, version: int) -> Repo:
        """Change the fields named; ``version`` is the one that was read (412 when it is no longer current)."""
        headers = {"If-Match": f'"{version}"'}
        return await self.ask(Repo, "PATCH", f"/repos/{part(repo)}", body=changes, headers=headers)

    async def pause_repo(self, repo: str) -> Repo:
        """Give out no task that works in it."""
        return await self.ask(Repo, "POST", f"/repos/{part(repo)}/pause")

    async def resume_repo(self, repo: str) -> Repo:
        """Give out its tasks again."""
        return await self.ask(Repo, "POST", f"/repos/{part(repo)}/resume")
