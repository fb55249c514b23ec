"""How one task is told: what was asked, what happened, what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.cli import render
from hub.cli.render import moment, state, tier

if TYPE_CHECKING:
    from hub.client.documents import Event, TaskDetail

HISTORY_LINES = 15


def story(task: TaskDetail) -> None:
    """Print a task."""
    render.say(render.Cell(task["id"], "bold"), "  ", state(task["state"]), "  ", render.Cell(task["title"], "bold"))
    progress = task["progress"]
    render.facts(
        [
            ("now", task["explanation"]),
            ("progress", None if progress is None else f"{progress['percent'] or 0} % {progress['note']}"),
            ("cause", task["cause"]),
            ("type", task["type"]),
            ("lane", task["lane"]),
            ("project", task["project"]),
            ("repository", f"{task['repo']} @ {task['base'] or 'its base'}" if task["repo"] else None),
            ("agent", task["agent"]),
            ("pinned to", task["assign_to"]),
            ("needs", ", ".join(task["capabilities"])),
            ("tries", f"{task['tries']} of {task['max_tries']} (lost {task['lost']}, rework {task['rework']})"),
            ("not before", moment(task["not_before"])),
            ("deadline", moment(task["deadline"])),
            ("submitted", f"{moment(task['created_at'])} by {task['created_by']}"),
            ("finished", moment(task["finished_at"])),
        ]
    )
    _asked(task)
    _edges(task)
    _attempts(task)
    _talk(task)
    _outcome(task)
    if task["history"]:
        render.heading("history (newest first)")
        for event in task["history"][:HISTORY_LINES]:
            event_line(event)


def event_line(event: Event) -> None:
    """One event on one line."""
    moved = f" {event['from_state'] or 'new'} → {event['to_state']}" if event["to_state"] else ""
    about = "".join(f" {word}" for word in (event["agent"], event["cause"]) if word)
    render.say(
        render.Cell(moment(event["at"]), "dim"), f"  {event['kind']}{moved}{about}", render.Cell(f"  {event['actor']}", "dim")
    )


def _asked(task: TaskDetail) -> None:
    if description := task["spec"].get("description"):
        render.heading("description")
        render.say(description, lines=True)
    for field, title in (("success_criteria", "success criteria"), ("verification", "verification")):
        if entries := task["spec"].get(field):
            render.heading(title)
            for entry in entries:
                render.say("- ", _check(entry) if isinstance(entry, dict) else entry)


def _check(entry: dict[str, object]) -> str:
    argv = entry.get("argv")
    what = " ".join(map(str, argv)) if isinstance(argv, list) else str(entry.get("target") or "")
    return f"{entry.get('kind')} {what}".strip()


def _edges(task: TaskDetail) -> None:
    edges = [("needs", edge) for edge in task["depends_on"]] + [("needed by", edge) for edge in task["needed_by"]]
    if edges:
        render.heading("dependencies")
        rows = [(side, edge["id"], state(edge["state"]), edge["policy"], edge["title"]) for side, edge in edges]
        render.table(("", "task", "state", "if it fails", "title"), rows, empty="")


def _attempts(task: TaskDetail) -> None:
    if not task["attempts"]:
        return
    render.heading("attempts")
    render.table(
        ("lease", "agent", "assigned", "ended", "outcome", "cause", "error"),
        [
            (
                attempt["lease_epoch"],
                attempt["agent"],
                moment(attempt["assigned_at"]),
                moment(attempt["ended_at"]),
                attempt["outcome"],
                attempt["cause"],
                (attempt["error"] or {}).get("code"),
            )
            for attempt in task["attempts"]
        ],
        empty="",
    )


def _talk(task: TaskDetail) -> None:
    for question in task["questions"]:
        render.heading(f"question {question['qid']}")
        render.say(question["text"], lines=True)
        if question["options"]:
            render.say("options: ", " | ".join(question["options"]))
        if question["answer"] is None:
            render.say(f'open: answer it with `agentcom task answer {task["id"]} "…"`')
        else:
            render.say(f"{question['answered_by']}: ", question["answer"], lines=True)
    for feedback in task["feedback"]:
        render.heading(f"feedback after lease {feedback['lease_epoch']} ({feedback['source']})")
        render.say(feedback["text"], lines=True)


def _outcome(task: TaskDetail) -> None:
    result = task["result"]
    if result is not None:
        render.heading("result")
        render.facts(
            [
                ("branch", result["branch"]),
                ("head", result["head_sha"]),
                ("verified", None if result["verification"] is None else str(result["verification"].get("passed"))),
            ]
        )
        if result["output"]:
            render.say(result["output"], lines=True)
    for change in task["changes"]:
        render.heading(f"change {change['id']}")
        render.say(state(change["state"]), ", tier ", tier(change["tier"]), f", head {change['head_sha'][:12]}")
    for salvage in task["salvage"]:
        render.say(f"salvaged from lease {salvage['lease_epoch']}: {salvage['reason']}")
