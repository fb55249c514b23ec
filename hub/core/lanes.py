"""Which lane is served next, and which project inside a lane: fairness without starvation.

Among claims for which several lanes have work, of any four in a row at most two are urgent and at most one goes by age; the rest
are shared high:normal:low = 8:4:2 by smooth weighted round robin (the unit-cost form of deficit round robin, as in nginx).
Inside a lane, projects share by start-time fair queueing: a task's ``seq`` = max(lane's virtual time, project's last) + 1, fixed when
it enters the lane.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from hub.ids import SECOND, Lane

LANES = tuple(Lane)
WEIGHTS = {Lane.HIGH: 8, Lane.NORMAL: 4, Lane.LOW: 2}
AGE_BOUND_US = {Lane.HIGH: 600 * SECOND, Lane.NORMAL: 1800 * SECOND, Lane.LOW: 3600 * SECOND}
"""A task older than its lane's bound may be served by age."""
WINDOW = 4
MAX_URGENT = 2
MAX_AGED = 1


@dataclass(slots=True)
class LanePicker:
    """Remembers the last contested claims of one class of agents and picks the next lane."""

    recent: deque[str] = field(default_factory=lambda: deque(maxlen=WINDOW - 1))
    credit: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(WEIGHTS, 0))

    def pick(self, ready: Collection[Lane], oldest_overdue: Lane | None) -> tuple[Lane, str]:
        """The lane to serve and the rule that chose it (only, urgent, age, weight).

        ``ready`` are the lanes with work for this agent (at least one); ``oldest_overdue`` the lane of the oldest task beyond its
        lane's age bound, if any.
        """
        if len(ready) == 1:
            return next(iter(ready)), "only"
        if Lane.URGENT in ready and self.recent.count("urgent") < MAX_URGENT:
            self.recent.append("urgent")
            return Lane.URGENT, "urgent"
        if oldest_overdue is not None and self.recent.count("age") < MAX_AGED:
            self.recent.append("age")
            return oldest_overdue, "age"
        self.recent.append("weight")
        return self._weighted([lane for lane in LANES if lane in ready and lane in WEIGHTS]), "weight"

    def _weighted(self, lanes: list[Lane]) -> Lane:
        for lane in lanes:
            self.credit[lane] += WEIGHTS[lane]
        best = max(lanes, key=lambda lane: self.credit[lane])
        self.credit[best] -= sum(WEIGHTS[lane] for lane in lanes)
        return best


@dataclass(slots=True)
class FairSequence:
    """Gives each task entering a lane its place among the projects."""

    virtual_time: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))
    last: dict[tuple[Lane, str], int] = field(default_factory=dict)

    def enter(self, lane: Lane, project: str) -> int:
        """The place of a task of ``project`` that joins ``lane`` now."""
        place = max(self.virtual_time[lane], self.last.get((lane, project), 0)) + 1
        self.last[lane, project] = place
        return place

    def emptied(self, lane: Lane, project: str) -> None:
        """Nothing of this project is ready in this lane: what it never got served is not held against its next task."""
        self.last.pop((lane, project), None)

    def served(self, lane: Lane, place: int) -> None:
        """A task with this place was claimed: virtual time moves on, never back."""
        self.virtual_time[lane] = max(self.virtual_time[lane], place)
