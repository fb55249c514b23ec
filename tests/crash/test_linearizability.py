"""The checker refuses what a register with a fence would never answer, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.crash.linearizability import Kind, Op, explain


def op(kind: str, began: int, ended: int | None, answer: str | None = None, epoch: int = 0, agent: str = "", **more: Any) -> Op:
    return Op(kind=Kind(kind), began=began, ended=ended, answer=answer, epoch=epoch, agent=agent, **more)


SUBMIT = op("submit", 0, 5, "ok")
CLAIM_1 = op("claim", 10, 10, "ok", 1, "a")
ACCEPT_1 = op("accept", 11, 15, "ok", 1, "a")
EXPIRE_1 = op("release", 50, 50, "free", 1)
CLAIM_2 = op("claim", 60, 60, "ok", 2, "b")
HELD = (SUBMIT, CLAIM_1, ACCEPT_1)
GIVEN_ON = (*HELD, EXPIRE_1, CLAIM_2)

GOOD = {
    "done": (*HELD, op("renew", 20, 22, "ok", 1, "a"), op("result", 30, 35, "applied", 1, "a"), op("read", 40, 41, "over")),
    "the claim happens before the submit is answered": (op("submit", 0, 50, "ok"), CLAIM_1),
    "a result said again is a duplicate": (
        *HELD,
        op("result", 30, None, None, 1, "a"),
        op("result", 40, 45, "duplicate", 1, "a"),
    ),
    "late, and nobody else had it": (*HELD, EXPIRE_1, op("result", 55, 58, "applied", 1, "a")),
    "late, and salvaged": (*GIVEN_ON, op("result", 70, 75, "salvaged", 1, "a"), op("result", 80, 85, "applied", 2, "b")),
    "renewed and expired at once": (*HELD, op("renew", 40, 90, "ok", 1, "a"), EXPIRE_1, CLAIM_2),
    "lost and told so": (*GIVEN_ON, op("renew", 61, 65, "lost", 1, "a"), op("accept", 61, 66, "revoked", 1, "a")),
    "an unanswered submit that happened": (op("submit", 0, None), CLAIM_1, ACCEPT_1),
    "an unanswered submit that did not": (op("submit", 0, None), op("read", 10, 11, "missing")),
    "an unanswered result that was applied": (*HELD, op("result", 30, None, None, 1, "a"), op("read", 90, 91, "over")),
    "an unanswered result that was not": (*HELD, op("result", 30, None, None, 1, "a"), EXPIRE_1, CLAIM_2),
    "a failure is tried again": (
        *HELD,
        op("result", 30, 35, "applied", 1, "a", success=False),
        CLAIM_2,
        op("result", 70, 75, "applied", 2, "b"),
    ),
    "cancelled while an agent has it": (
        *HELD,
        op("cancel", 20, 22, "pending"),
        op("result", 30, 35, "salvaged", 1, "a"),
        op("read", 40, 41, "over"),
    ),
    "an unanswered cancel explains the salvage": (
        *HELD,
        op("cancel", 20, None),
        op("result", 30, 35, "salvaged", 1, "a"),
    ),
    "requeued": (
        *HELD,
        op("result", 30, 35, "applied", 1, "a"),
        op("requeue", 40, 45, "ok"),
        op("claim", 47, 47, "ok", 3, "b"),
        op("result", 70, 75, "applied", 3, "b"),
    ),
}

BAD = {
    "a stale result is applied": (*GIVEN_ON, op("result", 70, 75, "applied", 1, "a")),
    "a stale result is applied after the new one": (
        *GIVEN_ON,
        op("result", 62, 65, "applied", 2, "b"),
        op("result", 70, 75, "applied", 1, "a"),
    ),
    "two holders": (*HELD, op("claim", 20, 20, "ok", 2, "b")),
    "two agents under one epoch": (*HELD, op("accept", 20, 25, "ok", 1, "b")),
    "an epoch used again": (*HELD, EXPIRE_1, op("claim", 60, 60, "ok", 1, "b")),
    "renewed after it expired": (*HELD, EXPIRE_1, op("renew", 51, 55, "ok", 1, "a")),
    "renewed after it was given on": (*GIVEN_ON, op("renew", 70, 75, "ok", 1, "a")),
    "told lost while it holds": (*HELD, op("renew", 20, 25, "lost", 1, "a"), op("result", 30, 35, "applied", 1, "a")),
    "an acknowledged submit is lost": (SUBMIT, op("read", 10, 11, "missing")),
    "an acknowledged result is lost": (*HELD, op("result", 30, 35, "applied", 1, "a"), EXPIRE_1, CLAIM_2),
    "done twice": (*HELD, op("result", 30, 35, "applied", 1, "a"), op("result", 40, 45, "applied", 1, "a")),
    "done twice under two epochs": (
        *HELD,
        op("result", 30, 35, "applied", 1, "a"),
        op("claim", 40, 40, "ok", 2, "b"),
        op("result", 50, 55, "applied", 2, "b"),
    ),
    "a duplicate of nothing": (*HELD, op("result", 30, 35, "duplicate", 1, "a")),
    "salvaged after it was applied": (
        *HELD,
        op("result", 30, 35, "applied", 1, "a"),
        op("result", 40, 45, "salvaged", 1, "a"),
    ),
    "a holder's success is thrown away": (*HELD, op("result", 30, 35, "salvaged", 1, "a")),
    "an acknowledged cancel is forgotten": (SUBMIT, op("cancel", 6, 8, "over"), CLAIM_1),
    "claimed before it was submitted": (op("submit", 20, 25, "ok"), CLAIM_1),
    "an acknowledged requeue is forgotten": (
        *HELD,
        op("result", 30, 35, "applied", 1, "a"),
        op("requeue", 40, 45, "ok"),
        op("read", 50, 51, "over"),
    ),
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD.keys())
def test_what_can_be_explained_is_accepted(history: tuple[Op, ...]) -> None:
    assert explain(history) is None


@pytest.mark.parametrize("history", BAD.values(), ids=BAD.keys())
def test_what_cannot_be_explained_is_refused(history: tuple[Op, ...]) -> None:
    assert "no order explains" in (explain(history) or "")


def test_many_unanswered_operations_do_not_explode() -> None:
    lost = [op("result", 30 + i, None, None, 1, "a") for i in range(40)]
    assert explain((*HELD, *lost, op("result", 90, 95, "duplicate", 1, "a"), op("read", 96, 97, "over"))) is None
