"""Work that was not applied: kept whatever it is, and adopted when a person says so.

Expensive work is never thrown away and never applied twice (protocol §5): a record keeps the whole body, and adopting it is a result
under a fence of its own, so whatever is still said under the old one stays stale. What comes of a change then is the gatekeeper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from hub.core.cluster import Step
from hub.core.commands import Report
from hub.core.dependencies import ended
from hub.core.rows import EventRow, ResultRow, SalvageRow
from hub.core.task import Task, raise_fence
from hub.ids import AgentId, SalvageState, TaskState


def keep(step: Step, task: Task | None, command: Report, why: str, *, applied: bool = False) -> None:
    """Keep a result; ``applied``: its commits went their way, and only what was left uncommitted is kept."""
    has_work = command.has_change and not applied
    step.decision.rows.append(
        SalvageRow(
            command.n,
            command.lease_epoch,
            command.sha256,
            step.stamp.wall,
            why,
            command.body,
            SalvageState.OPEN,
            command.outcome,
            command.agent,
            command.branch if has_work else None,
            command.base_sha,
            command.head_sha if has_work else None,
            command.salvage_ref,
            *(None,) * 4,
        )
    )
    note(step, task, "salvage.kept", command.n, command.lease_epoch, agent=command.agent, why=why)


def note(step: Step, task: Task | None, kind: str, n: int, salvaged_epoch: int, **data: Any) -> None:
    """An event about what was kept of one lease, also of a task that is not in memory, or nowhere."""
    if task is not None:
        step.note(task, kind, salvaged_epoch=salvaged_epoch, **data)
        return
    agent = data.pop("agent", None)
    told = orjson.dumps({"salvaged_epoch": salvaged_epoch, **data}).decode()
    step.decision.events.append(EventRow(step.stamp.wall, kind, step.actor, n, agent, data=told))


def decide(step: Step, row: SalvageRow, state: SalvageState, **changes: Any) -> SalvageRow:
    """Write what was decided about a record. Memory keeps it a while: it is newer than any fact that was read before."""
    now = row._replace(state=state, decided_by=step.actor, decided_at=step.stamp.wall, **changes)
    step.decision.rows.append(now)
    step.cluster.volatile.remember(now)
    return now


def adopt_now(step: Step, task: Task, row: SalvageRow) -> None:
    """The kept work becomes the task's result under a new fence: in review if it is a change, otherwise done.

    Nobody holds the task. Who asked is in the record, for a stop may lie between that and this.
    """
    body = body_of(row)
    task.adopting, task.held, task.parked = None, False, False
    step.withdraw_question(task)
    if task.state in (TaskState.WAITING, TaskState.SCHEDULED):
        step.move(task, TaskState.QUEUED, "task.queued", cause="salvage")
    raise_fence(task, step.cluster.fence_base)
    step.decision.rows.append(
        ResultRow(
            task.n,
            task.lease_epoch,
            str(body.get("output") or ""),
            body.get("output_ref"),
            row.branch,
            row.base_sha if row.head_sha is not None else None,
            row.head_sha,
            orjson.dumps(body.get("commits") or []).decode(),
            None
            if body.get("verification") is None or row.branch == row.salvage_ref
            else orjson.dumps(body["verification"]).decode(),
            row.lease_epoch,
        )
    )
    by = row.decided_by or step.actor
    step.decision.rows.append(now := row._replace(state=SalvageState.APPLIED, applied_epoch=task.lease_epoch, decided_by=by))
    step.cluster.volatile.remember(now)
    to = TaskState.DONE if row.head_sha is None else TaskState.IN_REVIEW
    task.agent_hint = AgentId(row.agent) if row.agent in step.cluster.agents and to is TaskState.IN_REVIEW else None
    step.move(task, to, f"task.{to}", cause="salvaged", salvaged_epoch=row.lease_epoch)
    step.note(task, "salvage.applied", salvaged_epoch=row.lease_epoch, by=by)
    if task.terminal:
        ended(step, task)


def release(step: Step, task: Task) -> None:
    """The task is not to take the work after all: it is open again."""
    assert task.adopting is not None
    row, task.adopting = task.adopting, None
    now = row._replace(state=SalvageState.OPEN, decided_by=None, decided_at=None)
    step.decision.rows.append(now)
    step.cluster.volatile.remember(now)


def body_of(row: SalvageRow) -> Mapping[str, Any]:
    """The kept result; empty for a body that never was one."""
    try:
        body = orjson.loads(row.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
