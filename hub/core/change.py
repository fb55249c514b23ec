"""A change: its state machine as a table, its conventions, its words, and what is intended with it.

Pure. The same object is later opened as a pull request by a forge, so its title, body and history are held to the
conventions here. What must happen next to a change is decided in ``hub.core.gate``, its tier in ``hub.core.risk``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from hub.core.content import INVISIBLE
from hub.core.errors import IllegalTransition
from hub.core.risk import Assessment
from hub.ids import ChangeState, TaskId, TaskType, task_ref

S = ChangeState

TRANSITIONS: Mapping[ChangeState, frozenset[ChangeState]] = {
    S.OPEN: frozenset({S.WAITING, S.CHECKING, S.MERGING, S.REWORK, S.CLOSED}),
    S.CHECKING: frozenset({S.OPEN, S.WAITING, S.MERGING, S.REWORK, S.CLOSED}),
    S.WAITING: frozenset({S.OPEN, S.CHECKING, S.MERGING, S.REWORK, S.CLOSED}),
    S.MERGING: frozenset({S.MERGED, S.OPEN, S.WAITING, S.CLOSED}),
    S.MERGED: frozenset(),
    S.REWORK: frozenset({S.WAITING}),
    S.CLOSED: frozenset(),
}
"""State → the states that may follow. Merging ends by what is on the base; rework → waiting only when the limit refuses it."""

LIVE = frozenset({S.OPEN, S.CHECKING, S.WAITING, S.MERGING})
"""States that still need work."""

TITLE_CHARS = 72
BODY_CHARS = 16_384
DESCRIPTION_CHARS = 4_000
COMMITS_LIMIT = 256
"""Most commits of one change: more is refused, as it can no longer be reviewed."""


def apply(state: ChangeState, to: ChangeState) -> ChangeState:
    """Take one edge of the table; raises :class:`IllegalTransition` if there is none."""
    if to not in TRANSITIONS[state]:
        raise IllegalTransition(f"a change that is {state} cannot become {to}")
    return to


# ── what is intended: committed before it is done, so that a restart can finish it ─────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A merge commit to be, with all it takes to build the very same commit again. ``date_s`` is seconds UTC.

    ``checks`` is the digest of the checks registered when it was made, ``check_run`` the number of their run: no two runs are one task.
    """

    kind: Literal["merge"] = "merge"
    sha: str
    expected_base: str
    tree: str
    parents: tuple[str, ...]
    date_s: int
    message: str
    checks: str = ""
    check_run: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """The task goes back to the queue with this feedback; ``keep_head``: the next attempt starts from this work."""

    kind: Literal["rework"] = "rework"
    feedback: str
    keep_head: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Burial:
    """The task is to die: its change was rejected for good."""

    kind: Literal["bury"] = "bury"
    cause: str


Intent = Annotated[Candidate | Return | Burial, Field(discriminator="kind")]
_intent: TypeAdapter[Candidate | Return | Burial] = TypeAdapter(Intent)


def encode_intent(intent: Candidate | Return | Burial) -> str:
    """The JSON text kept in the change's row."""
    return _intent.dump_json(intent).decode()


def decode_intent(text: str) -> Candidate | Return | Burial:
    """Read back what :func:`encode_intent` wrote."""
    return _intent.validate_json(text)


# ── conventions ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedCommit:
    """One commit between base and head."""

    sha: str
    parents: tuple[str, ...]
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What an agent's result proposes; commits oldest first.

    ``expected_branch`` and ``trailers`` are those of the applied lease: they carry its fence (protocol §5).
    """

    base: str
    branch: str
    expected_branch: str
    trailers: str
    commits: tuple[LoggedCommit, ...]
    title: str
    body: str


_CONVENTIONAL = re.compile(r"(?:build|chore|ci|docs|feat|fix|perf|refactor|revert|style|test)(?:\([\w./, -]{1,32}\))?!?: \S")


def breaches(proposal: Proposal) -> tuple[str, ...]:
    """Every convention the proposal breaks, as sentences for whoever must mend it."""
    found: list[str] = []
    if proposal.branch == proposal.base:
        found.append(f"the work is on the base branch {proposal.base} itself")
    elif proposal.branch != proposal.expected_branch:
        found.append(f"the work is on {proposal.branch!r}; this lease's branch is {proposal.expected_branch}")
    if not proposal.commits:
        found.append("there is no commit that the base does not have already")
    if len(proposal.commits) > COMMITS_LIMIT:
        found.append(f"there are more than {COMMITS_LIMIT} commits; split the work or squash them")
    own = {commit.sha for commit in proposal.commits}
    found += [
        f"commit {commit.sha[:12]} merges something other than the base branch"
        for commit in proposal.commits
        if sum(parent in own for parent in commit.parents) > 1
    ]
    if len(proposal.title) > TITLE_CHARS or _CONVENTIONAL.match(proposal.title) is None:
        found.append(f"the title is not of the form 'type: subject' within {TITLE_CHARS} characters")
    if not proposal.body.endswith(f"\n\n{proposal.trailers}"):
        found.append("the trailers that name task and lease epoch are missing")
    return tuple(found)


# ── words ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

_PREFIX: Mapping[TaskType, str] = {
    TaskType.BUG: "fix",
    TaskType.FEATURE: "feat",
    TaskType.REFACTOR: "refactor",
    TaskType.DOCUMENTATION: "docs",
}


def title(task_title: str, task_type: TaskType) -> str:
    """The change's title: the task's, in conventional form, one visible line of at most 72 characters."""
    words = " ".join(_visible(task_title).split()) or "untitled"
    if _CONVENTIONAL.match(words) is None:
        words = f"{_PREFIX.get(task_type, 'chore')}: {words}"
    return words if len(words) <= TITLE_CHARS else f"{words[: TITLE_CHARS - 1].rstrip()}…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the body tells: what and why from the task, how it was verified, how risky it is."""

    task: TaskId
    trailers: str
    task_title: str
    description: str
    created_by: str
    agent: str
    origin_epoch: int | None = None
    """The lease that made the work, if it was adopted under another one."""
    commits: tuple[LoggedCommit, ...]
    verification: tuple[str, ...]
    assessment: Assessment


def body(account: Account) -> str:
    """The change's body, which becomes the merge commit's message.

    Bounded; the trailers are always its last paragraph, and no line of a submitter's text can pass for one.
    """
    what = _quoted(account.description or account.task_title, DESCRIPTION_CHARS)
    commits = _list([f"{commit.sha[:12]} {_quoted(commit.subject, 120)}" for commit in account.commits])
    why = f"{task_ref(account.task)} “{_quoted(account.task_title, 200)}”, asked for by {account.created_by}"
    adopted = "" if account.origin_epoch is None else f" under lease {account.origin_epoch}, and adopted since"
    sections = (
        what,
        f"Why:\n{why}, written by {account.agent}{adopted}.",
        f"Commits:\n{commits}",
        f"Verification:\n{_list([_quoted(line, 300) for line in account.verification])}",
        f"Risk tier {account.assessment.tier.value}:\n{_list([_quoted(reason, 400) for reason in account.assessment.reasons])}",
    )
    text = "\n\n".join(sections)[:BODY_CHARS].rstrip()
    return f"{text}\n\n{account.trailers}"


def _list(lines: list[str]) -> str:
    shown = lines[:20]
    rest = [f"- … and {len(lines) - 20} more"] if len(lines) > 20 else []
    return "\n".join([*(f"- {line}" for line in shown), *rest]) or "- nothing"


def _quoted(text: str, limit_chars: int) -> str:
    """Foreign text, visible and bounded, in which no line begins like our trailers."""
    visible = _visible(text.strip())
    clipped = visible if len(visible) <= limit_chars else f"{visible[: limit_chars - 1]}…"
    return re.sub(r"(?im)^(?=agentcom-)", "> ", clipped)


def _visible(text: str) -> str:
    return INVISIBLE.sub("�", text)
