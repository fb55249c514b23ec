"""Salvaged work over HTTP. A record is named by its task and lease: ``t-17/3``."""

from __future__ import annotations

from hub.client.documents import SalvageDetail, SalvagePage, TaskAnswer
from hub.client.transport import Transport, given, part


class SalvageApi(Transport):
    """Read work that was not applied, and decide about it."""

    async def salvage(
        self, *, task: str | None = None, open_only: bool = False, cursor: str | None = None, limit: int | None = None
    ) -> SalvagePage:
        """One page, newest task first; ``open_only``: what waits for a decision and whose task is not done."""
        params = given(task=task, open="true" if open_only else None, cursor=cursor, limit=limit)
        return await self.ask(SalvagePage, "GET", "/salvage", params=params)

    async def salvaged(self, record: str) -> SalvageDetail:
        """One record (``t-17/3``) with what its commits change."""
        return await self.ask(SalvageDetail, "GET", _path(record))

    async def apply_salvage(self, record: str, *, force: bool = False) -> TaskAnswer:
        """Adopt it under a new lease; with ``force`` a running attempt is stopped first, and the answer is pending."""
        return await self.ask(TaskAnswer, "POST", _path(record) + "/apply", body={"force": force})

    async def drop_salvage(self, record: str, reason: str) -> SalvageDetail:
        """Close it without using it."""
        return await self.ask(SalvageDetail, "POST", _path(record) + "/drop", body={"reason": reason})


def _path(record: str) -> str:
    task, _, lease_epoch = record.partition("/")
    return f"/salvage/{part(task)}/{part(lease_epoch)}"
