"""The one message an agent is woken with. Pure; bounded, so that it fits where prompts go."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hub.ids import Access, task_ref
from hub.wire.spec import Salvaged, Spec, Verification

FEEDBACK_CHARS = 16_384
"""How much of the end of each earlier failure is shown."""
FEEDBACK_TOTAL_CHARS = 40_960
"""How much of all of them, newest first."""
OFFER = "Look at it before you start; use what is good of it, or nothing. It was neither reviewed nor merged."
DIRTY_PATHS = 50


def wake_message(
    spec: Spec, *, branch: str | None, conflict: bool = False, correction: str = "", offers: Mapping[int, str] | None = None
) -> str:
    """Everything the agent needs to do the task, complete in itself; ``correction`` is what the last round left wrong.

    ``offers`` names the ref in the clone of each earlier lease whose work is there to look at.

    The words of submitters stand under headings of their own, after the rules, so that they cannot pass for them.
    """
    parts = [
        f"# {task_ref(spec.task)}: {spec.title}",
        "\n".join(f"- {rule}" for rule in _rules(spec, branch, conflict=conflict)),
        _section("Task", spec.description),
        _listed("Success criteria", spec.success_criteria),
        _listed("Files to look at", [f"{hint.path}: {hint.reason}" if hint.reason else hint.path for hint in spec.file_hints]),
        _listed("Your work will be checked by", [_check_line(check) for check in spec.verification]),
        _listed("Questions answered before", [f"{said.text}\n  Answer: {said.answer}" for said in spec.answers]),
        _section("Work of earlier attempts that was not used, newest first", _salvage(spec.salvage, offers or {})),
        _section("What went wrong before, newest last", _feedback(spec.feedback)),
        _section("Correct this now", correction),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def no_change_correction() -> str:
    """For an agent that ended without a commit."""
    return "You ended without a commit, but this task needs a change. Make it, and commit it."


def dirty_correction(dirty: Sequence[str], count: int) -> str:
    """For an agent that left uncommitted files."""
    listed = "\n".join(f"- {shown(path)}" for path in dirty[:DIRTY_PATHS])
    return f"You left {count} uncommitted paths. Commit what belongs to the task and remove the rest:\n{listed}"


def shown(path: str) -> str:
    """A path as one printable line that any encoding of Unicode can hold: file names are bytes of an agent's choice."""
    return re.sub(r"[^\x20-\x7e\xa0-\u2027\u2030-\u205f\u2070-\ud7ff]", "?", path)


def _rules(spec: Spec, branch: str | None, *, conflict: bool) -> list[str]:
    rules = ["Work in the current directory only, and finish without asking for anything that you can find out yourself."]
    if spec.access is Access.READ_ONLY:
        rules.append("This task is read-only: change no file.")
    elif spec.needs_change:
        rules.append(f"Commit your work on the checked-out branch {branch}; do not push. What is not committed does not count.")
    if conflict:
        rules.append("Merging the current base left conflict marks in the tree: resolve and commit them first.")
    return rules


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text.strip()}" if text.strip() else ""


def _listed(title: str, items: Sequence[str]) -> str:
    return _section(title, "\n".join(f"- {item}" for item in items))


def _check_line(check: Verification) -> str:
    what = " ".join(check.argv) or check.target
    return f"{check.kind} {what} {check.description}".strip()[:1024]


def _salvage(kept: Sequence[Salvaged], offers: Mapping[int, str]) -> str:
    if not kept:
        return ""
    return "\n\n".join([OFFER, *(_offer(one, offers.get(one.lease_epoch)) for one in kept)])


def _offer(kept: Salvaged, ref: str | None) -> str:
    by = f" by {kept.agent}" if kept.agent else ""
    parts = [f"Attempt {kept.lease_epoch}{by} ({kept.outcome}): {kept.reason}."]
    if kept.branch is not None:
        what = f"at {kept.head_sha}" if kept.head_sha is not None else "with what it did not commit"
        here = f"; it is here as {ref}: git log HEAD..{ref}, git diff HEAD...{ref}" if ref else "; the remote no longer has it"
        parts.append(f"It left branch {kept.branch} {what}{here}.")
    if kept.summary.strip():
        parts.append("It said:\n" + "\n".join(f"> {line}" for line in kept.summary.strip().splitlines()))
    return "\n".join(parts)


def _feedback(feedback: Sequence[str]) -> str:
    kept: list[str] = []
    room = FEEDBACK_TOTAL_CHARS
    for text in reversed(feedback):
        if room <= 0:
            break
        kept.insert(0, text[-min(room, FEEDBACK_CHARS) :].strip())
        room -= len(kept[0])
    return "\n\n---\n\n".join(kept)
