"""What the rules refuse, as data.

``HubError`` is the root. ``Refused`` carries a stable code, an HTTP-like class and all field faults; doors turn it into
problem+json, error frames and CLI messages without parsing words. ``IllegalTransition`` means a defect of ours, never of input.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of an input: where (dotted path), stable type, words that name the cure."""

    loc: str
    type: str
    msg: str


class HubError(Exception):
    """Root of every error this project raises on purpose."""

    code = "internal"
    status = 500
    retryable = False
    hint = ""


class Refused(HubError):
    """A command that cannot be obeyed; nothing changed.

    ``status`` is the HTTP class of the refusal (404, 409, 412, 422, 429 …), ``code`` is stable, ``hint`` names the command that
    would do what was probably meant, ``retry_after_s`` is set when waiting helps.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        faults: tuple[Fault, ...] = (),
        hint: str = "",
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.faults = faults
        self.hint = hint
        self.retry_after_s = retry_after_s
        self.retryable = retry_after_s is not None


class OutcomeUnknown(HubError):
    """The commit failed in a way that leaves open whether it happened; idempotency keys make a retry safe."""

    code = "outcome_unknown"
    status = 503
    retryable = True


class StoreFull(HubError):
    """The disk is full, and the reserve is spent: nothing was accepted."""

    code = "disk_full"
    status = 507
    retryable = True
    hint = "free some space on the disk of the hub's data directory; agentcom db health says what takes it"


class IllegalTransition(HubError):
    """A state machine was asked for an edge its table does not have: a defect, and nothing was changed."""

    code = "illegal_transition"
