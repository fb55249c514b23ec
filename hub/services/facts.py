"""Committed rows that a command needs beside it, read just before it is applied. Memory overrides them, which closes the race."""

from __future__ import annotations

from dataclasses import replace

import orjson

from hub.core.commands import AdoptSalvage, Command, DropSalvage, Facts, Report, Requeue, Submit
from hub.core.scheduler import Wanted
from hub.ids import TaskState
from hub.store.base import Reader


class FactReader:
    """Reads what :meth:`hub.core.scheduler.Scheduler.wanted_facts` asks for."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def add(self, command: Command, wanted: Wanted) -> Command:
        """The command with its facts."""
        facts = await self._read(wanted)
        if isinstance(command, Submit | Requeue | Report | AdoptSalvage | DropSalvage):
            return replace(command, facts=facts)
        return command

    async def _read(self, wanted: Wanted) -> Facts:
        reader = self._reader
        if wanted.attempt is not None:
            task, epoch = wanted.attempt
            attempt = await reader.one("attempt_fact", task=task, lease_epoch=epoch)
            kept = await reader.all("salvage_fact", task=task, lease_epoch=epoch) if attempt is None else []
            return Facts(attempt=attempt, salvage=tuple(kept))
        states: dict[int, TaskState] = {}
        idempotent: dict[str, tuple[int, str]] = {}
        row, deps = None, []
        if wanted.task is not None:
            row = await reader.one("task_fact", n=wanted.task)
            deps = await reader.all("deps_fact", n=wanted.task)
        asked = wanted.states | {dep["needs"] for dep in deps}
        if asked:
            found = await reader.all("states_of", ns=orjson.dumps(sorted(asked)).decode())
            states = {item["n"]: TaskState(item["state"]) for item in found}
        if wanted.keys:
            found = await reader.all("idempotent_of", scope=wanted.scope, keys=orjson.dumps(sorted(wanted.keys)).decode())
            idempotent = {item["idem_key"]: (item["n"], item["idem_hash"]) for item in found}
            states.update({item["n"]: TaskState(item["state"]) for item in found})
        kept = []
        if wanted.salvage is not None:
            kept = await reader.all("salvage_fact", task=wanted.salvage[0], lease_epoch=wanted.salvage[1])
        return Facts(states=states, idempotent=idempotent, task=row, deps=tuple(deps), salvage=tuple(kept))
