"""The one clock deadlines are measured on. Standard library only: the shim imports this.

CLOCK_BOOTTIME goes on while the machine sleeps, so a laptop that wakes up after its lease ran out knows it at once;
where the system has no such clock the monotonic one is the best there is.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_us() -> int:
    """Microseconds since the machine started, sleep included; comparable between processes of one boot."""
    return time.clock_gettime_ns(_BOOT) // 1000


def boot_ticks() -> int:
    """Now, in the unit and origin of a process's start time; one tick early, as the kernel rounds down."""
    return boot_us() * os.sysconf("SC_CLK_TCK") // 1_000_000 - 1


def boot_name() -> str:
    """Names this boot of the machine: a pid and times of another boot mean nothing. Empty where the system has no name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
