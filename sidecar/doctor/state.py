"""A sidecar's state directory as it lies there: who uses it, what its journals hold, and what no journal knows.

Nothing is concluded from what cannot be read: with one journal missing or damaged, nobody knows what it held, and then
nothing counts as left over. Blocking file I/O; reading changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hub.ids import LeaseEpoch, TaskId, task_ref
from hub.wire.finding import Finding, fail, ok, warn
from sidecar import locks
from sidecar.core.records import Key
from sidecar.journal import read_journals
from sidecar.workspace.git import WorkspaceError
from sidecar.workspace.workdir import Workspace, is_orphan, list_records

NAMED = 5
"""How many of a kind a finding names; it counts all."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a state directory holds.

    ``running``: the pid of the sidecar that uses it, 0 if one does and nobody says which, None if none does. ``held``: the
    unsettled assignments by agent. ``unreadable``: what is wrong with journals and records. ``runs`` and ``workspaces``
    are those that no journal knows, and empty unless all could be read.
    """

    running: int | None
    held: dict[str, frozenset[Key]]
    unreadable: tuple[str, ...]
    aside: tuple[Path, ...]
    runs: tuple[Path, ...]
    workspaces: tuple[Workspace, ...]

    @property
    def settled(self) -> bool:
        """Whether nothing in it waits for the hub, and that is certain."""
        return not self.unreadable and not any(self.held.values())


def take_inventory(state_dir: Path) -> Inventory:
    """Look at a state directory. What is written meanwhile by a running sidecar may be missed, never misjudged."""
    agents = state_dir / "agents"
    # Before the journals: what is in these lists was written down first.
    runs = sorted(agents.glob("*/runs/*"))
    faults: list[str] = []
    try:
        workspaces = list_records(state_dir / "workspaces")
    except (WorkspaceError, OSError) as fault:
        workspaces = ()
        faults.append(str(fault))
    held, unread = read_journals(agents)
    faults += unread
    faults += [f"{one.home} is the work of {one.agent}, which has no journal" for one in workspaces if is_orphan(one, held)]
    if not held and (runs or workspaces):
        faults.append(f"{agents} holds no journal, though there is work beside it")
    known = frozenset[Key]().union(*held.values())
    return Inventory(
        running=user_of(state_dir),
        held=held,
        unreadable=tuple(faults),
        aside=tuple(sorted(agents.glob("*/*.damaged"))),
        runs=() if faults else tuple(run for run in runs if _key_of(run) not in known),
        workspaces=() if faults else tuple(one for one in workspaces if Key(one.task, one.lease_epoch) not in known),
    )


def user_of(state_dir: Path) -> int | None:
    """The pid of the process that holds the directory's lock (0: it is held, nobody can say by whom); None when it is free."""
    return locks.holder(state_dir / "lock")


def findings(found: Inventory, configured: set[str]) -> Iterator[Finding]:
    """What there is to say about a state directory; ``configured`` are the ids of this configuration's agents."""
    yield from _journals(found, configured)
    yield _left_over(
        "runs",
        [
            f"{run.parent.parent.name}/{run.name}{' (its shim lives)' if locks.is_held(run / 'lock') else ''}"
            for run in found.runs
        ],
        "runs that no journal knows",
        found,
    )
    yield _left_over(
        "workspaces",
        [f"{task_ref(one.task)}/{one.lease_epoch}" for one in found.workspaces],
        "workspaces that no journal knows",
        found,
    )


def _journals(found: Inventory, configured: set[str]) -> Iterator[Finding]:
    for fault in found.unreadable:
        yield fail(
            "journals",
            fault,
            "restore the file, or delete the directory to give up what it held; until then nothing is removed",
        )
    for copy in found.aside:
        yield warn("journals", f"a damaged journal is kept in {copy}", "look at it, then delete it")
    for agent, keys in found.held.items():
        if keys and agent not in configured:
            cure = f"configure {agent} again until it has reported them; the hub gives them to others when their leases run out"
            yield warn("journals", f"{agent} is not configured, and holds {_named([_ref(key) for key in sorted(keys)])}", cure)
    if not found.unreadable:
        count = sum(map(len, found.held.values()))
        yield ok("journals", f"{len(found.held)} readable, {count} unsettled assignment{'s' * (count != 1)}")


def _left_over(check: str, names: list[str], what: str, found: Inventory) -> Finding:
    if found.unreadable:
        return warn(check, "what is left over cannot be told", "make every journal readable first: see journals")
    if not names:
        return ok(check, f"no {what}")
    if found.running is not None:
        return warn(check, f"{len(names)} {what}: {_named(names)}", "the running sidecar removes them when it starts next")
    return warn(
        check,
        f"{len(names)} {what}: {_named(names)}",
        "doctor --fix stops and removes them; work is salvaged first",
        fixable=True,
    )


def _named(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _ref(key: Key) -> str:
    return f"{task_ref(key.task)}/{key.lease_epoch}"


def _key_of(run: Path) -> Key | None:
    """The assignment of a run directory, ``<task>-<lease_epoch>-<round>``; None for something else that lies there."""
    task, _, rest = run.name.partition("-")
    epoch = rest.partition("-")[0]
    return Key(TaskId(int(task)), LeaseEpoch(int(epoch))) if task.isdecimal() and epoch.isdecimal() else None
