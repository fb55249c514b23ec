"""The one clock deadlines are measured on. Standard library only: the shim imports this.

CLOCK_BOOTTIME goes on while the machine sleeps, so a laptop that wakes up after its lease ran out knows it at once;
where the system has no such clock the monotonic one is the best there is.
"""

from __future__ import annotations

import time

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_us() -> int:
    """Microseconds since the machine started, sleep included; comparable between processes of one boot."""
    return time.clock_gettime_ns(_BOOT) // 1000
