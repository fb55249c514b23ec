"""Dependencies inside one batch: references resolved, cycles named. Between batches a cycle is impossible (tasks only name older ones)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

from hub.core.commands import NewTask
from hub.core.errors import Fault


def check_refs(tasks: Sequence[NewTask]) -> tuple[dict[str, int], list[Fault]]:
    """Map each ``ref`` to its index and report every duplicate, unknown reference and cycle at once."""
    refs: dict[str, int] = {}
    faults: list[Fault] = []
    for i, task in enumerate(tasks):
        if task.ref is None:
            continue
        if task.ref in refs:
            faults.append(
                Fault(f"tasks.{i}.ref", "duplicate_ref", f"ref {task.ref!r} is already used by item {refs[task.ref]}")
            )
        refs.setdefault(task.ref, i)
    graph: dict[int, list[int]] = {}
    for i, task in enumerate(tasks):
        for k, dep in enumerate(task.depends_on):
            if not isinstance(dep.needs, str):
                continue
            if dep.needs in refs:
                graph.setdefault(i, []).append(refs[dep.needs])
            else:
                known = ", ".join(sorted(refs)) or "none"
                faults.append(
                    Fault(
                        f"tasks.{i}.depends_on.{k}",
                        "unknown_ref",
                        f"no item of this batch has ref {dep.needs!r} (refs: {known})",
                    )
                )
    for cycle in _cycles(graph):
        path = " → ".join(tasks[i].ref or f"item {i}" for i in cycle)
        faults.append(Fault(f"tasks.{cycle[0]}.depends_on", "cycle", f"the dependencies form a cycle: {path}"))
    return refs, faults


def _cycles(graph: dict[int, list[int]]) -> Iterator[list[int]]:
    """Cycles until none is left, no two with a common item: one of each knot, and every knot."""
    left = dict(graph)
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as found:
            cycle: list[int] = found.args[1]
            yield cycle
            left = {i: needs for i, needs in left.items() if i not in cycle}
        else:
            return
