"""A directory for inputs that are files: in memory, if there is such a place, and gone with the process.

Or with the one that started it, which names the directory in FUZZ_PLACE: libFuzzer ends a process without a farewell.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
ROOM = _MEMORY if _MEMORY.is_dir() else None
PLACE = Path(tempfile.mkdtemp(prefix="agentcom-fuzz-", dir=os.environ.get("FUZZ_PLACE", ROOM)))
atexit.register(shutil.rmtree, PLACE, ignore_errors=True)
