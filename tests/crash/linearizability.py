"""Whether what the world saw of one task could have come from a register with a fence, one operation at a time.

A history is what callers saw from outside: when they asked, when they were answered, and what. It is linearizable if every answered
operation can be given one moment between the two, in an order in which the register below gives just these answers; an operation that
nobody heard the answer of (its caller or the hub was killed) may have happened at any moment after it was asked, or never. The search is
Wing and Gong's with the memory of Lowe: of all that may come next, try each, never the same set of operations in the same state twice.
Tasks do not touch each other, so each has a history of its own, which keeps the search small.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What is asked of a task. Claims, releases and reopenings are the hub's own, known from its event log to the microsecond."""

    SUBMIT = "submit"  # ok
    CLAIM = "claim"  # ok
    ACCEPT = "accept"  # ok, revoked
    RENEW = "renew"  # ok, lost
    RESULT = "result"  # applied, duplicate, stale, salvaged
    RELEASE = "release"  # free, over: a lease ended without a result: it expired, was lost or given back
    REOPEN = "reopen"  # ok: reviewed work goes back to the queue
    CANCEL = "cancel"  # over, pending, refused
    REQUEUE = "requeue"  # ok, refused
    READ = "read"  # missing, open, over


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation: asked at ``began`` and answered at ``ended`` (microseconds, None for never) with ``answer``.

    ``epoch`` and ``agent`` are the fence it was made under; ``success`` is what a result says of its run.
    """

    kind: Kind
    began: int
    ended: int | None
    answer: str | None = None
    epoch: int = 0
    agent: str = ""
    success: bool = True


class Register(NamedTuple):
    """A task as its fence sees it. ``applied``: the epochs a result ended; ``settled``: those, and those whose result was salvaged."""

    status: str = "absent"  # then free, held, over
    epoch: int = 0
    holder: str = ""
    stopping: bool = False
    applied: frozenset[int] = frozenset()
    settled: frozenset[int] = frozenset()

    def holds(self, op: Op) -> bool:
        return (self.status, self.epoch, self.holder) == ("held", op.epoch, op.agent)

    def end(self, status: str) -> Register:
        return self._replace(status=status, holder="", stopping=False)


def after(state: Register, op: Op, answer: str) -> list[Register]:
    """The states in which this answer to ``op`` leaves the register; none if it cannot give it."""
    match op.kind, answer:
        case Kind.SUBMIT, "ok":
            return [state._replace(status="free") if state.status == "absent" else state]
        case Kind.CLAIM, "ok":
            rises = state.status == "free" and op.epoch > state.epoch
            return [state._replace(status="held", epoch=op.epoch, holder=op.agent)] if rises else []
        case ((Kind.ACCEPT | Kind.RENEW), "ok"):
            return [state] if state.holds(op) else []
        case (Kind.ACCEPT, "revoked") | (Kind.RENEW, "lost"):
            return [] if state.holds(op) else [state]
        case Kind.RESULT, _:
            return _after_result(state, op, answer)
        case Kind.RELEASE, ("free" | "over" as to):
            return [state.end(to)] if state.status == "held" and state.epoch == op.epoch else []
        case Kind.REOPEN, "ok":
            return [state.end("free")] if state.status == "over" else []
        case Kind.CANCEL, "over":
            return [state.end("over")] if state.status in {"free", "held"} else []
        case Kind.CANCEL, "pending":
            return [state._replace(stopping=True)] if state.status == "held" else []
        case Kind.REQUEUE, "ok":
            return [state.end("free")] if state.status == "over" else []
        case ((Kind.CANCEL | Kind.REQUEUE), "refused"):
            return [state]
        case Kind.READ, _:
            is_so = {"missing": state.status == "absent", "open": state.status in {"free", "held"}}
            return [state] if is_so.get(answer, state.status == answer) else []
    return []


def _after_result(state: Register, op: Op, answer: str) -> list[Register]:
    holds = state.holds(op)
    settled = state._replace(settled=state.settled | {op.epoch})
    applied = settled._replace(applied=state.applied | {op.epoch})
    match answer:
        case "applied" if holds and state.stopping:
            return [] if op.success else [applied.end("over")]
        case "applied" if holds:  # a failure is tried again, or was the last one
            return [applied.end("over")] if op.success else [applied.end("free"), applied.end("over")]
        case "applied":  # late: given up, not given away again
            late = op.success and (state.status, state.epoch) == ("free", op.epoch) and op.epoch not in state.applied
            return [applied.end("over")] if late else []
        case "duplicate":
            return [state] if op.epoch in state.settled and not holds else []
        case "salvaged" if holds:  # a success that came while it was being cancelled
            return [applied.end("over")] if state.stopping else []
        case "salvaged" | "stale":
            return [] if holds or op.epoch in state.applied else [settled]
    return []


ANSWERS = {
    Kind.SUBMIT: ("ok",),
    Kind.RESULT: ("applied", "salvaged"),
    Kind.CANCEL: ("over", "pending"),
    Kind.REQUEUE: ("ok",),
}
"""The answers with an effect, of what may go unanswered; for the other kinds it makes no difference whether it happened."""


@dataclass(slots=True)
class Search:
    """One search over one history."""

    ops: Sequence[Op]
    seen: set[tuple[int, Register]] = field(default_factory=set)
    furthest: int = 0

    def finds(self) -> bool:
        """Whether some order explains every answer."""
        answered = sum(1 << i for i, op in enumerate(self.ops) if op.ended is not None)
        stack = [(0, Register())]
        while stack:
            done, state = stack.pop()
            if (done, state) in self.seen:
                continue
            self.seen.add((done, state))
            self.furthest = max(self.furthest, (done & answered).bit_count())
            if done & answered == answered:
                return True
            stack.extend(self._next(done, state))
        return False

    def _next(self, done: int, state: Register) -> Iterable[tuple[int, Register]]:
        waiting = [(i, op) for i, op in enumerate(self.ops) if not done >> i & 1]
        until = min(math.inf if op.ended is None else op.ended for _, op in waiting)
        for i, op in waiting:
            if op.began <= until:
                for answer in ANSWERS.get(op.kind, ()) if op.answer is None else (op.answer,):
                    for reached in after(state, op, answer):
                        yield done | 1 << i, reached


def explain(history: Iterable[Op]) -> str | None:
    """None for a history that is linearizable; else how far it could be explained, and what it is."""
    search = Search(sorted(history, key=lambda op: (op.began, op.ended or math.inf)))
    if search.finds():
        return None
    lines = [f"{op.kind} epoch {op.epoch} {op.agent}: {op.began} … {op.ended} {op.answer}" for op in search.ops]
    answered = sum(op.ended is not None for op in search.ops)
    return f"no order explains more than {search.furthest} of {answered} answers:\n  " + "\n  ".join(lines)
