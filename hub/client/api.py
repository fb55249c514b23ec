"""The client: every route of the hub as a typed method."""

from __future__ import annotations

import hashlib
from contextlib import aclosing, suppress

from hub.client.documents import Status, TaskDetail
from hub.client.errors import HubUnreachable
from hub.client.registered import AgentApi, ChangeApi, ProjectApi, RepoApi
from hub.client.stream import EventApi
from hub.client.tasks import TaskApi
from hub.client.tokens import TokenApi
from hub.ids import TERMINAL


class HubClient(TaskApi, AgentApi, ChangeApi, ProjectApi, RepoApi, EventApi, TokenApi):
    """A hub, as one identity sees it::

        async with HubClient("http://127.0.0.1:8790", token) as hub:
            task = await hub.submit({"title": "Fix the login"})

    Methods raise :class:`~hub.client.errors.HubProblem` or :class:`~hub.client.errors.HubUnreachable`.
    """

    async def status(self) -> Status:
        """Counts of tasks, changes and agents."""
        return await self.ask(Status, "GET", "/status")

    async def until_ended(self, task: str) -> TaskDetail:
        """Wait, without polling, until a task is done, dead or cancelled, also over restarts of the hub; bound it with a timeout."""
        async with aclosing(self.events(task=task)) as items:
            async for _ in items:  # the first says that the stream is open: what is read now misses nothing
                with suppress(HubUnreachable):
                    found = await self.task(task)
                    if found["state"] in TERMINAL:
                        return found
        raise AssertionError("a stream of events ends only when it is closed")

    async def put_blob(self, body: bytes) -> str:
        """Store a body of at most 8 MiB; its SHA-256, under which it is found. Storing it again is nothing."""
        sha256 = hashlib.sha256(body).hexdigest()
        await self.send("PUT", f"/blobs/{sha256}", content=body)
        return sha256

    async def get_blob(self, sha256: str) -> bytes:
        """A stored body."""
        return (await self.send("GET", f"/blobs/{sha256}")).content
