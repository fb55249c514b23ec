"""Committed rows that a command needs beside it, read just before it is applied. Memory overrides them, which closes the race."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace

import orjson

from hub.core.commands import AdoptSalvage, Command, DropSalvage, Facts, Report, Requeue, Submit
from hub.core.scheduler import Wanted
from hub.ids import TaskState
from hub.store.base import Reader
from hub.store.retention import Named


class FactReader:
    """Reads what :meth:`hub.core.scheduler.Scheduler.wanted_facts` asks for."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.named = Named()

    def holding(self, wanted: Wanted) -> AbstractContextManager[frozenset[int]]:
        """Keep what the command names from being pruned until it is committed; gives what is as good as gone already."""
        asked = set(wanted.states)
        if wanted.task is not None:
            asked.add(wanted.task)
        asked.update(of[0] for of in (wanted.attempt, wanted.salvage) if of is not None)
        return self.named.holding(asked)

    async def add(self, command: Command, wanted: Wanted, gone: frozenset[int] = frozenset()) -> Command:
        """The command with its facts; of tasks that are ``gone`` there are none."""
        facts = _without(gone, await self._read(wanted))
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


def _without(gone: frozenset[int], facts: Facts) -> Facts:
    if not gone:
        return facts
    task = facts.task if facts.task is not None and facts.task["n"] not in gone else None
    return replace(
        facts,
        states={n: state for n, state in facts.states.items() if n not in gone},
        task=task,
        deps=facts.deps if task is not None else (),
        attempt=facts.attempt if facts.attempt is not None and facts.attempt["task"] not in gone else None,
        salvage=tuple(row for row in facts.salvage if row["task"] not in gone),
    )
