"""How one task is told: what was asked, what happened, what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.cli import render
from hub.cli.render import age, moment, state, tier, took
from hub.cli.salvage import where

if TYPE_CHECKING:
    from hub.client.documents import Attempt, Event, TaskDetail

HISTORY_LINES = 15
TOLD = ("in_review", "done", "dead", "cancelled")
"""States whose explanation says what the code of the last step would."""


def story(task: TaskDetail, base: str | None) -> None:
    """Print a task; ``base`` is the branch it starts from, its own or its repository's."""
    render.say(render.Cell(task["id"], "bold"), "  ", state(task["state"]), "  ", render.Cell(task["title"], "bold"))
    progress, cause = task["progress"], task["cause"]
    render.facts(
        [
            ("now", task["explanation"]),
            ("progress", None if progress is None else f"{progress['percent'] or 0} % {progress['note']}"),
            ("cause", None if task["state"] in TOLD or (cause is not None and cause in task["explanation"]) else cause),
            ("type", task["type"]),
            ("lane", task["lane"]),
            ("project", task["project"]),
            ("repository", f"{task['repo']}, base {base}" if task["repo"] else None),
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
        render.part(("", "task", "state", "if it fails", "title"), rows, flex="title", drop=("if it fails",))


def _attempts(task: TaskDetail) -> None:
    if not task["attempts"]:
        return
    render.heading("attempts")
    render.part(
        ("lease", "agent", "assigned", "took", "outcome", "cause", "error"),
        [
            (
                attempt["lease_epoch"],
                attempt["agent"],
                age(attempt["assigned_at"]),
                took(attempt["assigned_at"], attempt["ended_at"]),
                attempt["outcome"],
                None if attempt["cause"] == attempt["outcome"] else attempt["cause"],
                _error(attempt),
            )
            for attempt in task["attempts"]
        ],
        flex="error",
        drop=("took", "assigned"),
    )


def _error(attempt: Attempt) -> str | None:
    """Code and message of how it failed, the code only where the cause has not said it already."""
    error = attempt["error"] or {}
    code = error.get("code")
    return ": ".join(str(part) for part in (None if code == attempt["cause"] else code, error.get("message")) if part)


def ask(task: TaskDetail) -> None:
    """Print what the agent wants to know and how to answer, and nothing when it wants nothing."""
    for question in task["questions"] if task["state"] == "blocked" else ():
        if question["answer"] is None:
            render.say("question: ", question["text"], lines=True)
            if question["options"]:
                render.say("options: ", " | ".join(question["options"]))
            render.say(f'answer it with: agentcom task answer {task["id"]} "…"')


def _talk(task: TaskDetail) -> None:
    for question in task["questions"]:
        render.heading(f"question {question['qid']}")
        render.say(question["text"], lines=True)
        if question["options"]:
            render.say("options: ", " | ".join(question["options"]))
        if question["answer"] is None and task["state"] != "blocked":
            render.say("never answered")
        elif question["answer"] is None:
            render.say(f'open; answer it with: agentcom task answer {task["id"]} "…"')
        else:
            render.say(f"{question['answered_by']}: ", question["answer"], lines=True)
    for feedback in task["feedback"]:
        render.heading(f"feedback after lease {feedback['lease_epoch']} ({feedback['source']})")
        render.say(feedback["text"], lines=True)


def _outcome(task: TaskDetail) -> None:
    result = task["result"]
    if result is not None:
        report = result["verification"]
        found = [
            ("branch", result["branch"]),
            ("head", result["head_sha"]),
            ("verified", None if report is None else "yes" if report.get("passed") else "no"),
        ]
        checks = report.get("checks", []) if report is not None else []
        if checks or any(value for _, value in found):
            render.heading(f"result of lease {result['lease_epoch']}")
            render.facts(found)
            for check in checks:
                render.say(f"  {check.get('status')}  {check.get('kind')} {check.get('target') or ''}".rstrip())
        if result["output"]:
            render.heading(f"output of the agent (lease {result['lease_epoch']})")
            render.say(result["output"], lines=True)
    for change in task["changes"]:
        render.heading(f"change {change['id']}")
        told = change["cause"] is None or change["cause"] in task["explanation"]
        cause = "" if told else f": {change['cause']}"
        render.say(state(change["state"]), cause, ", tier ", tier(change["tier"]), f", head {change['head_sha'][:12]}")
        if change["state"] == "waiting":
            render.say(f"decide with: agentcom change approve {change['id']}")
    if task["salvage"]:
        render.heading("work that was kept")
        render.part(
            ("record", "state", "outcome", "agent", "branch", "why"),
            [
                (kept["id"], state(kept["state"]), kept["outcome"], kept["agent"], where(kept), kept["reason"])
                for kept in task["salvage"]
            ],
            flex="why",
            drop=("outcome", "agent"),
        )
        if any(kept["state"] == "open" for kept in task["salvage"]) and task["state"] != "done":
            render.say(f"look: agentcom salvage show {task['salvage'][0]['id']}")
