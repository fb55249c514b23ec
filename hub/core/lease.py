"""The numbers of leases and acceptance, all of them ratios of one setting so that tests can use short ones (protocol §4).

The sidecar stops its agent by 35/36 of the lease counted from when its last answered beat was *sent*; the hub gives the task away at
4/3 of the lease counted from when that beat was *received*. The gap is the tolerated difference of the two clocks' rates.
"""

from __future__ import annotations

from dataclasses import dataclass

from hub.ids import SECOND


@dataclass(frozen=True, slots=True)
class Terms:
    """Durations in microseconds, derived from lease, beat and accept."""

    lease_us: int = 180 * SECOND
    beat_us: int = 20 * SECOND
    accept_us: int = 30 * SECOND
    grace_us: int = 30 * SECOND
    """How long a disconnected agent shows ``reconnecting`` before ``offline``."""
    tombstone_us: int = 300 * SECOND
    """How long a terminal task stays in memory, closing the race with facts read just before."""
    avoid_us: int = 60 * SECOND
    """How long a retry waits for another agent than the one that failed."""
    strikes: int = 3
    """Reasons in a row that quarantine an agent (protocol §4.3); 0 quarantines none."""
    instant_us: int = 5 * SECOND
    """A program that fails without a word this soon after it was started may be broken; 0 takes none for that."""
    max_live: int = 250_000
    """Live tasks in all lanes; beyond, a submit gets 429."""

    @property
    def hold_us(self) -> int:
        """From receipt of a renewal until the hub gives the task away."""
        return self.lease_us * 4 // 3

    @property
    def resend_us(self) -> int:
        """An assign unanswered this long is sent again."""
        return self.accept_us // 3

    @property
    def fresh_us(self) -> int:
        """An agent unseen this long is given nothing."""
        return self.beat_us * 3 // 2
