"""Did every expectation hold? Compares what the ideas promised with what the hub says, what the agents wrote down and what git has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hub.cli.demo.play import Play
from hub.cli.demo.script import Idea
from hub.cli.demo.stage import Stage
from hub.client.documents import Attempt, TaskDetail


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict: the document of ``--json`` and every broken expectation in words."""

    document: dict[str, Any]
    complaints: tuple[str, ...]


def judge(stage: Stage, play: Play, ideas: tuple[Idea, ...], *, kill_hub: bool) -> Outcome:
    """Look at everything once the play is over (or has run out of time)."""
    complaints: list[str] = []
    tasks, merged, doubled = [], 0, 0
    log = stage.base_log()
    runs = stage.agent_runs()
    for idea in ideas:
        task = play.seen.tasks.get(idea.ref)
        if task is None:
            complaints.append(f"{idea.title}: never seen by the hub")
            continue
        ran = sum(1 for n, *_ in runs if f"t-{n}" == task["id"])
        accepted = sorted(
            (attempt for attempt in task["attempts"] if attempt["accepted_at"] is not None),
            key=lambda attempt: attempt["lease_epoch"],
        )
        merged += any(change["state"] == "merged" for change in task["changes"])
        doubled += ran > idea.runs
        complaints.extend(_complaints(idea, task, ran, len(accepted)))
        tasks.append(
            {
                "id": task["id"],
                "title": task["title"],
                "state": task["state"],
                "agent": accepted[-1]["agent"] if accepted else None,
                "attempts": len(accepted),
                "push_ms": _push_ms(accepted),
                "runs": ran,
            }
        )
    lost = sum(1 for task in tasks if task["state"] != "done") + len(ideas) - len(tasks)
    if kill_hub and stage.hub_restarts != 1:
        complaints.append("the hub was never killed: no two agents were at work at once")
    if not play.seen.approved:
        complaints.append("nothing waited for a person")
    document = {
        "ok": not complaints,
        "tasks": tasks,
        "merged": merged,
        "lost": lost,
        "doubled": doubled,
        "hub_restarts": stage.hub_restarts,
        "base_log": log,
    }
    return Outcome(document, tuple(complaints))


def _complaints(idea: Idea, task: TaskDetail, ran: int, accepted: int) -> list[str]:
    found = []
    if task["state"] != "done":
        found.append(f"{idea.title}: {task['state']} instead of done ({task['explanation']})")
    if accepted != idea.attempts:
        found.append(f"{idea.title}: {accepted} attempts instead of {idea.attempts}")
    if ran != idea.runs:
        found.append(f"{idea.title}: its agent ran {ran} times instead of {idea.runs}")
    last = task["changes"][-1] if task["changes"] else None
    if last is None or last["state"] != "merged":
        found.append(f"{idea.title}: its change is not merged")
    elif last["tier"] != idea.tier:
        found.append(f"{idea.title}: tier {last['tier']} instead of {idea.tier}")
    return found


def _push_ms(accepted: list[Attempt]) -> float | None:
    """From the committed claim to the sidecar's journalled acceptance of the first attempt, in milliseconds."""
    if not accepted or accepted[0]["accepted_at"] is None:
        return None
    took = datetime.fromisoformat(accepted[0]["accepted_at"]) - datetime.fromisoformat(accepted[0]["assigned_at"])
    return round(took.total_seconds() * 1000, 1)
