"""Whose fault was it, the agent's or the task's? How a run ended says something about one of them, and often not about which.

Evidence adds up: a broken agent fails at whatever it is given, a bad task fails on whoever is given it. So a doubtful end counts
against the agent once per task, and not at all when another agent, that is trusted, failed at the same task in the same way.
Pure: what counts, when it is enough, and what it costs, as tables; :mod:`hub.core.quarantine` acts on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

import orjson

from hub.ids import SECOND, LeaseEpoch, Outcome, StrikeOf, TaskId

MAX_REMEMBERED = 8
"""Reasons kept of an agent, and agents kept of a task."""
QUARANTINE_US = (600 * SECOND, 3600 * SECOND)
"""First and second quarantine; the third lasts until a person resumes the agent."""
FOREVER = 2**62
"""``quarantined_until`` of an agent that only a person resumes."""


class Blame(Enum):
    """What the end of an offer or of a run says."""

    NOBODY = auto()
    """Nothing: somebody asked for it, or a rate limit."""
    SOUND = auto()
    """The agent works, whatever became of the task."""
    DOUBTFUL = auto()
    """A broken agent or a bad task; the next ends tell."""
    AGENT = auto()
    """The agent's machine, whatever the task is."""


OF_CODE: Mapping[str, Blame] = {
    # the sidecar could not even begin
    "cannot_start": Blame.AGENT,
    "no_runtime": Blame.AGENT,
    "git_missing": Blame.AGENT,
    "not_handed_over": Blame.AGENT,
    # its workspace, which depends on the machine and on the repository
    "git_failed": Blame.DOUBTFUL,
    "git_timeout": Blame.DOUBTFUL,
    "remote_unreachable": Blame.DOUBTFUL,
    "workspace_gone": Blame.DOUBTFUL,
    "record_unreadable": Blame.DOUBTFUL,
    "sidecar_fault": Blame.DOUBTFUL,
    # what the hub or a person ended is nobody's fault
    "drained": Blame.NOBODY,
    "parked": Blame.NOBODY,
    "lease_lost": Blame.NOBODY,
}
"""Error codes of sidecars that say more than the outcome does."""
ABRUPT = frozenset({"agent_failed", "agent_killed", "no_outcome", "no_marker"})
"""How a program ends that said nothing itself: at once, it is doubtful whether it did any work."""
OF_OUTCOME: Mapping[Outcome, Blame] = {
    Outcome.SUCCEEDED: Blame.SOUND,
    Outcome.FAILED: Blame.SOUND,
    Outcome.LOST: Blame.DOUBTFUL,
    Outcome.INTERRUPTED: Blame.NOBODY,
    Outcome.CANCELLED: Blame.NOBODY,
    Outcome.RATE_LIMITED: Blame.NOBODY,
}
HARMLESS_DECLINES = frozenset({"busy", "quiet", "rate_limited", "disk_full"})
"""Decline codes that say nothing against the agent."""


def blame(outcome: Outcome, code: str | None, *, error_class: str | None, took_us: int | None, instant_us: int) -> Blame:
    """What the end of a run says. ``took_us`` is how long it ran since it was accepted, None if that is unknown."""
    if outcome is Outcome.SUCCEEDED:
        return Blame.SOUND
    if code is not None and code in OF_CODE:
        return OF_CODE[code]
    if outcome is Outcome.FAILED and error_class == "rate_limited":
        return Blame.NOBODY
    if outcome is Outcome.FAILED and error_class == "lost":
        return Blame.DOUBTFUL
    if code in ABRUPT and took_us is not None and took_us < instant_us:
        return Blame.DOUBTFUL
    return OF_OUTCOME[outcome]


class Strike(NamedTuple):
    """One reason against an agent, with what it cost the task: ``tries`` and ``lost`` are given back if the agent turns out broken.

    ``of`` says which row it belongs to: an offer that was not taken, or a run; ``sure`` that it was the agent's own fault. ``at`` is UTC.
    """

    of: StrikeOf
    task: TaskId
    generation: int
    lease_epoch: LeaseEpoch
    cause: str
    at: int
    sure: bool = True
    tries: int = 0
    lost: int = 0


def add(strikes: tuple[Strike, ...], new: Strike) -> tuple[Strike, ...]:
    """With this reason, the newest last. A doubtful one takes the place of an earlier one about the same task, and its costs."""
    if not new.sure:
        same = [old for old in strikes if not old.sure and (old.task, old.generation) == (new.task, new.generation)]
        new = new._replace(tries=new.tries + sum(old.tries for old in same), lost=new.lost + sum(old.lost for old in same))
        strikes = tuple(old for old in strikes if old not in same)
    return (*strikes, new)[-MAX_REMEMBERED:]


def is_enough(strikes: Iterable[Strike], of: StrikeOf, level: int, most: int) -> bool:
    """Whether the agent is to be quarantined: ``most`` reasons of one kind in a row (0: never), or one when it is on trial."""
    return most > 0 and sum(strike.of == of for strike in strikes) >= (1 if level else most)


def until(level: int, wall: int) -> int:
    """When the quarantine of an agent ends that was quarantined ``level`` times since it last did something soundly."""
    return wall + QUARANTINE_US[level] if level < len(QUARANTINE_US) else FOREVER


def dumped(strikes: Iterable[Strike]) -> str:
    """As the store keeps them."""
    return orjson.dumps([strike._asdict() for strike in strikes]).decode()


def loaded(text: str) -> tuple[Strike, ...]:
    """As they were kept."""
    known: list[dict[str, Any]] = orjson.loads(text)
    return tuple(Strike(**strike | {"of": StrikeOf(strike["of"])}) for strike in known)
