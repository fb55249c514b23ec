"""Where a task stands, in one line, as far as its records tell: who its change waits for, and why a finished one ended as it did.

What keeps a task from running now is the scheduler's to say; of a task in review or finished it knows little more than the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from hub.core.task import MAX_LOST
from hub.edge.http.fields import rfc3339
from hub.ids import TERMINAL, ChangeState, CheckStatus, SalvageState, TaskState, change_ref, task_ref
from hub.store.task_account import Account, ChangeOfTask

DETAIL_CHARS = 300
"""Of what a check or an agent printed; the task itself shows the rest."""

_ENDINGS = frozenset({"task.stopping", "task.cancelled", "task.completed", "task.dead"})
_BY_HAND = ("cancel", "complete")
_PASSED = (CheckStatus.PASS, CheckStatus.SKIP)
_STATUS = {CheckStatus.FAIL.value: "failed", CheckStatus.TIMEOUT.value: "took too long"}
_HELD = "held"
_RECORDED = frozenset({TaskState.WAITING, TaskState.BLOCKED, TaskState.IN_REVIEW, *TERMINAL})
_CHANGES = {
    ChangeState.OPEN: "is being assessed",
    ChangeState.CHECKING: "waits for its checks",
    ChangeState.MERGING: "is being merged",
    ChangeState.MERGED: "is merged",
    ChangeState.REWORK: "was sent back",
    ChangeState.CLOSED: "is closed",
}


def explain(account: Account, live: str | None) -> str:
    """One line. ``live`` is the scheduler's; it wins where the records are only just being written."""
    state = account.task.state
    spoken = state.replace("_", " ")
    if state not in _RECORDED or (live is not None and not live.startswith(spoken)):
        return live or spoken + _with(account.task.cause)
    if state is TaskState.WAITING:
        return _waiting(account, live or spoken + _with(account.task.cause))
    if state is TaskState.BLOCKED:
        return _blocked(account, live or spoken)
    if state is TaskState.IN_REVIEW:
        return _in_review(account, live)
    return _finished(account)


def said(events: Iterable[tuple[str, str | None]]) -> str | None:
    """The words given with the newest end of a task: a person's reason, or the dependency that ended it.

    ``events`` are kinds and data, newest first. What was said before the task started again is not about its end.
    """
    for kind, data in events:
        if kind == "task.requeued":
            return None
        if kind in _ENDINGS and data is not None:
            words: Mapping[str, Any] = orjson.loads(data)
            if found := words.get("reason") or words.get("why"):
                return str(found)
    return None


def ending(account: Account) -> str | None:
    """What was said when this task ended; None while it goes on."""
    if account.task.state not in TERMINAL:
        return None
    return said((event.kind, event.data) for _, event in account.history)


def _with(words: object) -> str:
    return f": {words}" if words else ""


def _waiting(account: Account, line: str) -> str:
    """Of a held task also why, in the words of whoever held it."""
    held = next((event for _, event in account.history if event.kind == "task.held"), None)
    if not account.task.held or held is None:
        return line
    why = (orjson.loads(held.data).get("reason") if held.data is not None else None) or held.cause
    return line.replace(_HELD, f"{_HELD} ({_short(why)})", 1) if why and why != _HELD else line


def _blocked(account: Account, line: str) -> str:
    question = next((question for question in account.questions if question.answer is None), None)
    if question is None:
        return line
    options = f" ({' | '.join(question.options)})" if question.options else ""
    return f'{line}: {_short(question.text)}{options}; agentcom task answer {task_ref(account.task.n)} "…"'


def _in_review(account: Account, live: str | None) -> str:
    change = next(iter(account.changes), None)
    if change is None or change.lease_epoch != account.task.lease_epoch:
        return live or "in review: its change is about to be opened"
    name = change_ref(change.id) + (f" (tier {change.tier})" if change.tier is not None else "")
    if change.state is not ChangeState.WAITING:
        return f"in review: {name} {_CHANGES[change.state]}{_with(change.cause)}"
    whom = "a person or another agent" if (change.cause or "").startswith("review_needed") else "a person"
    return f"in review: {name} waits for {whom}{_with(change.cause)}; agentcom change approve {change_ref(change.id)}"


def _finished(account: Account) -> str:
    task = account.task
    words = ending(account)
    if task.state is TaskState.DONE:
        merged = next((change for change in account.changes if change.state is ChangeState.MERGED), None)
        return "done" + (_with(_merged(merged)) if merged is not None else _with(_code(task.cause, words)))
    if task.cause == "deadline" and task.deadline is not None:
        return f"{task.state}: deadline {rfc3339(task.deadline)} passed"
    return f"{task.state}{_with(_code(task.cause, words or _failure(account)))}" + _poisoned(account) + _kept(account)


def _poisoned(account: Account) -> str:
    """A task that took its agents with it is never offered again by itself. Losses of agents that lose everything were not counted."""
    task = account.task
    if task.state is not TaskState.DEAD or task.lost < MAX_LOST:
        return ""
    where = ", ".join(dict.fromkeys(attempt.agent for attempt in account.attempts if attempt.outcome == "lost"))
    return f"; lost {task.lost} times (on {where}): find out why before agentcom task requeue {task_ref(task.n)}"


def _kept(account: Account) -> str:
    """Where to look for work that was not applied and that nobody has decided about."""
    kept = next((kept for kept in account.salvage if kept.state is SalvageState.OPEN), None)
    return "" if kept is None else f"; work is kept: agentcom salvage show {kept.ref}"


def _merged(change: ChangeOfTask) -> str:
    where = f" as {change.merged_sha[:12]}" if change.merged_sha else ""
    return f"{change_ref(change.id)} is merged{where}"


def _code(cause: str | None, words: str | None) -> str:
    """The code of an end and the words to it; that a person ended it is said by the state already."""
    return ": ".join(part for part in (None if cause in _BY_HAND and words else cause, words) if part)


def _failure(account: Account) -> str | None:
    """What the last attempt says of itself: the check that failed, or its error, and where its work is."""
    attempt, result = next(iter(account.attempts), None), account.result
    if attempt is None:
        return None
    if result is not None and result.lease_epoch != attempt.lease_epoch:
        result = None
    error = attempt.error or {}
    found = _failed_check((result.verification or {}) if result is not None else {})
    if not found and error:
        code = "" if error.get("code") in (None, account.task.cause) else f"{error['code']}: "
        found = code + _short(str(error.get("message") or ""))
    branch = f"branch {result.branch}" if result is not None and result.branch else ""
    return "; ".join(part for part in (found, branch, f"attempt {attempt.lease_epoch} on {attempt.agent}") if part)


def _failed_check(report: Mapping[str, Any]) -> str:
    """The first check that did not pass, and the last thing it printed."""
    failed = [check for check in report.get("checks") or [] if check.get("status") not in _PASSED]
    if not failed:
        return ""
    first = failed[0]
    name = f"{first.get('kind')} {first.get('target') or ''}".strip()
    printed = str(first.get("output") or "").strip().splitlines()
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{_short(name)} {_STATUS.get(str(first.get('status')), 'could not run')}{more}{_with(_short(printed[-1]) if printed else '')}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= DETAIL_CHARS else line[: DETAIL_CHARS - 1] + "…"
