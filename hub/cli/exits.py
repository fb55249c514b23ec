"""Exit codes: what a script may rely on."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    UNAUTHORISED = 5
    NOT_DONE = 6
    LATER = 7


MEANINGS = {
    Exit.OK: "ok",
    Exit.REFUSED: "the hub refused (invalid, or not possible in this state)",
    Exit.USAGE: "wrong usage",
    Exit.UNREACHABLE: "the hub does not answer",
    Exit.NOT_FOUND: "there is no such thing",
    Exit.UNAUTHORISED: "the token is missing, unknown, or lacks the scope",
    Exit.NOT_DONE: "the watched task ended without being done, or a check of the doctor failed",
    Exit.LATER: "the hub is busy: try again later",
}

EPILOG = "Exit codes: " + "; ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + "."


def of_status(status: int) -> Exit:
    """The exit code for an HTTP status of a refusal."""
    if status in (401, 403):
        return Exit.UNAUTHORISED
    if status == 404:
        return Exit.NOT_FOUND
    if status in (429, 503, 507):
        return Exit.LATER
    return Exit.REFUSED
