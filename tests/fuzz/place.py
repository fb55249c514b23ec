"""A directory for inputs that are files: in memory, if there is such a place, and gone with the process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
PLACE = Path(tempfile.mkdtemp(prefix="agentcom-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
atexit.register(shutil.rmtree, PLACE, ignore_errors=True)
