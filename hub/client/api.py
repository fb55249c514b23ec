"""The client: every route of the hub as a typed method."""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import aclosing
from email.utils import parsedate_to_datetime

from hub.client.backups import BackupApi
from hub.client.db import DbApi
from hub.client.documents import Examination, Status, TaskDetail
from hub.client.errors import HubProblem, HubUnreachable
from hub.client.registered import AgentApi, ChangeApi, ProjectApi, RepoApi
from hub.client.salvage import SalvageApi
from hub.client.stream import FIRST_RETRY_S, LAST_RETRY_S, EventApi
from hub.client.tasks import TaskApi
from hub.client.tokens import TokenApi
from hub.client.transport import part
from hub.ids import TERMINAL


class HubClient(TaskApi, AgentApi, ChangeApi, SalvageApi, ProjectApi, RepoApi, EventApi, TokenApi, BackupApi, DbApi):
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
                found = await self.task_at_last(task)
                if found["state"] in TERMINAL:
                    return found
        raise AssertionError("a stream of events ends only when it is closed")

    async def task_at_last(self, task: str, *, patience_s: float | None = None) -> TaskDetail:
        """One task, asked for until the hub answers, also over its restarts.

        Raises HubProblem if the hub refuses, and HubUnreachable when there is no answer for ``patience_s`` (None: never).
        """
        loop, wait_s = asyncio.get_running_loop(), FIRST_RETRY_S
        since = loop.time()
        while True:
            try:
                return await self.task(task)
            except (HubUnreachable, HubProblem) as fault:
                if isinstance(fault, HubProblem) and fault.status < 500:
                    raise
                if patience_s is not None and loop.time() - since >= patience_s:
                    raise
            await asyncio.sleep(wait_s)
            wait_s = min(LAST_RETRY_S, 2 * wait_s)

    async def readiness(self) -> dict[str, bool]:
        """Each check that a ready hub passes; needs no token. ``{"answers": False}`` when something else answers for it."""
        answer = await self.exchange("GET", "/readyz")
        try:
            return dict(answer.json()["checks"])
        except (ValueError, KeyError, TypeError):
            return {"answers": False}

    async def clock(self) -> float | None:
        """How far the hub's clock is ahead of this one, in seconds, to about one; None if the answer has no date."""
        sent = time.time()
        date = (await self.exchange("GET", "/healthz")).headers.get("date")
        return None if date is None else parsedate_to_datetime(date).timestamp() - (sent + time.time()) / 2

    async def examine(self) -> Examination:
        """Have the hub examine itself; it asks every remote, so this may take 20 seconds."""
        return await self.ask(Examination, "GET", "/doctor")

    async def mend(self) -> Examination:
        """Have the hub do what its findings call fixable, and examine itself again."""
        return await self.ask(Examination, "POST", "/doctor")

    async def put_blob(self, body: bytes) -> str:
        """Store a body of at most 8 MiB; its SHA-256, under which it is found. Storing it again is nothing."""
        sha256 = hashlib.sha256(body).hexdigest()
        await self.send("PUT", f"/blobs/{part(sha256)}", content=body)
        return sha256

    async def get_blob(self, sha256: str) -> bytes:
        """A stored body."""
        return (await self.send("GET", f"/blobs/{part(sha256)}")).content
